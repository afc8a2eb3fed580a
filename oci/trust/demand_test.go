package trust_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/trust"
)

var (
	manifest = []byte(`{"schemaVersion":2}`)
	sum      = digest.FromBytes(manifest).String()
)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func public(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// sign makes a signature as cosign does with this kind of key.
func sign(t testing.TB, key crypto.Signer, payload []byte) trust.Signature {
	t.Helper()
	message, opts := payload, crypto.SignerOpts(crypto.Hash(0))
	if _, ok := key.(ed25519.PrivateKey); !ok {
		hash := sha256.Sum256(payload)
		message, opts = hash[:], crypto.SHA256
	}
	value, err := key.Sign(rand.Reader, message, opts)
	require.NoError(t, err)
	return trust.Signature{Payload: payload, Value: base64.StdEncoding.EncodeToString(value)}
}

func payload(sum, identity string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
		`"type":"cosign container image signature"},"optional":null}`, identity, sum)
}

// demand returns what a policy of these requirements wants of the image. Keys are read
// from files.
func demand(t testing.TB, image string, files map[string][]byte, requirements ...string) (*trust.Demand, error) {
	t.Helper()
	policy, err := trust.Parse([]byte(`{"default": [` + strings.Join(requirements, ",") + `]}`))
	require.NoError(t, err)
	ref, err := oci.ParseReference(image)
	require.NoError(t, err)
	return policy.Check(ref, func(path string) ([]byte, error) {
		if data, ok := files[path]; ok {
			return data, nil
		}
		return nil, errors.New("no such file")
	})
}

func TestKeysOfEveryKind(t *testing.T) {
	keys := map[string]crypto.Signer{"P-256": newKey(t)}
	for name, curve := range map[string]elliptic.Curve{"P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
		keys[name] = key
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	keys["Ed25519"] = ed
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	keys["RSA"] = rsaKey
	for name, key := range keys {
		d, err := demand(t, "a.example/fw:1", map[string][]byte{"/k": public(t, key)}, `{"type": "sigstoreSigned", "keyPath": "/k"}`)
		require.NoError(t, err, name)
		accepted, err := d.Accept(manifest, []trust.Signature{sign(t, key, payload(sum, "a.example/fw:1"))})
		require.NoError(t, err, name)
		der, _ := pem.Decode(public(t, key))
		assert.Equal(t, []trust.Signer{{Key: digest.FromBytes(der.Bytes).String(), Identity: "a.example/fw:1"}}, accepted.Signers, name)
		_, err = d.Accept(manifest, []trust.Signature{sign(t, newKey(t), payload(sum, "a.example/fw:1"))})
		assert.Equal(t, fault.Policy, fault.CodeOf(err), name)
	}
	ec := keys["P-384"].(*ecdsa.PrivateKey)
	hash := sha256.Sum256(payload(sum, "a.example/fw:1"))
	r, s, err := ecdsa.Sign(rand.Reader, ec, hash[:])
	require.NoError(t, err)
	plain := append(r.FillBytes(make([]byte, 48)), s.FillBytes(make([]byte, 48))...)
	d, err := demand(t, "a.example/fw:1", map[string][]byte{"/k": public(t, ec)}, `{"type": "sigstoreSigned", "keyPath": "/k"}`)
	require.NoError(t, err)
	_, err = d.Accept(manifest, []trust.Signature{{Payload: payload(sum, "a.example/fw:1"), Value: base64.StdEncoding.EncodeToString(plain)}})
	assert.NoError(t, err, "some services for keys write the two numbers one after the other")
	_, err = d.Accept(manifest, []trust.Signature{{Payload: payload(sum, "a.example/fw:2"), Value: base64.StdEncoding.EncodeToString(plain)}})
	assert.Error(t, err)
	old := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)})
	d, err = demand(t, "a.example/fw:1", map[string][]byte{"/k": old}, `{"type": "sigstoreSigned", "keyPath": "/k"}`)
	require.NoError(t, err)
	_, err = d.Accept(manifest, []trust.Signature{sign(t, rsaKey, payload(sum, "a.example/fw:1"))})
	assert.NoError(t, err)
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	private, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	require.NoError(t, err)
	for words, data := range map[string][]byte{
		"not in PEM format":                  []byte("ssh-ed25519 AAAA"),
		`"private key" and not a public key`: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"asn1":                               pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
		"no such file":                       nil,
	} {
		files := map[string][]byte{"/good": public(t, newKey(t)), "/bad": data}
		if data == nil {
			delete(files, "/bad")
		}
		_, err := demand(t, "a.example/fw:1", files, `{"type": "sigstoreSigned", "keyPaths": ["/good", "/bad"]}`)
		assert.Equal(t, fault.BadConfig, fault.CodeOf(err), words)
		assert.ErrorContains(t, err, words)
		assert.ErrorContains(t, err, "cannot use public key /bad")
	}
}

// TestSignedIdentity: what a signature says that it was made for, against what the
// image was asked by.
func TestSignedIdentity(t *testing.T) {
	key := newKey(t)
	pinned := "a.example/team/fw@" + sum
	for _, c := range []struct{ rule, image, signed, words string }{
		{``, "a.example/team/fw:1", "a.example/team/fw:1", ""},
		{``, "a.example/team/fw:1", "a.example/team/fw:2", "it is for a.example/team/fw:2, which by matchRepoDigestOrExact is not a.example/team/fw:1"},
		{``, "a.example/team/fw:1", "a.example/team/fw", "it is for a.example/team/fw,"},
		{``, "a.example/team/fw", "a.example/team/fw:latest", ""},
		{``, pinned, "a.example/team/fw:2", ""},
		{``, pinned, "a.example/team/fw", "it is for"},
		{``, pinned, "a.example/team/other:2", "it is for"},
		{``, "busybox:1", "docker.io/library/busybox:1", ""},
		{``, "busybox:1", "index.docker.io/library/busybox:1", ""},
		{``, "a.example/team/fw:1", "not a name", `it is for not a name`},
		{`{"type": "matchRepoDigestOrExact"}`, pinned, "a.example/team/fw:2", ""},
		{`{"type": "matchExact"}`, "a.example/team/fw:1", "a.example/team/fw:1", ""},
		{`{"type": "matchExact"}`, pinned, "a.example/team/fw:1", "it is for"},
		{`{"type": "matchExact"}`, pinned, pinned, ""},
		{`{"type": "matchRepository"}`, "a.example/team/fw:1", "a.example/team/fw", ""},
		{`{"type": "matchRepository"}`, pinned, "a.example/team/fw:7", ""},
		{`{"type": "matchRepository"}`, "a.example/team/fw:1", "b.example/team/fw:1", "it is for"},
		{`{"type": "exactReference", "dockerReference": "v.example/fw:1"}`, "a.example/team/fw:7", "v.example/fw:1", ""},
		{`{"type": "exactReference", "dockerReference": "v.example/fw:1"}`, "a.example/team/fw:1", "v.example/fw", "it is for"},
		{`{"type": "exactReference", "dockerReference": "v.example/fw:1"}`, "v.example/fw:2", "v.example/fw:2", "it is for"},
		{`{"type": "exactRepository", "dockerRepository": "v.example/fw"}`, "a.example/team/fw:7", "v.example/fw:1", ""},
		{`{"type": "exactRepository", "dockerRepository": "v.example/fw"}`, "a.example/team/fw:7", "a.example/team/fw:7", "it is for"},
		{`{"type": "remapIdentity", "prefix": "a.example/team", "signedPrefix": "v.example"}`, "a.example/team/fw:1", "v.example/fw:1", ""},
		{`{"type": "remapIdentity", "prefix": "a.example", "signedPrefix": "v.example:5000/x"}`, "a.example/team/fw:1", "v.example:5000/x/team/fw:1", ""},
		{`{"type": "remapIdentity", "prefix": "a.example/team/fw", "signedPrefix": "v.example/f"}`, "a.example/team/fw:1", "v.example/f:1", ""},
		{`{"type": "remapIdentity", "prefix": "a.example/team", "signedPrefix": "v.example"}`, pinned, "v.example/fw:9", ""},
		{`{"type": "remapIdentity", "prefix": "a.example/team", "signedPrefix": "v.example"}`, "a.example/team/fw:1", "a.example/team/fw:1", "it is for"},
		{`{"type": "remapIdentity", "prefix": "a.example/te", "signedPrefix": "v.example"}`, "a.example/team/fw:1", "v.example/am/fw:1", "it is for"},
		{`{"type": "remapIdentity", "prefix": "c.example", "signedPrefix": "v.example"}`, "a.example/team/fw:1", "a.example/team/fw:1", ""},
	} {
		rule := `{"type": "sigstoreSigned", "keyPath": "/k"}`
		if c.rule != "" {
			rule = `{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": ` + c.rule + `}`
		}
		d, err := demand(t, c.image, map[string][]byte{"/k": public(t, key)}, rule)
		require.NoError(t, err, "%+v", c)
		_, err = d.Accept(manifest, []trust.Signature{sign(t, key, payload(sum, c.signed))})
		if c.words == "" {
			assert.NoError(t, err, "%+v", c)
			continue
		}
		assert.Equal(t, fault.Policy, fault.CodeOf(err), "%+v", c)
		assert.ErrorContains(t, err, c.words, "%+v", c)
	}
}

func TestPayloads(t *testing.T) {
	key := newKey(t)
	good := string(payload(sum, "a.example/fw:1"))
	d, err := demand(t, "a.example/fw:1", map[string][]byte{"/k": public(t, key)}, `{"type": "sigstoreSigned", "keyPath": "/k"}`)
	require.NoError(t, err)
	for text, words := range map[string]string{
		good: "",
		strings.Replace(good, "null", `{"creator": "me", "timestamp": 1700000000, "more": {"a": [1]}}`, 1): "",
		strings.Replace(good, sum, digest.SHA512.FromBytes(manifest).String(), 1):                          "it is for the manifest sha512:",
		strings.Replace(good, sum, digest.FromBytes([]byte("x")).String(), 1):                              "it is for the manifest sha256:2d711642",
		strings.Replace(good, sum, "sha256:abc", 1):                                                        "invalid checksum digest length",
		strings.Replace(good, "cosign", "atomic", 1):                                                       `it has the type "atomic container image signature"`,
		strings.Replace(good, `"type"`, `"Type"`, 1):                                                       `unknown field "Type"`,
		strings.Replace(good, "null", `{"timestamp": 1.5}`, 1):                                             "is no whole number",
		strings.Replace(good, "null", `{"timestamp": 1e300}`, 1):                                           "is no whole number",
		strings.Replace(good, "null", `{"creator": 1}`, 1):                                                 "cannot unmarshal number",
		strings.Replace(good, "null", `[]`, 1):                                                             "an object is wanted",
		strings.Replace(good, `,"optional":null`, ``, 1):                                                   `"optional" is missing`,
		strings.Replace(good, `{"critical"`, `{"critical":{},"critical"`, 1):                               `"critical" is there twice`,
		strings.Replace(good, `"image":{`, `"image":{"docker-manifest-digest":"sha256:x",`, 1):             `is there twice`,
		good + good: "something follows",
		good[:50]:   "unexpected EOF",
		"":          "EOF",
		"null":      "an object is wanted",
	} {
		_, err := d.Accept(manifest, []trust.Signature{sign(t, key, []byte(text))})
		if words == "" {
			assert.NoError(t, err, text)
			continue
		}
		assert.Equal(t, fault.Policy, fault.CodeOf(err), text)
		assert.ErrorContains(t, err, words, text)
	}
}

// TestSeveralSignaturesAndRequirements: one signature that counts is enough for a
// requirement, and every requirement needs one.
func TestSeveralSignaturesAndRequirements(t *testing.T) {
	vendor, reviewer, stranger := newKey(t), newKey(t), newKey(t)
	files := map[string][]byte{"/vendor": public(t, vendor), "/reviewer": public(t, reviewer)}
	byVendor := sign(t, vendor, payload(sum, "v.example/fw:1"))
	byReviewer := sign(t, reviewer, payload(sum, "a.example/fw:1"))
	byStranger := sign(t, stranger, payload(sum, "a.example/fw:1"))
	both := []string{
		`{"type": "sigstoreSigned", "keyPath": "/vendor", "signedIdentity": {"type": "exactRepository", "dockerRepository": "v.example/fw"}}`,
		`{"type": "insecureAcceptAnything"}`, `{"type": "sigstoreSigned", "keyPath": "/reviewer"}`,
	}
	d, err := demand(t, "a.example/fw:1", files, both...)
	require.NoError(t, err)
	accepted, err := d.Accept(manifest, []trust.Signature{byStranger, byReviewer, byVendor})
	require.NoError(t, err)
	assert.Equal(t, []trust.Signature{byVendor, byReviewer}, accepted.Signatures)
	for words, signatures := range map[string][]trust.Signature{
		"has no signature": nil,
		"of the signatures of the manifest " + sum + " none counts: it was made with another key": {byStranger, byVendor},
		"it is for a.example/fw:1, which by exactRepository":                                      {sign(t, vendor, payload(sum, "a.example/fw:1")), byReviewer},
		"it is not base64": {byVendor, {Payload: byReviewer.Payload, Value: "!"}},
	} {
		_, err := d.Accept(manifest, signatures)
		assert.Equal(t, fault.Policy, fault.CodeOf(err), words)
		assert.ErrorContains(t, err, words)
		assert.ErrorContains(t, err, "by its default")
		assert.NotEmpty(t, fault.RemedyOf(err))
	}

	either := fmt.Sprintf(`{"type": "sigstoreSigned", "keyDatas": [%q, %q]}`, base64.StdEncoding.EncodeToString(files["/vendor"]),
		base64.StdEncoding.EncodeToString(files["/reviewer"]))
	d, err = demand(t, "a.example/fw:1", nil, either)
	require.NoError(t, err)
	_, err = d.Accept(manifest, []trust.Signature{byReviewer})
	assert.NoError(t, err)
	_, err = d.Accept([]byte("another manifest"), []trust.Signature{byReviewer})
	assert.ErrorContains(t, err, "it is for the manifest "+sum)

	var many []trust.Signature
	for i := range 9 {
		many = append(many, sign(t, vendor, payload(sum, fmt.Sprintf("x.example/fw:%d", i))))
	}
	_, err = d.Accept(manifest, many)
	assert.ErrorContains(t, err, "and 6 more reasons", "what is foreign does not make a message long")

	_, err = demand(t, "a.example/fw:1", files, both[0], `{"type": "reject"}`)
	assert.ErrorContains(t, err, "rejects it")
}

// FuzzSignedPayload: of what a key has signed, only that is accepted which any reader of JSON
// takes for a signature of this manifest.
func FuzzSignedPayload(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	d, err := demand(f, "a.example/fw:1", map[string][]byte{"/k": public(f, key)}, `{"type": "sigstoreSigned", "keyPath": "/k"}`)
	require.NoError(f, err)
	f.Add(payload(sum, "a.example/fw:1"))
	f.Add(bytes.Replace(payload(sum, "a.example/fw:1"), []byte("null"), []byte(`{"timestamp":1}`), 1))
	f.Add([]byte(`{"critical":{},"critical":{},"optional":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := d.Accept(manifest, []trust.Signature{sign(t, key, data)})
		if err != nil {
			require.Equal(t, fault.Policy, fault.CodeOf(err), "%v", err)
			return
		}
		var plain struct {
			Critical struct {
				Image    map[string]string
				Identity map[string]string
			}
		}
		require.NoError(t, json.Unmarshal(data, &plain))
		require.Equal(t, "a.example/fw:1", plain.Critical.Identity["docker-reference"])
		require.Equal(t, sum, plain.Critical.Image["docker-manifest-digest"])
	})
}

// FuzzPolicy: any file is a policy or refused, and a policy answers for any image.
func FuzzPolicy(f *testing.F) {
	f.Add(`{"default": [{"type": "sigstoreSigned", "keyData": "aw==", "signedIdentity": {"type": "matchExact"}}]}`)
	f.Add(`{"default": [{"type": "reject"}], "transports": {"docker": {"": [{"type": "signedBy"}]}}}`)
	ref, err := oci.ParseReference("a.example/fw:1")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		policy, err := trust.Parse([]byte(text))
		if err != nil {
			require.Equal(t, fault.BadConfig, fault.CodeOf(err))
			return
		}
		d, err := policy.Check(ref, func(string) ([]byte, error) { return nil, errors.New("none") })
		if d != nil {
			_, err = d.Accept(manifest, nil)
			require.Error(t, err, "no signature is none")
		}
		if err != nil {
			require.Contains(t, []fault.Code{fault.Policy, fault.BadConfig}, fault.CodeOf(err))
		}
	})
}
