package verify_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/image/verify"
)

var (
	manifest = []byte(`{"schemaVersion":2}`)
	sum      = digest.FromBytes(manifest).String()
)

// files are the policy and the keys of a node, by path.
type files map[string][]byte

func (f files) policy() verify.Policy {
	return verify.Policy{Path: verify.File, ReadFile: func(path string, _ int64) ([]byte, error) {
		if data, ok := f[path]; ok {
			return data, nil
		}
		return nil, fs.ErrNotExist
	}}
}

// verified checks the image against a policy of these requirements.
func verified(t testing.TB, image string, keys files, signatures []verify.Signature, requirements ...string) (*verify.Accepted, error) {
	t.Helper()
	node := files{verify.File: []byte(`{"default": [` + strings.Join(requirements, ",") + `]}`)}
	for path, data := range keys {
		node[path] = data
	}
	ref, err := oci.ParseReference(image)
	require.NoError(t, err)
	return node.policy().Check(context.Background(), verify.Image{Reference: ref, Manifest: manifest,
		Signatures: func(context.Context) ([]verify.Signature, error) { return signatures, nil }})
}

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
func sign(t testing.TB, key crypto.Signer, payload []byte) verify.Signature {
	t.Helper()
	message, opts := payload, crypto.SignerOpts(crypto.Hash(0))
	if _, ok := key.(ed25519.PrivateKey); !ok {
		hash := sha256.Sum256(payload)
		message, opts = hash[:], crypto.SHA256
	}
	value, err := key.Sign(rand.Reader, message, opts)
	require.NoError(t, err)
	return verify.Signature{Payload: payload, Value: base64.StdEncoding.EncodeToString(value)}
}

func payload(sum, identity string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
		`"type":"cosign container image signature"},"optional":null}`, identity, sum)
}

const byKey = `{"type": "sigstoreSigned", "keyPath": "/k"}`

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
	const image = "a.example/fw:1"
	for name, key := range keys {
		k := files{"/k": public(t, key)}
		accepted, err := verified(t, image, k, []verify.Signature{sign(t, key, payload(sum, image))}, byKey)
		require.NoError(t, err, name)
		der, _ := pem.Decode(k["/k"])
		assert.Equal(t, []verify.Signer{{Key: digest.FromBytes(der.Bytes).String(), Identity: image}}, accepted.Signers, name)
		_, err = verified(t, image, k, []verify.Signature{sign(t, newKey(t), payload(sum, image))}, byKey)
		assert.Equal(t, fault.Policy, fault.CodeOf(err), name)
	}
	// Some key services write the two numbers of an ECDSA signature without ASN.1.
	ec := keys["P-384"].(*ecdsa.PrivateKey)
	hash := sha256.Sum256(payload(sum, image))
	r, s, err := ecdsa.Sign(rand.Reader, ec, hash[:])
	require.NoError(t, err)
	plain := base64.StdEncoding.EncodeToString(append(r.FillBytes(make([]byte, 48)), s.FillBytes(make([]byte, 48))...))
	k := files{"/k": public(t, ec)}
	_, err = verified(t, image, k, []verify.Signature{{Payload: payload(sum, image), Value: plain}}, byKey)
	assert.NoError(t, err)
	_, err = verified(t, image, k, []verify.Signature{{Payload: payload(sum, "a.example/fw:2"), Value: plain}}, byKey)
	assert.Error(t, err)
	old := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)})
	_, err = verified(t, image, files{"/k": old}, []verify.Signature{sign(t, rsaKey, payload(sum, image))}, byKey)
	assert.NoError(t, err)
}

func TestUnusableKeys(t *testing.T) {
	private, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	require.NoError(t, err)
	for words, data := range map[string][]byte{
		"PEM decoding failed": []byte("ssh-ed25519 AAAA"),
		"PRIVATE KEY":         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"asn1":                pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
		"does not exist":      nil,
	} {
		keys := files{"/good": public(t, newKey(t)), "/bad": data}
		if data == nil {
			delete(keys, "/bad")
		}
		_, err := verified(t, "a.example/fw:1", keys, nil, `{"type": "sigstoreSigned", "keyPaths": ["/good", "/bad"]}`)
		assert.Equal(t, fault.BadConfig, fault.CodeOf(err), words)
		assert.ErrorContains(t, err, words)
		assert.ErrorContains(t, err, "cannot use public key /bad")
	}
}

// TestSignedIdentity compares the name in the signature with the name of the request.
func TestSignedIdentity(t *testing.T) {
	key := newKey(t)
	pinned := "a.example/team/fw@" + sum
	for _, c := range []struct {
		rule, image, signed string
		accepted            bool
	}{
		{``, "a.example/team/fw:1", "a.example/team/fw:1", true},
		{``, "a.example/team/fw:1", "a.example/team/fw:2", false},
		{``, "a.example/team/fw:1", "a.example/team/fw", false},
		{``, "a.example/team/fw", "a.example/team/fw:latest", true},
		{``, pinned, "a.example/team/fw:2", true},
		{``, pinned, "a.example/team/other:2", false},
		{``, "busybox:1", "docker.io/library/busybox:1", true},
		{``, "a.example/team/fw:1", "not a name", false},
		{`{"type": "matchExact"}`, pinned, "a.example/team/fw:1", false},
		{`{"type": "matchExact"}`, pinned, pinned, true},
		{`{"type": "matchRepository"}`, pinned, "a.example/team/fw:7", true},
		{`{"type": "exactReference", "dockerReference": "v.example/fw:1"}`, "a.example/team/fw:7", "v.example/fw:1", true},
		{`{"type": "exactRepository", "dockerRepository": "v.example/fw"}`, "a.example/team/fw:7", "a.example/team/fw:7", false},
		{`{"type": "remapIdentity", "prefix": "a.example/team", "signedPrefix": "v.example"}`, "a.example/team/fw:1", "v.example/fw:1", true},
	} {
		requirement := byKey
		if c.rule != "" {
			requirement = `{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": ` + c.rule + `}`
		}
		_, err := verified(t, c.image, files{"/k": public(t, key)}, []verify.Signature{sign(t, key, payload(sum, c.signed))}, requirement)
		if c.accepted {
			assert.NoError(t, err, "%+v", c)
			continue
		}
		assert.Equal(t, fault.Policy, fault.CodeOf(err), "%+v", c)
		assert.ErrorContains(t, err, "identity", "%+v", c)
		assert.ErrorContains(t, err, c.signed, "%+v", c)
	}
}

// TestSeveralSignaturesAndRequirements: one accepted signature is enough for a
// requirement, and every requirement needs one.
func TestSeveralSignaturesAndRequirements(t *testing.T) {
	const image = "a.example/fw:1"
	vendor, reviewer, stranger := newKey(t), newKey(t), newKey(t)
	keys := files{"/vendor": public(t, vendor), "/reviewer": public(t, reviewer)}
	byVendor := sign(t, vendor, payload(sum, "v.example/fw:1"))
	byReviewer := sign(t, reviewer, payload(sum, image))
	byStranger := sign(t, stranger, payload(sum, image))
	both := []string{
		`{"type": "sigstoreSigned", "keyPath": "/vendor", "signedIdentity": {"type": "exactRepository", "dockerRepository": "v.example/fw"}}`,
		`{"type": "insecureAcceptAnything"}`, `{"type": "sigstoreSigned", "keyPath": "/reviewer"}`,
	}
	accepted, err := verified(t, image, keys, []verify.Signature{byStranger, byReviewer, byVendor}, both...)
	require.NoError(t, err)
	assert.Equal(t, []verify.Signature{byVendor, byReviewer}, accepted.Signatures)
	for words, signatures := range map[string][]verify.Signature{
		"has no signature": nil,
		"no signature of the manifest " + sum + " is accepted": {byStranger, byVendor},
		`identity "a.example/fw:1" is not accepted`:            {sign(t, vendor, payload(sum, image)), byReviewer},
		"base64":                               {byVendor, {Payload: byReviewer.Payload, Value: "!"}},
		"signature for digest sha256:2d711642": {byVendor, sign(t, reviewer, payload(digest.FromBytes([]byte("x")).String(), image))},
		"atomic container image signature":     {byVendor, sign(t, reviewer, bytes.Replace(payload(sum, image), []byte("cosign"), []byte("atomic"), 1))},
	} {
		_, err := verified(t, image, keys, signatures, both...)
		assert.Equal(t, fault.Policy, fault.CodeOf(err), words)
		assert.ErrorContains(t, err, "by its default")
		assert.NotEmpty(t, fault.RemedyOf(err))
		assert.Contains(t, strings.ToLower(err.Error()), strings.ToLower(words))
	}

	either := fmt.Sprintf(`{"type": "sigstoreSigned", "keyDatas": [%q, %q]}`, base64.StdEncoding.EncodeToString(keys["/vendor"]),
		base64.StdEncoding.EncodeToString(keys["/reviewer"]))
	accepted, err = verified(t, image, nil, []verify.Signature{byReviewer}, either)
	require.NoError(t, err)
	der, _ := pem.Decode(keys["/reviewer"])
	assert.Equal(t, digest.FromBytes(der.Bytes).String(), accepted.Signers[0].Key, "the key that signed, not the first")

	var many []verify.Signature
	for i := range 9 {
		many = append(many, sign(t, vendor, payload(sum, fmt.Sprintf("x.example/fw:%d", i))))
	}
	_, err = verified(t, image, keys, many, `{"type": "sigstoreSigned", "keyPath": "/vendor"}`)
	assert.ErrorContains(t, err, "and 6 more reasons", "foreign text does not make a message long")

	_, err = verified(t, image, keys, nil, both[0], `{"type": "reject"}`)
	assert.ErrorContains(t, err, "rejects it")
}

// TestGPGSignatures: signedBy, with a key ring of two keys.
func TestGPGSignatures(t *testing.T) {
	const image = "a.example/fw:1"
	newEntity := func(name string) *openpgp.Entity {
		entity, err := openpgp.NewEntity(name, "", name+"@a.example", nil)
		require.NoError(t, err)
		for _, identity := range entity.Identities {
			identity.SelfSignature.PreferredHash = []uint8{8} // SHA-256
		}
		return entity
	}
	spare, signer, stranger := newEntity("spare"), newEntity("signer"), newEntity("stranger")
	var ring bytes.Buffer
	for _, entity := range []*openpgp.Entity{spare, signer} {
		for _, identity := range entity.Identities {
			require.NoError(t, identity.SelfSignature.SignUserId(identity.UserId.Id, entity.PrimaryKey, entity.PrivateKey, nil))
		}
		require.NoError(t, entity.Serialize(&ring))
	}
	signed := func(by *openpgp.Entity, sum, identity string) verify.Signature {
		var message bytes.Buffer
		w, err := openpgp.Sign(&message, by, nil, nil)
		require.NoError(t, err)
		text := strings.NewReplacer("cosign container image", "atomic container", "null", "{}").Replace(string(payload(sum, identity)))
		_, err = w.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return verify.Signature{Value: base64.StdEncoding.EncodeToString(message.Bytes())}
	}
	const byGPG = `{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/ring"}`
	keys := files{"/ring": ring.Bytes()}
	good := signed(signer, sum, image)
	accepted, err := verified(t, image, keys, []verify.Signature{signed(stranger, sum, image), good}, byGPG)
	require.NoError(t, err)
	assert.Equal(t, []verify.Signature{good}, accepted.Signatures)
	fingerprint := strings.ToUpper(hex.EncodeToString(signer.PrimaryKey.Fingerprint[:]))
	assert.Equal(t, []verify.Signer{{Key: "gpg:" + fingerprint, Identity: image}}, accepted.Signers)
	for words, s := range map[string][]verify.Signature{
		"does not fetch them yet":           {sign(t, newKey(t), payload(sum, image))}, // a sigstore signature does not count
		"no signature of the manifest":      {signed(stranger, sum, image)},
		`identity "a.example/fw:2" is not`:  {signed(signer, sum, "a.example/fw:2")},
		"does not match":                    {signed(signer, digest.FromString("x").String(), image)},
		"is accepted: ":                     {{Value: base64.StdEncoding.EncodeToString([]byte("x"))}},
		"is accepted: illegal base64":       {{Value: "!"}},
		"is accepted: empty signature blob": {{}},
	} {
		_, err := verified(t, image, keys, s, byGPG)
		assert.Equal(t, fault.Policy, fault.CodeOf(err), words)
		assert.ErrorContains(t, err, words)
		assert.Regexp(t, "--sign-by|sigstoreSigned", fault.RemedyOf(err))
	}
	_, err = verified(t, image, files{"/ring": []byte("no key")}, nil, byGPG)
	assert.Equal(t, fault.BadConfig, fault.CodeOf(err))
	assert.Contains(t, fault.RemedyOf(err), "gpg --export")
}

// FuzzSignedPayload: a signed payload is accepted only if every JSON reader takes it for a
// signature of this manifest.
func FuzzSignedPayload(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	const image = "a.example/fw:1"
	f.Add(payload(sum, image))
	f.Add(bytes.Replace(payload(sum, image), []byte("null"), []byte(`{"timestamp":1}`), 1))
	f.Add([]byte(`{"critical":{},"critical":{},"optional":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := verified(t, image, files{"/k": public(t, key)}, []verify.Signature{sign(t, key, data)}, byKey)
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
		require.Equal(t, image, plain.Critical.Identity["docker-reference"])
		require.Equal(t, sum, plain.Critical.Image["docker-manifest-digest"])
	})
}

// FuzzPolicy: any file is a policy or refused, and a policy decides about any image.
func FuzzPolicy(f *testing.F) {
	f.Add(`{"default": [{"type": "sigstoreSigned", "keyData": "aw==", "signedIdentity": {"type": "matchExact"}}]}`)
	f.Add(`{"default": [{"type": "reject"}], "transports": {"docker": {"": [{"type": "signedBy"}]}}}`)
	ref, err := oci.ParseReference("a.example/fw:1")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		policy := files{verify.File: []byte(text)}.policy()
		_, _ = policy.Problems()
		_, err := policy.Check(context.Background(), verify.Image{Reference: ref, Manifest: manifest,
			Signatures: func(context.Context) ([]verify.Signature, error) { return nil, nil }})
		if err != nil {
			require.Contains(t, []fault.Code{fault.Policy, fault.BadConfig}, fault.CodeOf(err))
		}
	})
}
