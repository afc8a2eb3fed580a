package trust_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/trust"
)

const digest = "@sha256:4f0c1f2f3f4f5f6f7f8f9f0f1f2f3f4f5f6f7f8f9f0f1f2f3f4f5f6f7f8f9f0f"

func TestCheck(t *testing.T) {
	policy, err := trust.Parse([]byte(`{
		"default": [{"type": "reject"}],
		"transports": {
			"docker": {
				"registry.example": [{"type": "insecureAcceptAnything"}],
				"registry.example/secret": [{"type": "reject"}],
				"registry.example/secret/one:1": [{"type": "insecureAcceptAnything"}],
				"registry.example/secret/one` + digest + `": [{"type": "insecureAcceptAnything"}],
				"signed.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}],
				"both.example": [{"type": "insecureAcceptAnything"}, {"type": "sigstoreSigned", "keyPath": "/key"}],
				"local.example:5000": [{"type": "insecureAcceptAnything"}],
				"*.wild.example": [{"type": "insecureAcceptAnything"}],
				"docker.io/library": [{"type": "insecureAcceptAnything"}]
			},
			"oci": {"/images": [{"type": "insecureAcceptAnything"}], "/images/bad": [{"type": "reject"}]},
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
		"registry.example/secret/one" + digest: "",
		"registry.example/secretary:1":         "",
		"registry.example:5000/fw:1":           "its default",
		"other.example/fw:1":                   "its default",
		"signed.example/fw:1":                  "wants a signature (signedBy)",
		"both.example/fw:1":                    "wants a signature (sigstoreSigned)",
		"local.example:5000/fw:1":              "",
		"local.example/fw:1":                   "rejects",
		"a.b.wild.example:5000/fw:1":           "",
		"wild.example/fw:1":                    "rejects",
		"busybox":                              "",
		"someone/busybox":                      "rejects",
		"oci:/images/fw:1":                     "",
		"oci:/images":                          "",
		"oci:/images/bad/fw":                   "rejects",
		"oci:/imagesx":                         "its default",
		"oci-archive:/images/fw.tar":           "its default",
		"docker-archive:/tmp/fw.tar":           "",
	} {
		ref, err := oci.ParseReference(image)
		require.NoError(t, err, image)
		err = policy.Check(ref)
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

func TestParseRefuses(t *testing.T) {
	for text, words := range map[string]string{
		"":                                   "EOF",
		"{}":                                 `"default" has no requirements`,
		`{"default": []}`:                    `"default" has no requirements`,
		`{"default": "none"}`:                "cannot unmarshal",
		`{"default": [{"type": "trustMe"}]}`: `unknown type "trustMe"`,
		`{"default": [{"type": "reject"}], "transports": {"docker": {"a.example": []}}}`:             `scope "a.example" has no requirements`,
		`{"default": [{"type": "reject"}], "transports": {"docker": {"a.example": [{"type": ""}]}}}`: `unknown type ""`,
		`{"default": [{"type": "reject"}], "transport": {}}`:                                         `unknown field "transport"`,
		`{"default": [{"type": "reject"}]} {}`:                                                       "something follows",
	} {
		_, err := trust.Parse([]byte(text))
		assert.Equal(t, fault.BadConfig, fault.CodeOf(err), text)
		assert.ErrorContains(t, err, words, text)
	}
}
