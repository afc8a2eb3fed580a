package trust_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/trust"
)

const pinned = "@sha256:4f0c1f2f3f4f5f6f7f8f9f0f1f2f3f4f5f6f7f8f9f0f1f2f3f4f5f6f7f8f9f0f"

func TestCheck(t *testing.T) {
	policy, err := trust.Parse([]byte(`{
		"default": [{"type": "reject"}],
		"transports": {
			"docker": {
				"registry.example": [{"type": "insecureAcceptAnything"}],
				"registry.example/secret": [{"type": "reject"}],
				"registry.example/secret/one:1": [{"type": "insecureAcceptAnything"}],
				"registry.example/secret/one` + pinned + `": [{"type": "insecureAcceptAnything"}],
				"signed.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}],
				"base.example": [{"type": "insecureAcceptAnything"}, {"type": "signedBaseLayer"}],
				"fulcio.example": [{"type": "sigstoreSigned", "fulcio": {"caPath": "/ca"}, "rekorPublicKeyPath": "/key"}],
				"rekor.example": [{"type": "sigstoreSigned", "keyPath": "/key", "rekorPublicKeyData": "a2V5"}],
				"pki.example": [{"type": "sigstoreSigned", "pki": {"caRootsPath": "/ca"}}],
				"local.example:5000": [{"type": "insecureAcceptAnything"}],
				"*.wild.example": [{"type": "insecureAcceptAnything"}],
				"docker.io/library": [{"type": "insecureAcceptAnything"}]
			},
			"oci": {"/images": [{"type": "insecureAcceptAnything"}], "/images/bad": [{"type": "reject"}],
				"/images/signed": [{"type": "sigstoreSigned", "keyPath": "/key"}]},
			"docker-archive": {"": [{"type": "insecureAcceptAnything"}]}
		}
	}`))
	require.NoError(t, err)
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
		"signed.example/fw:1":                  "wants a signature (signedBy)",
		"base.example/fw:1":                    "wants a signature (signedBaseLayer)",
		"fulcio.example/fw:1":                  "careen verifies neither certificates nor a transparency log",
		"rekor.example/fw:1":                   `wants a signature with "rekorPublicKeyData"`,
		"pki.example/fw:1":                     `wants a signature with "pki"`,
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
		demand, err := policy.Check(ref, nil)
		assert.Nil(t, demand, image)
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

// TestUnmet: what an operator should know before a step needs an image.
func TestUnmet(t *testing.T) {
	key := public(t, newKey(t))
	policy, err := trust.Parse([]byte(`{
		"default": [{"type": "sigstoreSigned", "keyPath": "/good"}],
		"transports": {
			"docker": {
				"a.example": [{"type": "signedBy"}],
				"b.example": [{"type": "reject"}, {"type": "sigstoreSigned", "keyPaths": ["/good", "/none"]}],
				"c.example": [{"type": "sigstoreSigned", "keyPath": "/none"}]
			},
			"oci": {"": [{"type": "sigstoreSigned", "keyPath": "/good"}], "/images": [{"type": "insecureAcceptAnything"}]}
		}
	}`))
	require.NoError(t, err)
	assert.Equal(t, []string{
		`/etc/containers/policy.json wants a signature (signedBy) by its rule for docker "a.example", and careen checks none of that kind`,
		`/etc/containers/policy.json wants a signature (sigstoreSigned) by its rule for oci "", and an image of oci has none`,
		"cannot use public key /none: no such file",
	}, policy.Unmet(func(path string) ([]byte, error) {
		if path == "/good" {
			return key, nil
		}
		return nil, errors.New("no such file")
	}))
}

func TestParseRefuses(t *testing.T) {
	for text, words := range map[string]string{
		"":                                   "EOF",
		"{}":                                 `"default" has no requirements`,
		`{"default": []}`:                    `"default" has no requirements`,
		`{"default": "none"}`:                "cannot unmarshal",
		`{"default": [{"type": "trustMe"}]}`: `unknown type "trustMe"`,
		`{"default": [{"type": "reject"}], "transports": {"docker": {"a.example": []}}}`:                                      `scope "a.example" has no requirements`,
		`{"default": [{"type": "reject"}], "transports": {"docker": {"a.example": [{"type": ""}]}}}`:                          `unknown type ""`,
		`{"default": [{"type": "reject"}], "transport": {}}`:                                                                  `unknown field "transport"`,
		`{"default": [{"type": "reject"}]} {}`:                                                                                "something follows",
		`{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}`:                                  `"default" is there twice`,
		`{"default": [{"type": "reject"}], "transports": {"docker": {"a": [{"type": "reject"}], "a": [{"type": "reject"}]}}}`: `"a" is there twice`,
		`{"default": [{"type": "reject", "Type": "insecureAcceptAnything"}]}`:                                                 `unknown field "Type"`,
		`{"default": [{"type": "sigstoreSigned", "keyPath": "/k", "Type": "insecureAcceptAnything"}]}`:                        "unknown field",
		`{"default": [{"type": "sigstoreSigned"}]}`:                                                                           "it needs one of keyPath",
		`{"default": [{"type": "sigstoreSigned", "keyPath": "/k", "keyData": "aw=="}]}`:                                       "and no two",
		`{"default": [{"type": "sigstoreSigned", "keyPath": ""}]}`:                                                            "its keyPath names no key",
		`{"default": [{"type": "sigstoreSigned", "keyPaths": []}]}`:                                                           "its keyPaths names no key",
		`{"default": [{"type": "sigstoreSigned", "keyPath": "k.pub"}]}`:                                                       `the path "k.pub" of a key is not absolute`,
		`{"default": [{"type": "sigstoreSigned", "keyPath": "/k", "keyType": "GPGKeys"}]}`:                                    `unknown field "keyType"`,
		`{"default": [{"type": "sigstoreSigned", "keyData": "not base64"}]}`:                                                  "illegal base64",
		identity(`null`):                                                                                `unknown type ""`,
		identity(`{"type": "any"}`):                                                                     `unknown type "any"`,
		identity(`{"type": "matchExact", "prefix": "a"}`):                                               `unknown field "prefix"`,
		identity(`{"type": "exactReference"}`):                                                          `"dockerReference" is missing`,
		identity(`{"type": "exactReference", "dockerReference": "a.example/fw"}`):                       "neither a tag nor a digest",
		identity(`{"type": "exactRepository", "dockerRepository": "A/B"}`):                              "must be lowercase",
		identity(`{"type": "remapIdentity", "prefix": "a.example/"  , "signedPrefix": "b.example"}`):    `prefix "a.example/" is neither`,
		identity(`{"type": "remapIdentity", "prefix": "a.example", "signedPrefix": "b.example:tag/x"}`): `prefix "b.example:tag/x" is neither`,
	} {
		_, err := trust.Parse([]byte(text))
		assert.Equal(t, fault.BadConfig, fault.CodeOf(err), text)
		assert.ErrorContains(t, err, words, text)
	}
}

// identity is a policy with a signedIdentity.
func identity(text string) string {
	return `{"default": [{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": ` + text + `}]}`
}
