package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"go.podman.io/image/v5/signature"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
)

// The types of a requirement that careen supports.
const (
	accept         = "insecureAcceptAnything"
	reject         = "reject"
	sigstoreSigned = "sigstoreSigned"
	signedBy       = "signedBy"
)

// gpgKeys is the keyType of signedBy that the library implements.
const gpgKeys = "GPGKeys"

// requirement is one requirement of a rule. The library has checked it: there is one
// source of keys.
type requirement struct {
	Type, KeyType  string
	KeyPath        string
	KeyPaths       []string
	KeyData        []byte
	KeyDatas       [][]byte
	SignedIdentity json.RawMessage

	Fulcio, PKI                             json.RawMessage
	RekorPublicKeyPath, RekorPublicKeyPaths json.RawMessage
	RekorPublicKeyData, RekorPublicKeyDatas json.RawMessage
}

// unsupported returns the member that requires certificates or a transparency log, or "".
func (r *requirement) unsupported() string {
	for _, member := range []struct {
		name  string
		value json.RawMessage
	}{
		{"fulcio", r.Fulcio},
		{"pki", r.PKI},
		{"rekorPublicKeyPath", r.RekorPublicKeyPath},
		{"rekorPublicKeyPaths", r.RekorPublicKeyPaths},
		{"rekorPublicKeyData", r.RekorPublicKeyData},
		{"rekorPublicKeyDatas", r.RekorPublicKeyDatas},
	} {
		if member.value != nil {
			return member.name
		}
	}
	return ""
}

// refuse returns an error if no image can meet the requirement, or this image cannot.
func (r *requirement) refuse(ref oci.Reference, where string) error {
	refused := &fault.Error{Code: fault.Policy, Op: "use image", Subject: ref.Original}
	supported := r.Type == sigstoreSigned || r.Type == signedBy && r.KeyType == gpgKeys
	pinned := "name the image by its digest, and accept that name in the file with " + accept
	switch beyond := r.unsupported(); {
	case r.Type == reject:
		refused.Reason = File + " rejects it by " + where
		refused.Remedy = "Use another image, or change the rule"
	case !supported:
		kind := r.Type
		if r.KeyType != "" {
			kind += " with keyType " + r.KeyType
		}
		refused.Reason = fmt.Sprintf("%s requires a signature (%s) by %s, and careen does not support this kind", File, kind, where)
		refused.Remedy = "Require " + sigstoreSigned + " or " + signedBy + " with keyType " + gpgKeys + "; or " + pinned
	case beyond != "":
		refused.Reason = fmt.Sprintf("%s requires a signature with %q by %s, and careen verifies neither certificates nor a transparency log",
			File, beyond, where)
		refused.Remedy = "Require a signature with keyPath alone; or " + pinned
	case ref.Transport != oci.TransportDocker:
		refused.Reason = fmt.Sprintf("%s requires a signature (%s) by %s, and an image of %s has none", File, r.Type, where, ref.Transport)
		refused.Remedy = "Accept the file or its directory by a rule for " + ref.Transport + " with " + accept
	default:
		return nil
	}
	return refused
}

// key is one key, or one GPG key ring.
type key struct {
	data []byte
	// fingerprint is empty for a GPG key ring.
	fingerprint string
}

// keys reads the keys. One unusable key is an error even if another key would do:
// otherwise the operator learns of it only when that key is needed.
func (r *requirement) keys(read func(path string, limit int64) ([]byte, error)) ([]key, error) {
	paths, datas := r.KeyPaths, r.KeyDatas
	if r.KeyPath != "" {
		paths = []string{r.KeyPath}
	}
	if r.KeyData != nil {
		datas = [][]byte{r.KeyData}
	}
	var all []key
	add := func(subject string, data []byte, err error) error {
		k := key{data: data}
		if err == nil {
			k.fingerprint, err = r.checkKey(data)
		}
		if err != nil {
			remedy := "Put a public key there in PEM format, such as cosign.pub of cosign generate-key-pair"
			if r.Type == signedBy {
				remedy = "Put public keys there as gpg --export writes them"
			}
			return &fault.Error{Code: fault.BadConfig, Op: "use public key", Subject: subject, Err: err, Remedy: remedy}
		}
		all = append(all, k)
		return nil
	}
	for _, path := range paths {
		var data []byte
		err := errors.New("its path is not absolute")
		if filepath.IsAbs(path) {
			data, err = read(path, maxKey)
		}
		if err := add(path, data, err); err != nil {
			return nil, err
		}
	}
	for _, data := range datas {
		if err := add("in "+File, data, nil); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// checkKey returns the fingerprint of a key for sigstore.
func (r *requirement) checkKey(data []byte) (string, error) {
	if r.Type == signedBy {
		mechanism, identities, err := signature.NewEphemeralGPGSigningMechanism(data)
		if err != nil {
			return "", err
		}
		defer mechanism.Close()
		if len(identities) == 0 {
			return "", errors.New("there is no GPG public key in it")
		}
		return "", nil
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(data)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
