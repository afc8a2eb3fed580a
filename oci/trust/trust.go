package trust

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
)

// File is where the policy lies, and MaxFile how large it may be, in bytes.
const (
	File    = "/etc/containers/policy.json"
	MaxFile = 1 << 20
)

// The requirements that careen can check.
const (
	accept         = "insecureAcceptAnything"
	reject         = "reject"
	sigstoreSigned = "sigstoreSigned"
)

// Policy is a policy.json.
type Policy struct {
	fallback   []requirement
	transports table[table[[]requirement]]
}

// requirement is one of those that an image has to meet.
type requirement struct {
	Type string
	// signed is set for sigstoreSigned.
	signed *signed
}

// UnmarshalJSON takes the type alone of what careen does not check.
func (r *requirement) UnmarshalJSON(data []byte) error {
	var it struct {
		Type string `json:"type"`
	}
	err := json.Unmarshal(data, &it)
	if err != nil {
		return err
	}
	switch r.Type = it.Type; it.Type {
	case accept, reject:
		err = members(data, map[string]any{"type": &r.Type})
	case sigstoreSigned:
		r.signed = &signed{}
		err = json.Unmarshal(data, r.signed)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", it.Type, err)
	}
	return nil
}

// Parse reads a policy.json. The error has the code [fault.BadConfig]: as with podman,
// with a policy that nobody understands nothing is let in.
func Parse(data []byte) (*Policy, error) {
	p := &Policy{}
	err := object(data, func(name string) any {
		switch name {
		case "default":
			return &p.fallback
		case "transports":
			return &p.transports
		default:
			return nil
		}
	})
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "read", Subject: File, Err: err,
			Remedy: "Correct the file, or remove it if every image may run"}
	}
	return p, nil
}

func (p *Policy) check() error {
	if err := known(`"default"`, p.fallback); err != nil {
		return err
	}
	for transport, scopes := range p.transports {
		for scope, requirements := range scopes {
			if err := known(fmt.Sprintf("transport %q, scope %q", transport, scope), requirements); err != nil {
				return err
			}
		}
	}
	return nil
}

// known reports a list that is empty or has a type that the format does not have.
func known(where string, requirements []requirement) error {
	if len(requirements) == 0 {
		return fmt.Errorf("%s has no requirements", where)
	}
	for _, r := range requirements {
		switch r.Type {
		case accept, reject, sigstoreSigned, "signedBy", "signedBaseLayer":
		default:
			return fmt.Errorf("%s has a requirement of unknown type %q", where, r.Type)
		}
	}
	return nil
}

// Check returns an error with the code [fault.Policy] if the image may not be used. If
// that depends on its signatures, they have to be given to the demand that is returned;
// else that is nil. A path in the reference is to be absolute and without symbolic
// links. read reads the file of a public key; what it cannot read is an error with the
// code [fault.BadConfig].
func (p *Policy) Check(ref oci.Reference, read func(path string) ([]byte, error)) (*Demand, error) {
	requirements, where := p.fallback, "its default"
	for _, scope := range scopes(ref) {
		if found, ok := p.transports[ref.Transport][scope]; ok {
			requirements, where = found, fmt.Sprintf("its rule for %s %q", ref.Transport, scope)
			break
		}
	}
	demand := &Demand{original: ref.Original, where: where}
	for _, r := range requirements {
		if r.Type == accept {
			continue
		}
		if err := r.refuses(ref, where); err != nil {
			return nil, err
		}
		keys, err := r.signed.keys(read)
		if err != nil {
			return nil, err
		}
		demand.wanted = append(demand.wanted, wanted{keys: keys, identity: r.signed.identity})
	}
	if len(demand.wanted) == 0 {
		return nil, nil
	}
	var err error
	if demand.image, err = reference.ParseNormalizedNamed(ref.Name); err != nil {
		return nil, &fault.Error{Code: fault.BadReference, Op: "read image reference", Subject: ref.Original, Err: err}
	}
	return demand, nil
}

// Unmet lists the requirements that no image can meet here and that do not say so
// themselves, as "reject" does: signatures that careen does not check, and keys that
// cannot be used. One line each, in a fixed order.
func (p *Policy) Unmet(read func(path string) ([]byte, error)) []string {
	var unmet []string
	look := func(ref oci.Reference, where string, requirements []requirement) {
		for _, r := range requirements {
			if r.Type == accept || r.Type == reject {
				continue
			}
			err := r.refuses(ref, where)
			if err == nil {
				_, err = r.signed.keys(read)
			}
			if err != nil {
				unmet = append(unmet, printable(strings.TrimPrefix(err.Error(), "cannot use image: ")))
			}
		}
	}
	look(oci.Reference{Transport: oci.TransportDocker}, "its default", p.fallback)
	for transport, rules := range p.transports {
		for scope, requirements := range rules {
			look(oci.Reference{Transport: transport}, fmt.Sprintf("its rule for %s %q", transport, scope), requirements)
		}
	}
	slices.Sort(unmet)
	return slices.Compact(unmet)
}

// refuses returns why no image meets the requirement, or this one cannot.
func (r *requirement) refuses(ref oci.Reference, where string) error {
	refused := &fault.Error{Code: fault.Policy, Op: "use image", Subject: ref.Original}
	pinned := "Name the image by its digest, and accept that name in the file with " + accept
	switch {
	case r.Type == reject:
		refused.Reason = File + " rejects it by " + where
		refused.Remedy = "Use another image, or change the rule"
	case r.signed == nil:
		refused.Reason = fmt.Sprintf("%s wants a signature (%s) by %s, and careen checks none of that kind", File, r.Type, where)
		refused.Remedy = "Sign it with a key of cosign and demand " + sigstoreSigned + "; or: " + pinned
	case r.signed.beyond != "":
		refused.Reason = fmt.Sprintf("%s wants a signature with %q by %s, and careen verifies neither certificates nor a transparency log",
			File, r.signed.beyond, where)
		refused.Remedy = "Demand a signature with keyPath alone; or: " + pinned
	case ref.Transport != oci.TransportDocker:
		refused.Reason = fmt.Sprintf("%s wants a signature (%s) by %s, and an image of %s has none", File, r.Type, where, ref.Transport)
		refused.Remedy = "Accept the file or its directory by a rule for " + ref.Transport + " with " + accept
	default:
		return nil
	}
	return refused
}

// scopes are the names under which a rule for the image may stand, the closest first.
func scopes(ref oci.Reference) []string {
	var names []string
	switch ref.Transport {
	case oci.TransportDocker:
		names = append(names, ref.Name)
		for name := ref.Repository(); name != ""; {
			names = append(names, name)
			name = name[:max(0, strings.LastIndexByte(name, '/'))]
		}
		host, _, _ := strings.Cut(ref.Domain(), ":")
		for _, parent, ok := strings.Cut(host, "."); ok; _, parent, ok = strings.Cut(parent, ".") {
			names = append(names, "*."+parent)
		}
	case oci.TransportOCI, oci.TransportOCIArchive:
		for path := ref.Path; len(path) > 1; path = filepath.Dir(path) {
			names = append(names, path)
		}
	}
	return append(names, "")
}
