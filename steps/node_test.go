package steps_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

func TestNodeSettings(t *testing.T) {
	cfg, warnings, err := steps.Load(steps.LoadOptions{IPA: []string{}, File: write(t, "careen.toml", "")})
	require.NoError(t, err)
	assert.Empty(t, warnings)
	assert.Equal(t, steps.NodeSettings{NetworkWait: time.Minute}, cfg.Node)

	file := write(t, "careen.toml", "[network]\nwait = \"0\"\n[clock]\nrepair = true\n[tls]\nca_files = [\"/etc/a.pem\", \"/etc/cas\"]\nca_file = 1\n")
	cfg, warnings, err = steps.Load(steps.LoadOptions{IPA: []string{}, File: file})
	require.NoError(t, err)
	assert.Equal(t, steps.NodeSettings{ClockRepair: true, CAFiles: []string{"/etc/a.pem", "/etc/cas"}, CAFrom: file + ":5"}, cfg.Node)
	assert.Equal(t, steps.Source{Key: "tls.ca_files", Value: `["/etc/a.pem", "/etc/cas"]`, From: file + ":5"}, source(t, cfg, "tls.ca_files"))
	assert.Equal(t, steps.Source{Key: "network.wait", Value: "0s", From: file + ":1"}, source(t, cfg, "network.wait"))
	assert.Equal(t, steps.Source{Key: "clock.repair", Value: "true", From: file + ":3"}, source(t, cfg, "clock.repair"))
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0].String(), "tls.ca_file")
	assert.Empty(t, cfg.Unclaimed())

	for _, text := range []string{
		"[network]\nwait = \"-1s\"", "[network]\nwait = 60", "[clock]\nrepair = \"yes\"", "[tls]\nca_files = \"/a\"", "[tls]\nca_files = [\"a.pem\"]",
	} {
		_, _, err := steps.Load(steps.LoadOptions{IPA: []string{}, File: write(t, "careen.toml", text)})
		assert.Equal(t, fault.BadConfig, fault.CodeOf(err), text)
	}
}

// TestIPACAFile: what IPA trusts itself, and reads again from virtual media.
func TestIPACAFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ipa.conf")
	put := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	put("[container]\nrunner = docker\n[default]\ncafile = /wrong\n")
	cfg, _, err := steps.Load(steps.LoadOptions{IPA: []string{dir}, File: write(t, "careen.toml", "")})
	require.NoError(t, err)
	got, _ := cfg.IPACAFile()
	assert.Empty(t, got)

	put("[container]\nrunner = docker\n[DEFAULT]\ncafile = /etc/ironic-python-agent.d/ca.pem\n[other]\ncafile = /wrong\n")
	cfg, warnings, err := cfg.Reload()
	require.NoError(t, err)
	assert.Empty(t, warnings)
	got, from := cfg.IPACAFile()
	assert.Equal(t, "/etc/ironic-python-agent.d/ca.pem", got)
	assert.Equal(t, file+":4", from)
	assert.Equal(t, "docker", cfg.Runner)
	assert.Equal(t, got, source(t, cfg, "DEFAULT.cafile").Value)

	put("[DEFAULT]\ncafile = $here/ca.pem\n")
	cfg, warnings, err = cfg.Reload()
	require.NoError(t, err)
	got, _ = cfg.IPACAFile()
	assert.Empty(t, got)
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0].String(), "cafile is ignored")
}
