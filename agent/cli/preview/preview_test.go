package preview_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/cli/preview"
	"github.com/careen-project/careen/agent/fault"
)

func TestPreview(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(config, []byte(`{"os": "linux", "architecture": "arm64", "config": {
		"Cmd": ["/bin/diag"], "Labels": {"io.careen.requires": "frobnicator"}}}`), 0o600))
	inputs := preview.Inputs{ImageConfig: config, Cgroup: "v2", Assumed: true}
	run, err := inputs.Parse([]string{"--read-only", "-v", "/nowhere/disk:/d", "registry.example/diag:1"})
	require.NoError(t, err)
	p, err := inputs.Preview(run)
	require.NoError(t, err)
	assert.Equal(t, []string{"/bin/diag"}, p.Plan.Spec.Process.Args)
	assert.True(t, p.Plan.Spec.Root.Readonly)
	assert.False(t, p.Base.Spec.Root.Readonly)
	text := p.Explain()
	assert.Contains(t, text, "/nowhere/disk", "it is assumed to exist")
	assert.Contains(t, text, "io.careen.requires is invalid")

	run, err = inputs.Parse([]string{"--arch=amd64", "registry.example/diag:1"})
	require.NoError(t, err)
	_, err = inputs.Preview(run)
	assert.Equal(t, fault.Platform, fault.CodeOf(err))

	require.NoError(t, os.WriteFile(config, []byte("{"), 0o600))
	_, err = inputs.Preview(run)
	assert.Equal(t, fault.BadOption, fault.CodeOf(err))
}
