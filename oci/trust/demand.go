package trust

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/careen-project/careen/agent/fault"
)

// Signature is one signature of an image, as it was found.
type Signature struct {
	// Payload is what was signed.
	Payload []byte
	// Value is the signature of it, in base64.
	Value string
}

// Signer says which key vouched for an image.
type Signer struct {
	// Key is the fingerprint of the public key: "sha256:" and the hexadecimal SHA-256
	// of its DER encoding (PKIX).
	Key string
	// Identity is the name that the signature was made for.
	Identity string
}

// Accepted are the signatures that let an image in, one for each requirement, and who
// made them.
type Accepted struct {
	Signatures []Signature
	Signers    []Signer
}

// Demand is what a rule wants an image to be signed with.
type Demand struct {
	image    reference.Named
	original string
	where    string
	wanted   []wanted
}

// wanted is one requirement with its keys.
type wanted struct {
	keys     []key
	identity identity
}

// Accept returns the signatures by which the image with this manifest may be used, else
// an error with the code [fault.Policy]. The manifest is the one that runs, as it was
// sent: for an image of several platforms, that of the platform and not the index.
func (d *Demand) Accept(manifest []byte, signatures []Signature) (*Accepted, error) {
	a := &Accepted{}
	for _, w := range d.wanted {
		var reasons []string
		for _, s := range signatures {
			by, err := w.accepts(d.image, manifest, s)
			if err == nil {
				a.Signatures, a.Signers = append(a.Signatures, s), append(a.Signers, by)
				reasons = nil
				break
			}
			reasons = append(reasons, err.Error())
		}
		if len(signatures) == 0 || reasons != nil {
			return nil, d.refuse(manifest, reasons)
		}
	}
	return a, nil
}

func (d *Demand) refuse(manifest []byte, reasons []string) error {
	sum := digest.FromBytes(manifest)
	why := "the manifest " + sum.String() + " has no signature"
	if len(reasons) > 0 {
		different := slices.Compact(slices.Sorted(slices.Values(reasons)))
		if more := len(different) - 3; more > 0 {
			different = append(different[:3], fmt.Sprintf("and %d more reasons", more))
		}
		why = fmt.Sprintf("of the signatures of the manifest %s none counts: %s", sum, strings.Join(different, "; "))
	}
	return &fault.Error{Code: fault.Policy, Op: "use image", Subject: d.original,
		Reason: fmt.Sprintf("%s wants a signature (%s) by %s, and %s", File, sigstoreSigned, d.where, why),
		Remedy: "Sign this manifest with a key that the rule names (cosign sign --recursive --key KEY NAME@DIGEST), or change the rule"}
}

// accepts holds one signature against the requirement.
func (w *wanted) accepts(image reference.Named, manifest []byte, s Signature) (Signer, error) {
	value, err := base64.StdEncoding.DecodeString(s.Value)
	if err != nil {
		return Signer{}, errors.New("it is not base64")
	}
	// Nothing of the payload is looked at before it is known who wrote it.
	by, ok := signer(w.keys, s.Payload, value)
	if !ok {
		return Signer{}, errors.New("it was made with another key, or what it signs was changed")
	}
	p, err := parsePayload(s.Payload)
	if err != nil {
		return Signer{}, fmt.Errorf("what it signs cannot be read: %s", printable(err.Error()))
	}
	if p.digest != digest.FromBytes(manifest) {
		return Signer{}, fmt.Errorf("it is for the manifest %s", p.digest)
	}
	if !w.identity.matches(image, p.identity) {
		return Signer{}, fmt.Errorf("it is for %s, which by %s is not %s", printable(p.identity), w.identity.kind, image)
	}
	return Signer{Key: by.fingerprint, Identity: p.identity}, nil
}

// printable makes foreign text fit for a message.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	return text
}
