package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/cli/preview"
	"github.com/careen-project/careen/agent/fault"
)

// TestBootcIsRefused has the command by which Ironic's agent installs a bootc image.
func TestBootcIsRefused(t *testing.T) {
	a := &app{console: cli.NewConsole(), socket: filepath.Join(t.TempDir(), "none")}
	err := a.podman(t.Context(), "podman", []string{
		"--log-level=debug", "run", "--rm", "--privileged", "--pid=host", "--pull=never",
		"-v", "/var/lib/containers:/var/lib/containers", "-v", "/dev:/dev", "-v", "/tmp:/tmp",
		"docker://registry.example/os:1", "bootc", "install", "to-disk", "--wipe", "--skip-fetch-check",
		"--root-size=10240M", "--disable-selinux", "/dev/sda",
	})
	assert.Equal(t, fault.Unsupported, fault.CodeOf(err))
	assert.Contains(t, fault.Line(err), "reads the image from podman's own storage")
	assert.Contains(t, fault.Line(err), "Use a ramdisk with podman for bootc images")
}

func TestThePodmanLinkSaysWhatItIs(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {"--log-level=debug", "--help"}} {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		require.NoError(t, err)
		a := &app{console: cli.NewConsole(), socket: filepath.Join(t.TempDir(), "none")}
		a.console.Out = out
		require.NoError(t, a.podman(t.Context(), "docker", args), "%q", args)
		require.NoError(t, out.Close())
		text, err := os.ReadFile(out.Name())
		require.NoError(t, err)
		assert.Contains(t, string(text), "docker run [options] IMAGE")
		assert.Contains(t, string(text), "careen")
	}
}

func TestWhoStartsContainersItself(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: others never start an agent")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer listener.Close()
	dead := filepath.Join(dir, "none")
	t.Setenv("CAREEN_SOCKET", dead)
	for _, c := range []struct {
		name string
		args []string
		want bool
	}{
		{"careen", []string{"agent"}, true},
		{"careen", []string{"agent", "--help"}, true},
		{"careen", []string{"run", "image", "--help"}, true},
		{"careen", []string{"--socket", socket, "run", "image"}, false},
		{"careen", []string{"--socket=" + socket, "pull", "image"}, false},
		{"careen", []string{"step", "run", "x"}, true},
		{"careen", []string{"step", "list"}, false},
		{"careen", []string{"ps"}, false},
		{"careen", []string{"--help"}, false},
		{"podman", []string{"--log-level", "debug", "run", "image"}, true},
		{"podman", []string{"--version"}, false},
		{"podman", []string{"--frob", "run"}, false},
	} {
		assert.Equal(t, c.want, needsNode(c.name, c.args), "%s %v", c.name, c.args)
	}
}

func TestSpecFlagsComeFirst(t *testing.T) {
	dir, err := os.Getwd()
	require.NoError(t, err)
	f, rest, err := cutSpecFlags([]string{"--cgroup", "v2", "--image-config=c.json", "--rm", "--cgroup-parent=/x", "image"})
	require.NoError(t, err)
	assert.Equal(t, preview.Inputs{ImageConfig: filepath.Join(dir, "c.json"), Cgroup: "v2"}, f)
	assert.Equal(t, []string{"--rm", "--cgroup-parent=/x", "image"}, rest)
	_, _, err = cutSpecFlags([]string{"--cgroup=v3", "image"})
	assert.ErrorContains(t, err, "v3")
	_, _, err = cutSpecFlags([]string{"--rootfs"})
	assert.ErrorContains(t, err, "--rootfs")
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "8g": 8 << 30, "512M": 512 << 20, "1024": 1024} {
		got, err := sizeFlag("--store-size", text)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, text := range []string{"x", "-1", "0", "1x"} {
		_, err := sizeFlag("--store-size", text)
		assert.ErrorContains(t, err, "--store-size="+text)
	}
}
