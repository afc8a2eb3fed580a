package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

func TestOptionsThatArriveAsOneArgument(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{[]string{"--rm --network=host", "image"}, []string{"--rm", "--network=host", "image"}},
		{[]string{"--rm --network=host -v /dev:/dev", "image"}, []string{"--rm", "--network=host", "-v", "/dev:/dev", "image"}},
		{[]string{"--network=host --volume /dev:/dev", "image"}, []string{"--network=host", "--volume", "/dev:/dev", "image"}},
		{[]string{"-v /dev:/dev", "image"}, []string{"-v", "/dev:/dev", "image"}},
		{[]string{"--rm --privileged", "-v /dev:/dev", "image"}, []string{"--rm", "--privileged", "-v", "/dev:/dev", "image"}},
		{[]string{"--rm --network=host", "image", "sh", "-c", "-x -y"}, []string{"--rm", "--network=host", "image", "sh", "-c", "-x -y"}},
		// What podman takes as it is.
		{[]string{"-e", "A=b c", "image"}, []string{"-e", "A=b c", "image"}},
		{[]string{"--env=A=-b -c", "image"}, []string{"--env=A=-b -c", "image"}},
		{[]string{"--label=a b", "image"}, []string{"--label=a b", "image"}},
		{[]string{"--rm", "image", "sh", "-c", "-x -y"}, []string{"--rm", "image", "sh", "-c", "-x -y"}},
		// What is wrong in any case is told of by its name.
		{[]string{"--rm --memory=plenty", "image"}, []string{"--rm", "--memory=plenty", "image"}},
		{[]string{"--memory=plenty", "image"}, []string{"--memory=plenty", "image"}},
	} {
		assert.Equal(t, c.want, splitGlued(c.in, validRun), "%q", c.in)
	}
	assert.Equal(t, []string{"--tls-verify=false", "--quiet", "image"}, splitGlued([]string{"--tls-verify=false --quiet", "image"}, validPull))
	assert.Equal(t, []string{"--tls-verify=false", "image"}, splitGlued([]string{"--tls-verify=false", "image"}, validPull))
}

// TestBootcIsRefused has the command by which Ironic's agent installs a bootc image.
func TestBootcIsRefused(t *testing.T) {
	a := &app{console: newConsole(), socket: filepath.Join(t.TempDir(), "none")}
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
		a := &app{console: newConsole(), socket: filepath.Join(t.TempDir(), "none")}
		a.console.out = out
		require.NoError(t, a.podman(t.Context(), "docker", args), "%q", args)
		require.NoError(t, out.Close())
		text, err := os.ReadFile(out.Name())
		require.NoError(t, err)
		assert.Contains(t, string(text), "docker run [options] IMAGE")
		assert.Contains(t, string(text), "careen")
	}
}

func TestOptionsBeforeTheVerb(t *testing.T) {
	rest, err := skipGlobals([]string{"--log-level=debug", "--cgroup-manager", "cgroupfs", "run", "--rm", "x"})
	require.NoError(t, err)
	assert.Equal(t, []string{"run", "--rm", "x"}, rest)

	_, err = skipGlobals([]string{"--root", "/x", "run"})
	assert.Equal(t, fault.Unsupported, fault.CodeOf(err))
	assert.ErrorContains(t, err, "--root")
	_, err = skipGlobals([]string{"--log-level"})
	assert.Equal(t, fault.BadOption, fault.CodeOf(err))
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

func TestTextOfOthersIsHarmless(t *testing.T) {
	assert.Equal(t, "a\\x1b[31mb", clean("a\x1b[31mb"))
	assert.Equal(t, "ü\tx\n", clean("ü\tx\n"))
	assert.NotContains(t, clean("gnp.\u202exe"), "\u202e")
	assert.Equal(t, `a\xffb`, clean("a\xffb"))
	assert.Equal(t, `a\x9bb\u202ec`, clean("a\u009bb\u202ec"))
}

func TestProgressFitsTheTerminal(t *testing.T) {
	for _, columns := range []int{20, 40, 79, 200} {
		for _, done := range []int64{0, 1, 500, 999, 1000} {
			line := bar(&api.PullProgress{
				Status: "downloading", Done: done * 1e6, Total: 1000 * 1e6, Rate: 12_345_678,
				Layers: []api.LayerProgress{{Status: "done"}, {Status: "downloading"}},
			}, columns)
			assert.LessOrEqual(t, utf8.RuneCountInString(line), columns)
			assert.True(t, strings.HasPrefix(line, "pulling"))
		}
	}
	assert.Equal(t, "pulling: resolving", bar(&api.PullProgress{Status: "resolving"}, 79))
}

func TestTablesFitEightyColumns(t *testing.T) {
	var out bytes.Buffer
	table(&out, 80, []string{"RUN", "IMAGE"}, [][]string{{"abc", strings.Repeat("x", 200)}, {"a\x1b[2J", "y"}})
	assert.NotContains(t, out.String(), "\x1b")
	for line := range strings.Lines(out.String()) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80)
	}
}

func TestSpecFlagsComeFirst(t *testing.T) {
	dir, err := os.Getwd()
	require.NoError(t, err)
	f, rest, err := cutSpecFlags([]string{"--cgroup", "v2", "--image-config=c.json", "--rm", "--cgroup-parent=/x", "image"})
	require.NoError(t, err)
	assert.Equal(t, specFlags{imageConfig: filepath.Join(dir, "c.json"), cgroup: "v2"}, f)
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

// TestJSONIsHarmlessOnATerminal: JSON keeps its meaning and sends no control character.
func TestJSONIsHarmlessOnATerminal(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	c := newConsole()
	c.out = out
	text := "a\u009b2Jb\u202ec\x7fd\x1be"
	require.NoError(t, c.json(map[string]any{"text": text, "spec": json.RawMessage(`{"x": "` + "\u009b\u202e" + `"}`)}))
	require.NoError(t, c.jsonLine(map[string]string{"text": text}))
	require.NoError(t, out.Close())
	data, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	assert.False(t, strings.ContainsFunc(string(data), hostile), "%q", data)
	var back struct{ Text string }
	require.NoError(t, json.NewDecoder(bytes.NewReader(data)).Decode(&back))
	assert.Equal(t, text, back.Text)
}
