package image

import (
	"fmt"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// candidates returns the full names that the request may mean, in the order in
// which they are tried. Only a short name has more than one: registries.conf's
// alias decides it, else its search registries in turn, else Docker Hub.
func (p *Puller) candidates(req *Request) ([]reference.Named, error) {
	bad := func(err error) error {
		return &fault.Error{Code: fault.BadReference, Op: "read image reference", Subject: req.Original, Err: err,
			Remedy: "Write it as REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST"}
	}
	if req.Digest != "" {
		if err := digest.Digest(req.Digest).Validate(); err != nil {
			return nil, bad(err)
		}
	}
	var bases []reference.Named
	if short := shortName(req); short != "" {
		named, err := p.shortNames(short)
		if err != nil {
			return nil, bad(err)
		}
		bases = named
	}
	if len(bases) == 0 {
		named, err := reference.ParseNormalizedNamed(req.Name)
		if err != nil {
			return nil, bad(err)
		}
		bases = []reference.Named{named}
	}
	var full []reference.Named
	for _, base := range bases {
		ref, err := withTagOrDigest(reference.TrimNamed(base), req)
		if err != nil {
			return nil, bad(err)
		}
		full = append(full, ref)
	}
	return full, nil
}

// shortName returns the repository as the operator wrote it, if that has no
// registry in front. By Docker's rule the first part is a host only with a dot, a
// colon or the name localhost. A name with docker:// in front is at Docker Hub, as for podman.
func shortName(req *Request) string {
	name := req.Original
	if name == "" {
		name = req.Name
	}
	if strings.Contains(name, "://") {
		return ""
	}
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	first, _, more := strings.Cut(name, "/")
	if more && (strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first) {
		return ""
	}
	return name
}

func withTagOrDigest(name reference.Named, req *Request) (reference.Named, error) {
	switch {
	case req.Digest != "":
		return reference.WithDigest(name, digest.Digest(req.Digest))
	case req.Tag != "":
		return reference.WithTag(name, req.Tag)
	default:
		return reference.WithTag(name, "latest")
	}
}

// shortNames returns the full names for a short name by registries.conf, none if that has
// no rule.
func (p *Puller) shortNames(name string) ([]reference.Named, error) {
	sys := p.systemContext()
	alias, _, err := sysregistriesv2.ResolveShortNameAlias(sys, name)
	if err != nil {
		return nil, fmt.Errorf("alias in registries.conf: %w", err)
	}
	if alias != nil {
		return []reference.Named{alias}, nil
	}
	search, err := sysregistriesv2.UnqualifiedSearchRegistries(sys)
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	var named []reference.Named
	for _, registry := range search {
		ref, err := reference.ParseNormalizedNamed(registry + "/" + name)
		if err != nil {
			return nil, fmt.Errorf("search registry %q: %w", registry, err)
		}
		named = append(named, ref)
	}
	return named, nil
}

// systemContext points podman's library at the files of the configuration.
func (p *Puller) systemContext() *types.SystemContext {
	// The library caches the files for the life of the process. An operator who edits a
	// file expects that the next pull uses it.
	sysregistriesv2.InvalidateCache()
	return &types.SystemContext{
		SystemRegistriesConfPath:    p.cfg.RegistriesConf,
		SystemRegistriesConfDirPath: p.cfg.RegistriesConfDir,
	}
}
