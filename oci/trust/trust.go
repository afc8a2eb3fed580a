package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
)

// File is where the policy lies, and MaxFile how large it may be, in bytes.
const (
	File    = "/etc/containers/policy.json"
	MaxFile = 1 << 20
)

// The requirements that can be met or not without looking at the image.
const (
	accept = "insecureAcceptAnything"
	reject = "reject"
)

// Policy is a policy.json.
type Policy struct {
	fallback   []requirement
	transports map[string]map[string][]requirement
}

// requirement is one of those that an image has to meet, by its type.
type requirement struct{ Type string }

// UnmarshalJSON takes the type alone: the rest says how to check what careen does not.
func (r *requirement) UnmarshalJSON(data []byte) error {
	var it struct {
		Type string `json:"type"`
	}
	err := json.Unmarshal(data, &it)
	r.Type = it.Type
	return err
}

// Parse reads a policy.json. The error has the code [fault.BadConfig]: as with podman,
// with a policy that nobody understands nothing is let in.
func Parse(data []byte) (*Policy, error) {
	var file struct {
		Default    []requirement                       `json:"default"`
		Transports map[string]map[string][]requirement `json:"transports"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // a rule under a misspelt name must not be lost
	err := dec.Decode(&file)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the policy")
		}
	}
	p := &Policy{fallback: file.Default, transports: file.Transports}
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
		case accept, reject, "signedBy", "signedBaseLayer", "sigstoreSigned":
		default:
			return fmt.Errorf("%s has a requirement of unknown type %q", where, r.Type)
		}
	}
	return nil
}

// Check returns nil if the image may be used, else an error with the code
// [fault.Policy]. A path in the reference is to be absolute and without symbolic links.
func (p *Policy) Check(ref oci.Reference) error {
	requirements, where := p.fallback, "its default"
	for _, scope := range scopes(ref) {
		if found, ok := p.transports[ref.Transport][scope]; ok {
			requirements, where = found, fmt.Sprintf("its rule for %s %q", ref.Transport, scope)
			break
		}
	}
	for _, r := range requirements {
		refused := &fault.Error{Code: fault.Policy, Op: "use image", Subject: ref.Original}
		switch r.Type {
		case accept:
			continue
		case reject:
			refused.Reason = File + " rejects it by " + where
			refused.Remedy = "Use another image, or change the rule"
		default:
			refused.Reason = fmt.Sprintf("%s wants a signature (%s) by %s, and careen checks none", File, r.Type, where)
			refused.Remedy = "Name the image by its digest, and accept that name in the file with " + accept
		}
		return refused
	}
	return nil
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
