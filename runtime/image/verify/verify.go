package verify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/careen-project/careen/agent/fault"
)

// Signature is one signature as it was found, unverified.
type Signature struct {
	// Payload is what was signed, for a sigstore signature. It is empty for a GPG
	// signature, which contains what it signs.
	Payload []byte
	// Value is the signature in base64.
	Value string
}

func (s Signature) kind() string {
	if len(s.Payload) == 0 {
		return signedBy
	}
	return sigstoreSigned
}

// Signer is the key that signed an image.
type Signer struct {
	// Key is the fingerprint of the public key: "sha256:" and the hexadecimal SHA-256 of
	// its DER encoding (PKIX), or "gpg:" and the fingerprint of the GPG key.
	Key string
	// Identity is the image name in the signature.
	Identity string
}

// Accepted are the signatures that met the requirements, one for each, and their signers.
type Accepted struct {
	Signatures []Signature
	Signers    []Signer
}

// rule is what the signatures of an image have to meet.
type rule struct {
	name     reference.Named
	original string
	where    string
	required []required
}

// required is one requirement with its keys.
type required struct {
	requirement
	keys []key
}

// verify checks all requirements. One signature is enough for each.
func (r *rule) verify(ctx context.Context, manifest []byte, signatures []Signature) (*Accepted, error) {
	dir, err := tempDir()
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o600)
	}
	if err != nil {
		return nil, &fault.Error{Code: fault.Node, Op: "verify the signatures of", Subject: r.original, Err: err,
			Remedy: "Make /run or /tmp writable"}
	}
	accepted := &Accepted{}
	for _, req := range r.required {
		var reasons []string
		met := false
		for _, s := range signatures {
			if s.kind() != req.Type {
				continue
			}
			signer, err := req.accepts(ctx, r.name, dir, s)
			if err == nil {
				accepted.Signatures, accepted.Signers = append(accepted.Signatures, s), append(accepted.Signers, signer)
				met = true
				break
			}
			reasons = append(reasons, printable(err.Error()))
		}
		if !met {
			return nil, r.refuse(req.Type, manifest, reasons)
		}
	}
	return accepted, nil
}

// tempDir makes a directory on a file system that a ramdisk keeps in memory. /tmp may be
// missing in a minimal ramdisk, /run may not be writable outside of one.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("/run", "careen-verify-")
	if err != nil {
		dir, err = os.MkdirTemp("", "careen-verify-")
	}
	return dir, err
}

// noGPGFetch is why a rule with signedBy refuses images: the pull fetches sigstore
// attachments only, and GPG signatures are on another server (lookaside in registries.d).
const noGPGFetch = "careen verifies GPG signatures but does not fetch them yet"

func (r *rule) refuse(kind string, manifest []byte, reasons []string) error {
	sum := digest.FromBytes(manifest)
	why := "the manifest " + sum.String() + " has no signature"
	if len(reasons) > 0 {
		slices.Sort(reasons)
		reasons = slices.Compact(reasons)
		if more := len(reasons) - 3; more > 0 {
			reasons = append(reasons[:3], fmt.Sprintf("and %d more reasons", more))
		}
		why = fmt.Sprintf("no signature of the manifest %s is accepted: %s", sum, strings.Join(reasons, "; "))
	}
	remedy := "Sign this manifest with a key that the rule names (cosign sign --recursive --key KEY NAME@DIGEST), or change the rule"
	switch {
	case kind == signedBy && len(reasons) == 0:
		why = noGPGFetch
		remedy = "Require " + sigstoreSigned + ", or name the image by its digest and accept that name in the file with " + accept
	case kind == signedBy:
		remedy = "Sign this manifest with a GPG key that the rule names (skopeo copy --sign-by KEY), or change the rule"
	}
	return &fault.Error{Code: fault.Policy, Op: "use image", Subject: r.original, Remedy: remedy,
		Reason: fmt.Sprintf("%s requires a signature (%s) by %s, and %s", File, kind, r.where, why)}
}

// accepts verifies one signature with each key. Trying one key at a time tells which of
// them signed.
func (r *required) accepts(ctx context.Context, name reference.Named, dir string, s Signature) (Signer, error) {
	blob, err := s.blob()
	file := filepath.Join(dir, "signature-1")
	if err == nil {
		err = os.WriteFile(file, blob, 0o600)
	}
	if err != nil {
		return Signer{}, err
	}
	var failures []string
	for _, k := range r.keys {
		err := r.verifyWith(ctx, name, dir, k)
		if err == nil {
			return signer(s, blob, k)
		}
		failures = append(failures, strings.TrimPrefix(err.Error(), fmt.Sprintf("parsing signature %q: ", file)))
	}
	return Signer{}, errors.New(strings.Join(failures, ", "))
}

// verifyWith has the library verify the image in dir by a policy of this requirement with
// one key.
func (r *required) verifyWith(ctx context.Context, name reference.Named, dir string, k key) error {
	requirement := map[string]any{"type": r.Type, "keyData": k.data}
	if r.KeyType != "" {
		requirement["keyType"] = r.KeyType
	}
	if r.SignedIdentity != nil {
		requirement["signedIdentity"] = r.SignedIdentity
	}
	data, err := json.Marshal(map[string]any{"default": []any{requirement}})
	if err != nil {
		return err
	}
	policy, err := signature.NewPolicyFromBytes(data)
	if err != nil {
		return err
	}
	verifier, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer func() { _ = verifier.Destroy() }()
	ref, err := directory.NewReference(dir)
	if err != nil {
		return err
	}
	src, err := ref.NewImageSource(ctx, nil)
	if err != nil {
		return err
	}
	defer src.Close()
	// The digest in the name needs no check here: the pull fetched the manifest by it.
	_, err = verifier.IsRunningImageAllowed(ctx, image.UnparsedInstanceWithReference(image.UnparsedInstance(src, nil), renamed{ref, name}))
	return err
}

// renamed is an image in a directory under the name that it has in a registry.
type renamed struct {
	types.ImageReference
	name reference.Named
}

// DockerReference returns the name in the registry.
func (r renamed) DockerReference() reference.Named { return r.name }

// blob returns the signature in the form of a signature file in a "dir:" image. The
// library takes sigstore signatures in no other form from outside.
func (s Signature) blob() ([]byte, error) {
	if s.kind() == signedBy {
		return base64.StdEncoding.DecodeString(s.Value)
	}
	data, err := json.Marshal(map[string]any{
		"mimeType":    "application/vnd.dev.cosign.simplesigning.v1+json",
		"payload":     s.Payload,
		"annotations": map[string]string{"dev.cosignproject.cosign/signature": s.Value},
	})
	return append([]byte("\x00sigstore-json\n"), data...), err
}

// signer names the key of a verified signature.
func signer(s Signature, blob []byte, k key) (Signer, error) {
	payload, fingerprint := s.Payload, k.fingerprint
	if s.kind() == signedBy {
		mechanism, _, err := signature.NewEphemeralGPGSigningMechanism(k.data)
		if err != nil {
			return Signer{}, err
		}
		defer mechanism.Close()
		contents, identity, err := mechanism.Verify(blob)
		if err != nil {
			return Signer{}, err
		}
		payload, fingerprint = contents, "gpg:"+identity
	}
	var signed struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			}
		}
	}
	err := json.Unmarshal(payload, &signed)
	return Signer{Key: fingerprint, Identity: signed.Critical.Identity.Reference}, err
}

// printable makes text from outside fit for a message: printable ASCII, one line, at most
// 200 bytes.
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
