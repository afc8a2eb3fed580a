package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/fault"
)

// MaxKey is how large a file with a public key may be, in bytes.
const MaxKey = 64 << 10

// signed is a requirement "sigstoreSigned".
type signed struct {
	// One of these says where the public keys are; none when beyond says why not.
	paths []string
	data  [][]byte
	// beyond is the member that demands what careen cannot check.
	beyond   string
	identity identity
}

// UnmarshalJSON reads the requirement by podman's rules.
func (s *signed) UnmarshalJSON(data []byte) error {
	var kind, path string
	var one []byte
	var ignored any
	var sources []string
	s.identity.kind = matchRepoDigestOrExact
	err := object(data, func(name string) any {
		switch name {
		case "keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki":
			sources = append(sources, name)
		}
		switch name {
		case "type":
			return &kind
		case "keyPath":
			return &path
		case "keyPaths":
			return &s.paths
		case "keyData":
			return &one
		case "keyDatas":
			return &s.data
		case "signedIdentity":
			return &s.identity
		case "fulcio", "pki", "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas":
			s.beyond = name
			return &ignored
		default:
			return nil
		}
	})
	if err != nil {
		return err
	}
	if len(sources) != 1 {
		return errors.New("it needs one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki, and no two")
	}
	if path != "" {
		s.paths = []string{path}
	}
	if one != nil {
		s.data = [][]byte{one}
	}
	if s.beyond == "" && len(s.paths)+len(s.data) == 0 {
		return fmt.Errorf("its %s names no key", sources[0])
	}
	for _, path := range s.paths {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("the path %q of a key is not absolute", path)
		}
	}
	return nil
}

// key is a public key that images may be signed with.
type key struct {
	crypto.PublicKey
	fingerprint string
}

// keys reads the public keys. One that cannot be used is an error even where another
// would do: whoever falls back on it one day has to know today.
func (s *signed) keys(read func(path string) ([]byte, error)) ([]key, error) {
	var all []key
	for _, path := range s.paths {
		data, err := read(path)
		if err != nil {
			return nil, badKey(path, err)
		}
		k, err := parseKey(data)
		if err != nil {
			return nil, badKey(path, err)
		}
		all = append(all, k)
	}
	for _, data := range s.data {
		k, err := parseKey(data)
		if err != nil {
			return nil, badKey("in "+File, err)
		}
		all = append(all, k)
	}
	return all, nil
}

func badKey(subject string, err error) error {
	return &fault.Error{Code: fault.BadConfig, Op: "use public key", Subject: subject, Err: err,
		Remedy: "Put a public key there in PEM format, such as cosign.pub of cosign generate-key-pair"}
}

// parseKey takes the kinds of key that cosign and podman take.
func parseKey(data []byte) (key, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return key{}, errors.New("it is not in PEM format")
	}
	var public crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		err = fmt.Errorf("it holds a %q and not a public key", strings.ToLower(block.Type))
	}
	if err != nil {
		return key{}, err
	}
	switch public.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey:
	default:
		return key{}, fmt.Errorf("it is a %T: a key for ECDSA, Ed25519 or RSA is wanted", public)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	sum := sha256.Sum256(der)
	return key{PublicKey: public, fingerprint: "sha256:" + hex.EncodeToString(sum[:])}, err
}

// verifies reports whether the key made the signature of data. sigstore signs the
// SHA-256 of it, whatever the size of the key; RSA with the padding of PKCS #1 v1.5.
func (k key) verifies(data, signature []byte) bool {
	sum := sha256.Sum256(data)
	switch public := k.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return verifiesECDSA(public, sum[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(public, data, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature) == nil
	default:
		return false
	}
}

// verifiesECDSA takes a signature in ASN.1, as sigstore writes it, and as the two numbers
// one after the other, as some services that keep keys do.
func verifiesECDSA(public *ecdsa.PublicKey, sum, signature []byte) bool {
	if ecdsa.VerifyASN1(public, sum, signature) {
		return true
	}
	size := (public.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(public, sum, r, s)
}

// signer returns the key that made the signature.
func signer(keys []key, data, signature []byte) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.verifies(data, signature) })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}
