package ipadiff

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// builder is where ironic-python-agent-builder has its elements, below the environment.
const builder = "share/ironic-python-agent-builder/dib/ironic-python-agent-podman"

// written are the files that ironic-python-agent-podman makes in a ramdisk.
var written = []string{
	"etc/ironic-python-agent.d/ironic_python_agent.conf", "etc/ironic-python-agent.d/mysteps.yaml", "etc/containers/containers.conf",
}

// element runs the scripts of an element for a ramdisk's root and returns what it
// wrote of written.
func element(t *testing.T, dir string, env []string) map[string]string {
	t.Helper()
	tmp := t.TempDir()
	root, bin := filepath.Join(tmp, "mnt"), filepath.Join(tmp, "bin")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "usr/lib/systemd"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc/ironic-python-agent.d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "usr/lib/systemd/systemd"), nil, 0o755))
	require.NoError(t, os.Mkdir(bin, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(bin, "sudo"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755))
	// As diskimage-builder: what is in environment.d is sourced, then each script runs.
	cmd := exec.CommandContext(t.Context(), "bash", "-ec", `
		for file in "$1"/environment.d/*; do [ ! -e "$file" ] || . "$file"; done
		for script in "$1"/pre-finalise.d/[0-9]*; do bash "$script"; done`, "bash", dir)
	cmd.Env = append([]string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "TMP_BUILD_DIR=" + tmp}, env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	files := map[string]string{}
	for _, name := range written {
		if data, err := os.ReadFile(filepath.Join(root, name)); err == nil {
			files[name] = string(data)
		}
	}
	return files
}

// TestElement holds the files that careen's element writes against those of the real
// ironic-python-agent-podman, from the same variables.
func TestElement(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("installing files as root needs root")
	}
	o := newOracle(t)
	stock := filepath.Join(filepath.Dir(filepath.Dir(o.python)), builder)
	ours, err := filepath.Abs("../../rootfs/dib/ironic-python-agent-careen")
	require.NoError(t, err)
	dir := t.TempDir()
	binary, steps := filepath.Join(dir, "careen"), filepath.Join(dir, "steps.yaml")
	require.NoError(t, os.WriteFile(binary, []byte("\x7fELF and so on"), 0o755))
	require.NoError(t, os.WriteFile(steps, []byte("steps: []\n"), 0o600))

	seen := map[string]bool{}
	for _, env := range [][]string{
		{},
		{"DIB_ALLOW_ARBITRARY_CONTAINERS=true"},
		{"DIB_ALLOWED_CONTAINERS=registry.example/a:1,docker://registry.example/b"},
		{"DIB_CONTAINER_STEPS_FILE=/etc/other.yaml", "DIB_STEPS_FILE_PATH=" + steps},
		{"DIB_RUNNER=docker"},
		{"DIB_PULL_OPTIONS=--tls-verify=false", "DIB_RUN_OPTIONS=--rm,--network=host,--env=A=b"},
		{"DIB_PULL_OPTIONS=--tls-verify=false --quiet", "DIB_RUN_OPTIONS=  --rm\t--network=host  -v /dev:/dev "},
		{"DIB_PULL_OPTIONS=", "DIB_RUN_OPTIONS=", "DIB_ALLOWED_CONTAINERS=", "DIB_STEPS_FILE_PATH="},
	} {
		t.Run(strings.Join(env, " "), func(t *testing.T) {
			for _, pair := range env {
				name, _, _ := strings.Cut(pair, "=")
				seen[name] = true
			}
			require.Equal(t, element(t, stock, env), element(t, ours, append(env, "DIB_CAREEN_BINARY="+binary)))
		})
	}
	// The one that names a file is shown by rootfs/dib: the real element takes it for a
	// path of the machine that builds.
	seen["DIB_IPA_PODMAN_CONF_FILE"] = true
	script, err := os.ReadFile(filepath.Join(stock, "environment.d", "10-setup.bash"))
	require.NoError(t, err)
	for _, word := range strings.FieldsFunc(string(script), func(r rune) bool { return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", r) }) {
		if strings.HasPrefix(word, "DIB_") {
			require.True(t, seen[word], "the real element has a variable %s", word)
		}
	}
}
