package external

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// versions are the containerds under test: the version in go.mod
// and the oldest line that is supported.
var versions = []struct{ name, pkg string }{
	{"v2.3.7", "github.com/containerd/containerd/v2/cmd/containerd"},
	{"v1.7.29", "github.com/containerd/containerd/cmd/containerd"},
}

// buildTags leave out what needs libraries of the system, and what serves
// Kubernetes.
const buildTags = "no_btrfs,no_devmapper,no_zfs,no_cri,no_aufs,no_tracing"

// build makes a containerd and keeps it for the next time.
func build(t *testing.T, pkg, version string) string {
	t.Helper()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	require.NoError(t, err)
	dir := filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), ".cache", "containerd-"+version)
	binary := filepath.Join(dir, "containerd")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	began := time.Now()
	// In its own module: careen's dependencies are careen's, and "go install" takes
	// no module that excludes versions, as that of 1.7 does.
	module, _, _ := strings.Cut(pkg, "/cmd/")
	out, err := exec.Command("go", "mod", "download", "-json", module+"@"+version).Output()
	require.NoError(t, err)
	var downloaded struct{ Dir string }
	require.NoError(t, json.Unmarshal(out, &downloaded))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags",
		"-s -w -X "+module+"/version.Version="+version, "-tags", buildTags, "-o", binary, "./cmd/containerd")
	cmd.Dir = downloaded.Dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -mod=readonly", "GOWORK=off")
	out, err = cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Logf("built containerd %s in %s", version, time.Since(began).Round(time.Second))
	return binary
}

// serve starts a containerd with directories of its own and returns its socket.
func serve(t *testing.T, binary string) string {
	t.Helper()
	run, err := os.MkdirTemp("/run", "ct-")
	require.NoError(t, err)
	root := t.TempDir()
	socket := filepath.Join(run, "c.sock")
	config := filepath.Join(run, "config.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, root, filepath.Join(run, "state"), socket, socket+".ttrpc"), 0o600))
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	cmd := exec.Command(binary, "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("containerd's log:\n%s", text)
		}
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		if assert.NotContains(t, string(mounts), run, "containerd has mounts of containers") {
			_ = os.RemoveAll(run)
		}
	})
	require.Eventually(t, func() bool {
		client, err := containerd.New(socket, containerd.WithTimeout(time.Second))
		if err != nil {
			return false
		}
		defer client.Close()
		_, err = client.Version(t.Context())
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	return socket
}

func TestExternalContainerd(t *testing.T) {
	harness.NeedRoot(t)
	for _, version := range versions {
		t.Run(version.name, func(t *testing.T) {
			socket := serve(t, build(t, version.pkg, version.name))
			reg := registry.Start(t)
			image, _ := reg.Push(t, "busybox:1", harness.Busybox(t))
			// Checked by the client after the agent, so before it in the clean-up.
			t.Cleanup(func() { empty(t, socket) })
			agent := harness.Start(t, harness.WithFlags("--containerd-address", socket))
			scenarios(t, agent, image)
		})
	}
}

// scenarios are what careen promises with any containerd.
func scenarios(t *testing.T, agent *harness.Agent, image string) {
	run := func(args ...string) harness.Result {
		return agent.Careen(append([]string{"run", "--rm", "--net=host", "--tls-verify=false"}, args...)...)
	}
	got := run(image, "sh", "-c", "echo out; echo err >&2; exit 3")
	assert.Equal(t, 3, got.Code, "%s", got)
	assert.Equal(t, "out\n", got.Stdout)
	assert.Contains(t, got.Stderr, "err\n")
	assert.Equal(t, 127, run(image, "/bin/nothing").Code)
	assert.Equal(t, 126, run(image, "/bin/text").Code)
	got = run("--read-only", "--memory=32m", image, "sh", "-c", "! touch /x 2>/dev/null && tail /dev/zero")
	assert.Equal(t, 137, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "memory")
	got = agent.Careen("run", "--tls-verify=false", strings.Replace(image, "busybox", "absent", 1))
	assert.Equal(t, 125, got.Code, "%s", got)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	request := func(id, line string) {
		_, _, err := agent.Client.Submit(ctx, api.RunRequest{ID: id, Image: image, ExactOptions: true,
			RunOptions: []string{"--rm", "-v", dir + ":/sync"}, Command: []string{"sh", "-c", line}})
		require.NoError(t, err)
		require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, id)); return err == nil },
			20*time.Second, 10*time.Millisecond, "%s does not start", id)
	}
	request("aborted", "trap '' TERM; setsid sleep 300 & touch /sync/aborted; sleep 300")
	_, err := agent.Client.Abort(ctx, "aborted", api.AbortRequest{Grace: "100ms"})
	require.NoError(t, err)
	ended, err := agent.Client.Wait(ctx, "aborted")
	require.NoError(t, err)
	assert.Equal(t, api.Aborted, ended.State)

	// The agent dies, and the container does not.
	request("adopted", "touch /sync/adopted; while ! test -e /sync/go; do usleep 10000; done; echo done; exit 7")
	agent.Kill()
	agent.Launch()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	ended, err = agent.Client.Wait(ctx, "adopted")
	require.NoError(t, err)
	require.NotNil(t, ended.Outcome)
	require.NotNil(t, ended.Outcome.ExitCode, "%+v", ended.Outcome)
	assert.Equal(t, 7, *ended.Outcome.ExitCode)
	assert.Equal(t, []string{"done"}, ended.Outcome.LogTail)
	got = agent.Careen("rmi", image)
	assert.Zero(t, got.Code, "%s", got)
}

// empty: nothing of careen's is on record in containerd.
func empty(t *testing.T, socket string) {
	client, err := containerd.New(socket, containerd.WithTimeout(5*time.Second))
	require.NoError(t, err)
	defer client.Close()
	ctx := namespaces.WithNamespace(context.Background(), "careen")
	containers, err := client.ContainerService().List(ctx)
	require.NoError(t, err)
	assert.Empty(t, containers)
	images, err := client.ImageService().List(ctx)
	require.NoError(t, err)
	assert.Empty(t, images)
	left, err := client.LeasesService().List(ctx)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// TestNoContainerd: an agent without the containerd it is to use says which.
func TestNoContainerd(t *testing.T) {
	harness.NeedRoot(t)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "agent", "--root", dir+"/root", "--run-dir", dir+"/run",
		"--containerd-address", dir+"/none.sock")
	got := harness.RunCommand(t, cmd)
	assert.NotZero(t, got.Code)
	assert.Contains(t, got.Stderr, dir+"/none.sock")
	assert.Contains(t, got.Stderr, "--containerd-address")
}
