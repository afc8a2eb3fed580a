package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/oci"
)

// podmanCase is what this test needs of a file of oci/testdata/conformance/cases.
// Package oci compares whole specs with fakes for the node; here the built binary
// reads a real image configuration, real files and this node, so only what does
// not depend on the machine is compared.
type podmanCase struct {
	Name    string   `json:"name"`
	Flags   []string `json:"flags"`
	Command []string `json:"command"`
	Image   string   `json:"image"`
	Config  struct {
		Entrypoint, Cmd, Env []string
		WorkDir, User        string
		StopSignal           string `json:"stop_signal"`
		Labels               map[string]string
		Volumes              []string
		Files, Symlinks      map[string]string
		Dirs                 []string
	} `json:"image_config"`
	HostEnv    map[string]string `json:"host_env"`
	CgroupHost string            `json:"cgroup_host"`
	Expect     struct {
		Error    bool `json:"error"`
		ExitCode int  `json:"exit_code"`
		Stage    string
		Process  struct {
			Args            []string
			Cwd             string
			User            specs.User
			Capabilities    map[string][]string
			NoNewPrivileges bool
			Terminal        bool
		}
		Root  struct{ Readonly bool }
		Linux struct {
			Sysctl    map[string]string
			Resources struct {
				Memory map[string]any
				CPU    map[string]any
			}
		}
	} `json:"expect"`
}

// machineCases depend on what this machine has: devices, mounts, zone files,
// another user's files. Package oci runs them with the node that they were taken on.
func (c podmanCase) machineBound() bool {
	for _, flag := range c.Flags {
		for _, word := range []string{"device", "blkio", "/dev", "/sys", "/lib", "--tz", "cpuset", "@TMP@", "--init", "--mount", "hostuser", "systemd", "--pidfile", "--cidfile"} {
			if strings.Contains(flag, word) {
				return true
			}
		}
	}
	return false
}

func TestSpecAnswersAsPodman(t *testing.T) {
	binary := careenBinary(t)
	fixtures, err := filepath.Abs("../oci/testdata/conformance/fixtures")
	require.NoError(t, err)
	files, err := filepath.Glob("../oci/testdata/conformance/cases/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	different := map[string]bool{}
	for _, d := range oci.Differences() {
		different[d.Case] = true
	}
	compared, bound := 0, 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		var c podmanCase
		require.NoError(t, json.Unmarshal(data, &c), file)
		// What only a pull or a container's start can notice is not in a spec.
		late := c.Expect.Stage == "runtime" || strings.Contains(c.Name, "never") || c.Name == "neg-command-missing"
		if different[c.Name] || c.machineBound() || late {
			bound++
			continue
		}
		compared++
		t.Run(c.Name, func(t *testing.T) { c.compare(t, binary, fixtures) })
	}
	t.Logf("%d cases compared; %d depend on the machine, differ on purpose or are noticed later", compared, bound)
	require.Greater(t, compared, 150)
}

func (c podmanCase) compare(t *testing.T, binary, fixtures string) {
	dir := t.TempDir()
	words := []string{"spec", "--image-config", c.writeConfig(t, dir), "--rootfs", c.writeRoot(t, dir), "--cgroup", c.CgroupHost}
	if !c.namesNetwork() {
		// careen's default is the node's network, podman's is not.
		words = append(words, "--network=none")
	}
	for _, flag := range c.Flags {
		words = append(words, strings.ReplaceAll(flag, "@FIX@", fixtures))
	}
	words = append(append(words, c.Image), c.Command...)
	cmd := exec.Command(binary, words...)
	cmd.Dir = fixtures
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"}
	for key, value := range c.HostEnv {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if c.Expect.Error {
		require.Error(t, err, "podman refuses it")
		assert.Equal(t, c.Expect.ExitCode, cmd.ProcessState.ExitCode(), stderr.String())
		assert.Empty(t, out.String())
		assert.True(t, strings.HasPrefix(stderr.String(), "careen: cannot "), stderr.String())
		return
	}
	require.NoError(t, err, stderr.String())
	var spec specs.Spec
	require.NoError(t, json.Unmarshal(out.Bytes(), &spec))
	want := c.Expect.Process
	assert.Equal(t, want.Args, spec.Process.Args)
	assert.Equal(t, want.Cwd, spec.Process.Cwd)
	assert.Equal(t, want.User.UID, spec.Process.User.UID)
	assert.Equal(t, want.User.GID, spec.Process.User.GID)
	assert.ElementsMatch(t, want.User.AdditionalGids, spec.Process.User.AdditionalGids)
	assert.Equal(t, want.NoNewPrivileges, spec.Process.NoNewPrivileges)
	assert.Equal(t, want.Terminal, spec.Process.Terminal)
	assert.Equal(t, c.Expect.Root.Readonly, spec.Root.Readonly)
	bounding := append([]string(nil), spec.Process.Capabilities.Bounding...)
	sort.Strings(bounding)
	if !assert.ObjectsAreEqual([]string{"ALL"}, want.Capabilities["bounding"]) {
		assert.ElementsMatch(t, want.Capabilities["bounding"], bounding)
	}
}

func (c podmanCase) namesNetwork() bool {
	for _, flag := range c.Flags {
		// podman refuses --dns without a network of its own.
		if strings.HasPrefix(flag, "--net") || strings.HasPrefix(flag, "--dns") {
			return true
		}
	}
	return false
}

func (c podmanCase) writeConfig(t *testing.T, dir string) string {
	var image ocispec.Image
	image.Architecture, image.OS = "amd64", "linux"
	image.Config = ocispec.ImageConfig{
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env, WorkingDir: c.Config.WorkDir,
		User: c.Config.User, StopSignal: c.Config.StopSignal, Labels: c.Config.Labels, Volumes: map[string]struct{}{},
	}
	for _, volume := range c.Config.Volumes {
		image.Config.Volumes[volume] = struct{}{}
	}
	data, err := json.Marshal(image)
	require.NoError(t, err)
	path := filepath.Join(dir, "config.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

func (c podmanCase) writeRoot(t *testing.T, dir string) string {
	root := filepath.Join(dir, "root")
	for _, sub := range append([]string{"/bin", "/tmp"}, c.Config.Dirs...) {
		require.NoError(t, os.MkdirAll(filepath.Join(root, sub), 0o755))
	}
	for path, body := range c.Config.Files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, path), []byte(body), 0o644))
	}
	for path, target := range c.Config.Symlinks {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		require.NoError(t, os.Symlink(target, filepath.Join(root, path)))
	}
	return root
}

// careenBinary is the binary under test.
func careenBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CAREEN_BINARY")
	if path == "" {
		path = "../bin/careen"
	}
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no binary to test at %s: run make build", path)
	}
	return path
}
