package integration

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestSignedImages: an image runs if a key of policy.json signed it, and the audit record
// says which; another one is refused and leaves nothing.
func TestSignedImages(t *testing.T) {
	etc := harness.OwnEtcContainers(t)
	key, public := registry.Key(t)
	_, newPublic := registry.Key(t)
	etc("cosign.pub", string(public))
	reg := registry.Start(t)
	policy := func(keys string) {
		etc("policy.json", fmt.Sprintf(`{"default": [{"type": "sigstoreSigned", "keyPath": %q}]}`, keys))
	}
	policy("/etc/containers/cosign.pub")
	busybox := harness.Busybox(t)
	unsigned, _ := reg.Push(t, "unsigned:1", busybox)
	signed, sum := reg.Push(t, tag, busybox)
	reg.Attach(t, "busybox", sum, nil, registry.Sign(t, key, sum, signed))
	agent := harness.Start(t)
	run := func(options ...string) harness.Result {
		return agent.Careen(append([]string{"run", "--rm", "--tls-verify=false"}, append(options, "echo", "it runs")...)...)
	}
	got := run(unsigned)
	assert.Equal(t, 125, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "the manifest "+sum.String()+" has no signature")
	layout := filepath.Join(t.TempDir(), "layout")
	busybox.WriteLayout(t, layout, "1")
	got = run("oci:" + layout)
	assert.Equal(t, 125, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "an image of oci has none")
	images, err := agent.Client.Images(t.Context())
	require.NoError(t, err)
	require.Empty(t, images)

	for _, pull := range []string{"--pull=missing", "--pull=never"} {
		got = run(pull, signed)
		assert.Zero(t, got.Code, "%s", got)
		assert.Equal(t, "it runs\n", got.Stdout)
	}
	block, _ := pem.Decode(public)
	want := fmt.Sprintf(`"signed_by":[{"key":"sha256:%x","identity":%q}]`, sha256.Sum256(block.Bytes), signed)
	assert.Equal(t, 2, strings.Count(agent.Get("/v1/audit"), want), "%s", agent.Get("/v1/audit"))

	etc("new.pub", string(newPublic))
	policy("/etc/containers/new.pub")
	got = run(signed)
	assert.Equal(t, 125, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "cryptographic signature verification failed")
	policy("/etc/containers/none.pub")
	got = run(signed)
	assert.Equal(t, 125, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "cannot use public key /etc/containers/none.pub")
	agent.Stop() // and with it the shim that waits a while for the next run
}
