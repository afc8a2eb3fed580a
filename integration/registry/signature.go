package registry

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// Signature is one signature of an image: what is signed, and the signature in base64.
type Signature struct {
	Payload []byte
	Value   string
}

// Key makes a key to sign with, and its public half in PEM.
func Key(t testing.TB) (crypto.Signer, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Sign signs that the manifest with this digest is the image of that name, as cosign
// does with a key for ECDSA.
func Sign(t testing.TB, key crypto.Signer, manifest digest.Digest, name string) Signature {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
		`"type":"cosign container image signature"},"optional":null}`, name, manifest)
	sum := sha256.Sum256(payload)
	value, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	require.NoError(t, err)
	return Signature{Payload: payload, Value: base64.StdEncoding.EncodeToString(value)}
}

// SignatureTag is the tag under which the signatures of a manifest lie.
func SignatureTag(manifest digest.Digest) string {
	return manifest.Algorithm().String() + "-" + manifest.Encoded() + ".sig"
}

// Attach stores signatures beside the manifest in the repository, as cosign does. change,
// if not nil, changes the manifest that lists them.
func (r *Registry) Attach(t testing.TB, repository string, manifest digest.Digest, change func(*ocispec.Manifest), signatures ...Signature) {
	t.Helper()
	config := []byte("{}")
	r.pushBlob(t, repository, config)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: descriptor(ocispec.MediaTypeImageConfig, config),
	}
	for _, s := range signatures {
		r.pushBlob(t, repository, s.Payload)
		layer := descriptor("application/vnd.dev.cosign.simplesigning.v1+json", s.Payload)
		layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": s.Value}
		m.Layers = append(m.Layers, layer)
	}
	if change != nil {
		change(&m)
	}
	body, err := json.Marshal(m)
	require.NoError(t, err)
	r.PushManifest(t, repository, SignatureTag(manifest), Manifest{MediaType: m.MediaType, Body: body})
}
