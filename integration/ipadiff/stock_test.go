package ipadiff

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/steps"
	"github.com/careen-project/careen/steps/ipa"
)

// TestReservedNames says when steps/ipa/reserved.txt is out of date. Names with two
// underscores on both sides depend on the version of Python and are left out.
func TestReservedNames(t *testing.T) {
	o := newOracle(t)
	out, err := exec.Command(o.python, "reserved.py").Output()
	require.NoError(t, err)
	have, err := os.ReadFile("../../steps/ipa/reserved.txt")
	require.NoError(t, err)
	plain := func(data []byte) []string {
		var names []string
		for line := range bytes.Lines(data) {
			name := string(bytes.TrimSpace(line))
			if name != "" && name[0] != '#' && !strings.HasPrefix(name, "__") {
				names = append(names, name)
			}
		}
		return names
	}
	assert.Equal(t, plain(out), plain(have), "run: "+o.python+" integration/ipadiff/reserved.py > steps/ipa/reserved.txt")
	for _, name := range plain(out) {
		assert.True(t, ipa.Reserved(name), name)
	}
}

// TestStockManager pins down what the stock manager of this IPA calls itself, what
// it executes and the hooks a manager of careen's own has to offer. A new IPA that
// changes any of it fails here first.
func TestStockManager(t *testing.T) {
	o := newOracle(t)
	out, err := exec.Command(o.python, "stock.py").Output()
	require.NoError(t, err)
	var got struct {
		Name, Version string
		Support       map[string]int
		Probe         [][]string
		Hooks         map[string]string
		Options       map[string]any
		Level         map[string]int
	}
	require.NoError(t, json.Unmarshal(out, &got))
	assert.Equal(t, "ContainerHardwareManager", got.Name)
	assert.Equal(t, "2", got.Version)
	assert.Equal(t, map[string]int{
		"NONE": 0, "GENERIC": 1, "MAINLINE": 2, "SERVICE_PROVIDER": 3,
	}, got.Level)
	assert.Equal(t, map[string]int{"podman": 2, "docker": 2, "neither": 0}, got.Support)
	assert.Equal(t, [][]string{{"podman", "--version"}, {"docker", "--version"}}, got.Probe)
	assert.Equal(t, map[string]string{
		"evaluate_hardware_support": "(self)",
		"initialize":                "(self)",
		"get_version":               "(self)",
		"get_clean_steps":           "(self, node, ports)",
		"get_deploy_steps":          "(self, node, ports)",
		"get_service_steps":         "(self, node, ports)",
		"collect_system_logs":       "(self, io_dict, file_list)",
		"full_sync":                 "(self)",
	}, got.Hooks)
	assert.Equal(t, map[string]any{
		"allow_arbitrary_containers": false,
		"allowed_containers":         []any{},
		"container_steps_file":       steps.DefaultStepsFile,
		"runner":                     "podman",
		"pull_options":               []any{},
		"run_options":                []any{"--rm", "--network=host"},
	}, got.Options)
}
