package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker/policyconfiguration"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/signature"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
)

// File is the usual path of the policy.
const File = "/etc/containers/policy.json"

// Largest size of the policy and of a file with public keys, in bytes.
const (
	maxPolicy = 1 << 20
	maxKey    = 64 << 10
)

// Policy is the policy.json of a node. The file and the keys that it names are read again
// at each use.
type Policy struct {
	// Path is the file, usually [File]. Without the file every image is allowed.
	Path string
	// ReadFile reads a file of at most limit bytes. Its error for a file that does not
	// exist matches fs.ErrNotExist.
	ReadFile func(path string, limit int64) ([]byte, error)
}

// Image is an image whose manifest is known.
type Image struct {
	// Reference is the full name, after registries.conf was applied to a short name.
	Reference oci.Reference
	// Manifest is the manifest that would run, as the registry sent it. For an image of
	// several platforms it is the manifest of the platform, not the index.
	Manifest []byte
	// Signatures fetches the unverified signatures of the manifest. It is called only if
	// a rule requires a signature.
	Signatures func(context.Context) ([]Signature, error)
}

// CheckName applies the rules that do not depend on signatures, before a pull. Errors
// have the code [fault.Policy] if the rule rejects the image or requires something that
// careen does not support, [fault.BadConfig] if the policy or a key cannot be read, and
// [fault.BadReference].
func (p Policy) CheckName(ref oci.Reference) error {
	_, err := p.rule(ref)
	return err
}

// Check decides whether the image may run. It returns the signatures that were accepted,
// nil if no rule requires one. Errors have the codes of [Policy.CheckName], [fault.Node]
// if no temporary files can be written, and those of image.Signatures.
func (p Policy) Check(ctx context.Context, image Image) (*Accepted, error) {
	rule, err := p.rule(image.Reference)
	if err != nil || rule == nil {
		return nil, err
	}
	signatures, err := image.Signatures(ctx)
	if err != nil {
		return nil, err
	}
	return rule.verify(ctx, image.Manifest, signatures)
}

// Problems lists the rules that no image can meet, other than "reject": signatures that
// careen does not support and keys that cannot be used. One line each, sorted. The error
// has the code [fault.BadConfig] if the policy itself cannot be read; without a policy it
// matches fs.ErrNotExist.
func (p Policy) Problems() ([]string, error) {
	policy, err := p.load()
	if err != nil {
		return nil, err
	}
	var problems []string
	check := func(transport, where string, requirements []requirement) {
		for _, r := range requirements {
			if r.Type == accept || r.Type == reject {
				continue
			}
			err := r.refuse(oci.Reference{Transport: transport}, where)
			if err == nil {
				_, err = r.keys(p.ReadFile)
			}
			if err == nil && r.Type == signedBy {
				err = fmt.Errorf("%s requires a signature (%s) by %s, and %s", File, r.Type, where, noGPGFetch)
			}
			if err != nil {
				problems = append(problems, printable(strings.TrimPrefix(err.Error(), "cannot use image: ")))
			}
		}
	}
	check(oci.TransportDocker, defaultRule, policy.Default)
	for transport, scopes := range policy.Transports {
		for scope, requirements := range scopes {
			check(transport, scopeRule(transport, scope), requirements)
		}
	}
	slices.Sort(problems)
	return slices.Compact(problems), nil
}

// document is a policy.json that the library accepts.
type document struct {
	Default    []requirement
	Transports map[string]map[string][]requirement
}

// load reads the policy. The library checks it: podman and careen refuse the same files.
func (p Policy) load() (*document, error) {
	data, err := p.ReadFile(p.Path, maxPolicy)
	if err == nil {
		_, err = signature.NewPolicyFromBytes(data)
	}
	d := &document{}
	if err == nil {
		err = json.Unmarshal(data, d)
	}
	if err != nil {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "read", Subject: p.Path, Err: err,
			Remedy: "Correct the file, or remove it if every image may run"}
	}
	return d, nil
}

// rule returns what the image's signatures have to meet, nil if the image needs none.
func (p Policy) rule(ref oci.Reference) (*rule, error) {
	policy, err := p.load()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rule := &rule{original: ref.Original}
	var scopes []string
	if ref.Transport == oci.TransportDocker {
		rule.name, scopes, err = dockerScopes(ref)
	} else if resolved, symErr := filepath.EvalSymlinks(ref.Path); symErr == nil {
		scopes = pathScopes(resolved)
	} else {
		scopes = pathScopes(ref.Path)
	}
	if err != nil {
		return nil, err
	}
	requirements := policy.Default
	rule.where = defaultRule
	for _, scope := range scopes {
		if found, ok := policy.Transports[ref.Transport][scope]; ok {
			requirements, rule.where = found, scopeRule(ref.Transport, scope)
			break
		}
	}
	for _, r := range requirements {
		if r.Type == accept {
			continue
		}
		if err := r.refuse(ref, rule.where); err != nil {
			return nil, err
		}
		keys, err := r.keys(p.ReadFile)
		if err != nil {
			return nil, err
		}
		rule.required = append(rule.required, required{requirement: r, keys: keys})
	}
	if len(rule.required) == 0 {
		return nil, nil
	}
	return rule, nil
}

const defaultRule = "its default"

func scopeRule(transport, scope string) string {
	return fmt.Sprintf("its rule for %s %q", transport, scope)
}

// dockerScopes returns the names under which a rule for the image may be listed, the
// most specific first.
func dockerScopes(ref oci.Reference) (reference.Named, []string, error) {
	named, err := reference.ParseNormalizedNamed(ref.Name)
	var identity string
	if err == nil {
		identity, err = policyconfiguration.DockerReferenceIdentity(named)
	}
	if err != nil {
		return nil, nil, &fault.Error{Code: fault.BadReference, Op: "read image reference", Subject: ref.Original, Err: err,
			Remedy: "Write it like docker://registry.example:5000/tools/fw:1.2"}
	}
	return named, append(append([]string{identity}, policyconfiguration.DockerReferenceNamespaces(named)...), ""), nil
}

// pathScopes does the same for an image on the node: its path and the directories above.
func pathScopes(path string) []string {
	var scopes []string
	for ; len(path) > 1; path = filepath.Dir(path) {
		scopes = append(scopes, path)
	}
	return append(scopes, "")
}
