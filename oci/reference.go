package oci

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	distref "github.com/distribution/reference"
)

// Transports of an image.
const (
	TransportDocker        = "docker"
	TransportOCI           = "oci"
	TransportOCIArchive    = "oci-archive"
	TransportDockerArchive = "docker-archive"
)

// Reference names an image: in a registry (transport docker), or in a directory or
// file of the node.
type Reference struct {
	// Transport is docker, oci, oci-archive or docker-archive.
	Transport string
	// Name is the full name in a registry with its tag or digest, such as
	// docker.io/library/busybox:latest; "" for the other transports.
	Name string
	// Path is the directory or file of the other transports.
	Path string
	// Tag is the tag in the registry, the name in an OCI layout, or the reference
	// in a docker-archive; "" when a digest is given or the layout has one image.
	Tag string
	// Digest is "sha256:..." when the operator pinned one.
	Digest string
	// Original is the text as it was written.
	Original string
}

// String returns the reference as it was written.
func (r Reference) String() string { return r.Original }

// Domain returns the registry's host and port, "" for an image on the node.
func (r Reference) Domain() string {
	domain, _, _ := strings.Cut(r.Name, "/")
	return domain
}

// Repository returns Name without tag and digest.
func (r Reference) Repository() string {
	named, err := distref.ParseNormalizedNamed(r.Name)
	if err != nil {
		return ""
	}
	return named.Name()
}

// maxReference bounds a reference's length; registries allow 255 for the name.
const maxReference = 1024

// ParseReference reads an image reference. docker://NAME, oci://NAME (Ironic's
// spelling) and a bare NAME are images in a registry, with docker.io and library/
// filled in as docker does and the tag latest when neither tag nor digest is
// given; with both, the digest decides. oci:DIR[:TAG], oci-archive:FILE[:NAME] and
// docker-archive:FILE[:NAME] are images on the node. Other transports are refused with the
// code [fault.Unsupported]; other errors have the code [fault.BadReference].
func ParseReference(s string) (Reference, error) {
	text := strings.TrimSpace(s)
	switch {
	case text == "":
		return Reference{}, badReference(s, "it is empty")
	case len(text) > maxReference:
		return Reference{}, badReference(text[:64]+"...", fmt.Sprintf("it is longer than %d bytes", maxReference))
	case text != s:
		return Reference{}, badReference(s, "it has white space around it")
	}
	for _, prefix := range []string{"docker://", "oci://"} {
		if name, ok := strings.CutPrefix(s, prefix); ok {
			return parseRegistryName(name, s)
		}
	}
	for _, transport := range []string{TransportOCI, TransportOCIArchive, TransportDockerArchive} {
		if rest, ok := strings.CutPrefix(s, transport+":"); ok {
			if ref, local := parseLocal(transport, rest, s); local {
				if ref.Path == "" {
					return Reference{}, badReference(s, "it names no path")
				}
				return ref, nil
			}
		}
	}
	if err := refuseTransport(s); err != nil {
		return Reference{}, err
	}
	return parseRegistryName(s, s)
}

// parseLocal reads PATH[:NAME]. "oci:5" could be an image named oci with the tag
// 5; containers' tools take it for a path, and so does careen.
func parseLocal(transport, rest, original string) (Reference, bool) {
	path, name, _ := strings.Cut(rest, ":")
	ref := Reference{Transport: transport, Tag: name, Original: original}
	if path != "" {
		ref.Path = filepath.Clean(path)
	}
	return ref, true
}

// refuseTransport returns an error for the transports of other tools.
func refuseTransport(s string) error {
	known := []string{"containers-storage", "dir", "docker-daemon", "sif", "ostree", "tarball", "http", "https", "docker"}
	for _, transport := range known {
		rest, ok := strings.CutPrefix(s, transport+":")
		if !ok {
			continue
		}
		// "dir:5000/x" may be a registry named dir; only a path or "//" is a transport.
		isPort := len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' && strings.Contains(rest, "/")
		if isPort || (transport == "docker" && !strings.HasPrefix(rest, "/")) {
			continue
		}
		remedy := "Use docker://NAME, oci:DIR, oci-archive:FILE or docker-archive:FILE"
		if transport == "http" || transport == "https" {
			remedy = "Leave the scheme out; for a registry without TLS give --tls-verify=false"
		}
		return &fault.Error{
			Code: fault.Unsupported, Op: "read image reference", Subject: s,
			Reason: fmt.Sprintf("careen has no transport %s", transport), Remedy: remedy,
		}
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return &fault.Error{
			Code: fault.Unsupported, Op: "read image reference", Subject: s,
			Reason: fmt.Sprintf("careen has no transport %s", quote(scheme)),
			Remedy: "Use docker://NAME, oci:DIR, oci-archive:FILE or docker-archive:FILE",
		}
	}
	return nil
}

func parseRegistryName(name, original string) (Reference, error) {
	if name == "" {
		return Reference{}, badReference(original, "it names no image")
	}
	if strings.HasPrefix(name, "/") {
		err := badReference(original, "a registry's name cannot begin with a slash")
		err.Remedy = "Write oci:" + name + " for a directory of the node"
		return Reference{}, err
	}
	named, err := distref.ParseNormalizedNamed(name)
	if err != nil {
		e := badReference(original, err.Error())
		e.Err = err
		return Reference{}, e
	}
	ref := Reference{Transport: TransportDocker, Original: original}
	if digested, ok := named.(distref.Digested); ok {
		ref.Digest = digested.Digest().String()
		ref.Name = named.Name() + "@" + ref.Digest
		return ref, nil
	}
	named = distref.TagNameOnly(named)
	if tagged, ok := named.(distref.Tagged); ok {
		ref.Tag = tagged.Tag()
	}
	ref.Name = named.String()
	return ref, nil
}

func badReference(s, reason string) *fault.Error {
	return &fault.Error{
		Code: fault.BadReference, Op: "read image reference", Subject: s, Reason: reason,
		Remedy: "Write it like docker://registry.example:5000/tools/fw:1.2",
	}
}
