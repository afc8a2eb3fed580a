package integration

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestRequirements: what an image says that it needs of the node is looked for before
// there is a container, and whoever runs it has the last word.
func TestRequirements(t *testing.T) {
	agent, _ := node(t)
	reg := registry.Start(t)
	requiring := func(tag, label string) string {
		image := registry.NewImage(t, harness.Busybox(t).Layers, registry.WithConfig(func(c *ocispec.Image) {
			c.Config.Labels = map[string]string{"io.careen.requires": label}
		}))
		ref, _ := reg.Push(t, "tool:"+tag, image)
		return ref
	}
	run := func(image string, options ...string) api.Run {
		return ended(t, agent, submit(t, agent, shell(image, "echo ran", append(options, "--tls-verify=false")...)))
	}
	met := requiring("met", "kernel>=3.10, memory=1m, device=/dev/null")
	unmet := requiring("unmet", "device=/dev/null,device=/dev/careen-none,file=/careen/none,kernel>=99.0")
	unknown := requiring("unknown", "warp-drive")

	assert.Equal(t, api.Succeeded, run(met).State)

	failed := run(unmet, "--privileged")
	require.Equal(t, api.Failed, failed.State)
	assert.Equal(t, "requirement", failed.Outcome.Code)
	assert.Equal(t, 125, *failed.Outcome.ExitCode)
	assert.Regexp(t, `^cannot run \S+/tool:unmet: the node lacks what the image requires: device=/dev/careen-none \(.*\), `+
		`file=/careen/none \(no such file or directory\), kernel>=99.0 \(Linux .*\)$`, failed.Outcome.Message)
	assert.Contains(t, failed.Outcome.Remedy, "newer kernel")
	assert.Equal(t, []any{"device=/dev/careen-none", "file=/careen/none", "kernel>=99.0"}, failed.Outcome.Attrs["unmet"])
	assert.NotContains(t, failed.Outcome.Phases, "running")

	refused := run(unknown)
	assert.Equal(t, "requirement", refused.Outcome.Code)
	assert.Contains(t, refused.Outcome.Message, `unknown requirement "warp-drive"`)

	assert.Equal(t, "requirement", run(met, "--label", "io.careen.requires=kernel>=99.0").Outcome.Code, "added")
	assert.Equal(t, api.Succeeded, run(unmet, "--label", "io.careen.requires=").State, "switched off")
}
