package verify_test

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/image/verify"
)

const pinned = "@sha256:4f0c1f2f3f4f5f6f7f8f9f0f1f2f3f4f5f6f7f8f9f0f1f2f3f4f5f6f7f8f9f0f"

// TestRules: which rule an image falls under, and what is refused by name.
func TestRules(t *testing.T) {
	policy := files{verify.File: []byte(`{
		"default": [{"type": "reject"}],
		"transports": {
			"docker": {
				"registry.example": [{"type": "insecureAcceptAnything"}],
				"registry.example/secret": [{"type": "reject"}],
				"registry.example/secret/one:1": [{"type": "insecureAcceptAnything"}],
				"registry.example/secret/one` + pinned + `": [{"type": "insecureAcceptAnything"}],
				"signed.example": [{"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/key"}],
				"base.example": [{"type": "insecureAcceptAnything"}, {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchRepository"}}],
				"fulcio.example": [{"type": "sigstoreSigned", "fulcio": {"caPath": "/ca", "oidcIssuer": "https://a.example", "subjectEmail": "a@a.example"}, "rekorPublicKeyPath": "/key"}],
				"rekor.example": [{"type": "sigstoreSigned", "keyPath": "/key", "rekorPublicKeyData": "a2V5"}],
				"pki.example": [{"type": "sigstoreSigned", "pki": {"caRootsPath": "/ca", "subjectEmail": "a@a.example"}}],
				"local.example:5000": [{"type": "insecureAcceptAnything"}],
				"*.wild.example": [{"type": "insecureAcceptAnything"}],
				"docker.io/library": [{"type": "insecureAcceptAnything"}]
			},
			"oci": {"/images": [{"type": "insecureAcceptAnything"}], "/images/bad": [{"type": "reject"}],
				"/images/signed": [{"type": "sigstoreSigned", "keyPath": "/key"}]},
			"docker-archive": {"": [{"type": "insecureAcceptAnything"}]}
		}
	}`)}.policy()
	for image, words := range map[string]string{
		"registry.example/fw:1":                "",
		"docker://registry.example/a/b/fw:1":   "",
		"registry.example/secret/two:1":        `"registry.example/secret"`,
		"registry.example/secret/one:1":        "",
		"registry.example/secret/one:2":        "rejects",
		"registry.example/secret/one" + pinned: "",
		"registry.example/secretary:1":         "",
		"registry.example:5000/fw:1":           "its default",
		"other.example/fw:1":                   "its default",
		"signed.example/fw:1":                  "requires a signature (signedBy with keyType X509Certificates)",
		"base.example/fw:1":                    "requires a signature (signedBaseLayer)",
		"fulcio.example/fw:1":                  "careen verifies neither certificates nor a transparency log",
		"rekor.example/fw:1":                   `requires a signature with "rekorPublicKeyData"`,
		"pki.example/fw:1":                     `requires a signature with "pki"`,
		"local.example:5000/fw:1":              "",
		"local.example/fw:1":                   "rejects",
		"a.b.wild.example:5000/fw:1":           "",
		"wild.example/fw:1":                    "rejects",
		"busybox":                              "",
		"someone/busybox":                      "rejects",
		"oci:/images/fw:1":                     "",
		"oci:/images":                          "",
		"oci:/images/bad/fw":                   "rejects",
		"oci:/images/signed/fw":                "an image of oci has none",
		"oci:/imagesx":                         "its default",
		"oci-archive:/images/fw.tar":           "its default",
		"docker-archive:/tmp/fw.tar":           "",
	} {
		ref, err := oci.ParseReference(image)
		require.NoError(t, err, image)
		err = policy.CheckName(ref)
		if words == "" {
			assert.NoError(t, err, image)
			continue
		}
		assert.Equal(t, fault.Policy, fault.CodeOf(err), image)
		assert.ErrorContains(t, err, "cannot use image "+image, image)
		assert.ErrorContains(t, err, words, image)
		assert.NotEmpty(t, fault.RemedyOf(err), image)
	}
}

// TestProblems: what an operator should know before a step needs an image.
func TestProblems(t *testing.T) {
	policy := files{"/good": public(t, newKey(t)), verify.File: []byte(`{
		"default": [{"type": "sigstoreSigned", "keyPath": "/good"}],
		"transports": {
			"docker": {
				"a.example": [{"type": "signedBy", "keyType": "signedByGPGKeys", "keyPath": "/good"}],
				"b.example": [{"type": "reject"}, {"type": "sigstoreSigned", "keyPaths": ["/good", "/none"]}],
				"c.example": [{"type": "sigstoreSigned", "keyPath": "/none"}],
				"d.example": [{"type": "sigstoreSigned", "keyPath": "k.pub"}]
			},
			"oci": {"": [{"type": "sigstoreSigned", "keyPath": "/good"}], "/images": [{"type": "insecureAcceptAnything"}]}
		}
	}`)}.policy()
	problems, err := policy.Problems()
	require.NoError(t, err)
	assert.Equal(t, []string{
		`/etc/containers/policy.json requires a signature (signedBy with keyType signedByGPGKeys) by its rule for docker "a.example", and careen does not support this kind`,
		`/etc/containers/policy.json requires a signature (sigstoreSigned) by its rule for oci "", and an image of oci has none`,
		"cannot use public key /none: file does not exist",
		"cannot use public key k.pub: its path is not absolute",
	}, problems)

	_, err = files{}.policy().Problems()
	assert.ErrorIs(t, err, fs.ErrNotExist)
	ref, err := oci.ParseReference("a.example/fw:1")
	require.NoError(t, err)
	assert.NoError(t, files{}.policy().CheckName(ref), "without a policy every image is allowed")
}

// TestMalformedPolicies: the library refuses them; a policy that cannot be read allows no
// image.
func TestMalformedPolicies(t *testing.T) {
	ref, err := oci.ParseReference("a.example/fw:1")
	require.NoError(t, err)
	for _, text := range []string{
		"", "{}", "{",
		`{"default": []}`,
		`{"default": [{"type": "trustMe"}]}`,
		`{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"b.example": []}}}`,
		`{"default": [{"type": "insecureAcceptAnything"}], "transport": {}}`,
		`{"default": [{"type": "insecureAcceptAnything"}]} {}`,
		`{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}`,
		`{"default": [{"type": "reject", "Type": "insecureAcceptAnything"}]}`,
		`{"default": [{"type": "sigstoreSigned", "keyPath": "/k", "keyData": "aw=="}]}`,
		`{"default": [{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "any"}}]}`,
		`{"default": [{"type": "signedBy"}]}`,
	} {
		err := files{verify.File: []byte(text)}.policy().CheckName(ref)
		assert.Equal(t, fault.BadConfig, fault.CodeOf(err), text)
		assert.ErrorContains(t, err, "cannot read "+verify.File, text)
		assert.NotEmpty(t, fault.RemedyOf(err), text)
	}
}
