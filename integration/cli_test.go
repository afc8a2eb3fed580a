package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestPodmanDropIn: what Ironic's agent sees of podman, down to the bytes.
func TestPodmanDropIn(t *testing.T) {
	agent, image := node(t)
	podman := func(name string, args ...string) harness.Result {
		return harness.RunCommand(t, agent.CommandAs(within(t, time.Minute), name, args...))
	}
	got := podman("podman", "--version")
	assert.Equal(t, "podman version 4.3.1\n", got.Stdout)
	got = podman("/usr/bin/docker", "--version")
	assert.Regexp(t, `^docker version `, got.Stdout)

	got = podman("podman", "pull", "--tls-verify=false", image)
	assert.Zero(t, got.Code, "%s", got)
	assert.Regexp(t, `^[0-9a-f]{64}\n$`, got.Stdout)
	got = podman("podman", "run", "--rm --network=host", "--tls-verify=false", image, "sh", "-c", "echo out; echo err >&2; exit 3")
	assert.Equal(t, 3, got.Code, "%s", got)
	assert.Equal(t, "out\n", got.Stdout)
	assert.Equal(t, "err\n", got.Stderr, "nothing of careen's own")
	for code, args := range map[int][]string{
		0:   {"run", "--rm", image, "true"},
		125: {"run", "--rm", "--no-such-option", image},
		126: {"run", "--rm", image, "/bin/text"},
		127: {"run", "--rm", image, "/bin/nothing"},
		137: {"run", "--rm", image, "sh", "-c", "sh -c 'kill -9 $$' 2>/dev/null; exit 137"},
	} {
		got := podman("podman", args...)
		assert.Equal(t, code, got.Code, "%v: %s", args, got)
		assert.Empty(t, got.Stdout)
		assert.Equal(t, code == 0 || code == 137, got.Stderr == "", "%s", got)
	}
	got = podman("podman", "images")
	assert.Equal(t, 125, got.Code)
	assert.Contains(t, got.Stderr, "podman images")
	got = podman("podman", "pull", "--tls-verify=false", strings.Replace(image, "busybox", "absent", 1))
	assert.Equal(t, 125, got.Code)
	assert.Empty(t, got.Stdout)
}

// TestRunWithoutAgent: one command on a fresh host is enough, and leaves nothing
// but the image.
func TestRunWithoutAgent(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	// A node of its own: /run and /var/lib are empty and go with the command.
	alone := func(line string, args ...string) harness.Result {
		cmd := exec.CommandContext(within(t, time.Minute), "unshare", append([]string{"--mount", "sh", "-c", `
			set -e; mount -t tmpfs t /run; mount -t tmpfs t /var/lib; careen=$1; shift; ` + line, "sh", harness.Binary(t)}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		return harness.RunCommand(t, cmd)
	}
	got := alone(`exec "$careen" "$@"`, "run", "--rm", "--tls-verify=false", image, "sh", "-c", "echo alone; echo loud >&2; exit 5")
	assert.Equal(t, 5, got.Code, "%s", got)
	assert.Equal(t, "alone\n", got.Stdout)
	assert.Contains(t, got.Stderr, "loud\n")

	got = alone(`"$careen" "$@" >/dev/null; "$careen" "$@"
		ls /var/lib/careen/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots | wc -l
		grep -c careen /proc/self/mountinfo || true
		ls -A /run/careen/runs | wc -l; ls -A /run/careen/containerd/io.containerd.runtime.v2.task/careen | wc -l`,
		"run", "--rm", "--tls-verify=false", image, "sh", "-c", "echo written > /file; echo twice")
	assert.Zero(t, got.Code, "%s", got)
	lines := strings.Fields(got.Stdout)
	require.GreaterOrEqual(t, len(lines), 5, "%s", got)
	assert.Equal(t, "twice", lines[0])
	assert.Equal(t, "1", lines[1], "layers in the store: the image's one")
	assert.Equal(t, "0", lines[4], "tasks: %s", got)

	// Nobody else may use the socket, and a client says what to do.
	got = alone(`exec "$careen" ps`)
	assert.Equal(t, 1, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "careen agent")
}

// TestASecondAgentIsRefused: in the same run directory, on the same socket, and with
// the same store, where containerd would wait for the first to end.
func TestASecondAgentIsRefused(t *testing.T) {
	agent := harness.Start(t)
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"another agent runs there":        {"--root", dir + "/r", "--run-dir", agent.RunDir, "--socket", dir + "/s"},
		"start an agent in " + agent.Root: {"--root", agent.Root, "--run-dir", dir, "--socket", dir + "/s"},
		"another agent answers on it":     {"--root", dir + "/r", "--run-dir", dir, "--socket", agent.Socket},
	} {
		cmd := exec.CommandContext(within(t, 30*time.Second), harness.Binary(t), append([]string{"agent"}, args...)...)
		got := harness.RunCommand(t, cmd)
		assert.Equal(t, 1, got.Code, "%s", got)
		assert.Contains(t, got.Stderr, name)
	}
	assert.Zero(t, agent.Careen("ps").Code, "the first is not disturbed")
}

// TestPolicyJSON: what podman's policy.json refuses is not pulled, or not run where its
// name is known by the pull only.
func TestPolicyJSON(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	short := strings.TrimPrefix(image, reg.Host+"/")
	run := func(policy, image string) harness.Result {
		cmd := exec.CommandContext(within(t, time.Minute), "unshare", "--mount", "sh", "-c", `
			set -e; mount -t tmpfs t /run; mount -t tmpfs t /var/lib; mount -t tmpfs t /etc/containers
			echo "$2" > /etc/containers/policy.json
			echo "unqualified-search-registries = ['$3']" > /etc/containers/registries.conf
			"$1" run --rm --tls-verify=false "$4" echo it runs || code=$?
			ls /var/lib/careen/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots | wc -l; exit ${code:-0}`,
			"sh", harness.Binary(t), policy, reg.Host, image)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		return harness.RunCommand(t, cmd)
	}
	only := func(scope string) string {
		return `{"default": [{"type": "reject"}], "transports": {"docker": {"` + scope + `": [{"type": "insecureAcceptAnything"}]}}}`
	}
	for _, name := range []string{image, short} {
		got := run(only(reg.Host+"/busybox"), name)
		assert.Zero(t, got.Code, "%s", got)
		assert.Equal(t, "it runs\n1\n", got.Stdout)
		got = run(only("docker.io"), name)
		assert.Equal(t, 125, got.Code, "%s", got)
		assert.Contains(t, got.Stderr, "policy.json rejects it")
		assert.Equal(t, "0\n", got.Stdout, "nothing of it stays")
	}
}

// TestSpecAndExplainTouchNothing: they work without root's directories, an agent
// or a registry.
func TestSpecAndExplainTouchNothing(t *testing.T) {
	harness.NeedRoot(t)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	trace := func(args ...string) harness.Result {
		cmd := exec.CommandContext(within(t, time.Minute), harness.Binary(t), args...)
		cmd.Env = []string{"PATH=", "CAREEN_SOCKET=" + dir + "/none.sock"}
		cmd.Dir = dir
		return harness.RunCommand(t, cmd)
	}
	got := trace("spec", "--cgroup", "v2", "--read-only", "--memory=64m", "registry.invalid/fw:1", "/bin/fw", "--now")
	require.Zero(t, got.Code, "%s", got)
	var spec struct {
		Root    struct{ Readonly bool }
		Process struct{ Args []string }
	}
	require.NoError(t, json.Unmarshal([]byte(got.Stdout), &spec))
	assert.True(t, spec.Root.Readonly)
	assert.Equal(t, []string{"/bin/fw", "--now"}, spec.Process.Args)
	got = trace("explain", "--privileged", "--pid=host", "registry.invalid/fw:1")
	assert.Zero(t, got.Code, "%s", got)
	assert.Contains(t, strings.ToLower(got.Stdout), "privileged")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

// TestSecretsStaySecret looks for a password, a token and a secret variable in all
// that careen writes and shows while a step has them and after it.
func TestSecretsStaySecret(t *testing.T) {
	harness.NeedRoot(t)
	const password, variable = "pa55word-in-creds", "v4lue-of-variable"
	reg := registry.Start(t, registry.WithBasicAuth("op", password))
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	agent := harness.Start(t, harness.WithFlags("--log-level", "debug"))
	clean := func(where, text string) {
		t.Helper()
		for _, secret := range []string{password, variable} {
			assert.NotContains(t, text, secret, where)
		}
	}
	req := shell(image, "echo $API_TOKEN | head -c 5; echo; while ! test -e /sync/go; do usleep 10000; done")
	dir := t.TempDir()
	req.RunOptions = []string{"--rm", "-e", "API_TOKEN=" + variable, "-e", "INHERITED", "-v", dir + ":/sync"}
	req.PullOptions = []string{"--tls-verify=false", "--creds=op:" + password}
	req.Env = map[string]string{"INHERITED": variable}
	id := submit(t, agent, req)
	said(t, agent, id, "v4lue")
	look := func(when string) {
		clean(when+": the API", agent.Get("/v1/runs")+agent.Get("/v1/runs/"+id)+agent.Get("/v1/runs/"+id+"/spec")+agent.Get("/v1/audit"))
		clean(when+": ps", agent.Careen("ps", "-a").Stdout+agent.Careen("inspect", id).Stdout)
		var bundle strings.Builder
		require.NoError(t, agent.Client.Bundle(within(t, time.Minute), id, &bundle))
		clean(when+": the bundle", bundle.String())
		clean(when+": the agent's log", agent.Log())
		for name, text := range filesBelow(t, filepath.Join(agent.RunDir, "state")) {
			clean(when+": "+name, text)
		}
		for _, path := range commandLines(t) {
			clean(when+": a command line", path)
		}
	}
	look("while it runs")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	assert.Equal(t, api.Succeeded, ended(t, agent, id).State)
	look("after it")
	for name, text := range filesBelow(t, agent.RunDir) {
		clean("after it: "+name, text)
	}
	// A failure does not tell either.
	req.RunOptions = append(req.RunOptions.([]string), "--pull=always")
	req.PullOptions = []string{"--tls-verify=false", "--creds=op:" + password + "-wrong"}
	run := ended(t, agent, submit(t, agent, req))
	assert.Equal(t, "auth", run.Outcome.Code)
	look("after a failure")
}

// filesBelow reads every regular file below dir.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			data, rerr := os.ReadFile(path)
			require.NoError(t, rerr)
			files[path] = string(data)
		}
		return err
	}))
	return files
}

// commandLines are those of all processes but this one.
func commandLines(t *testing.T) (all []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, path := range paths {
		if data, err := os.ReadFile(path); err == nil && !strings.Contains(path, "/"+itoa(os.Getpid())+"/") {
			all = append(all, string(data))
		}
	}
	return all
}

// TestRunsAreFoundByName: commands take a run's id, the beginning of it, and the
// name that --name gave; of several with one name, the newest.
func TestRunsAreFoundByName(t *testing.T) {
	agent, image := node(t)
	for _, text := range []string{"older", "newer"} {
		got := agent.Careen("run", "--name", "probe", "--tls-verify=false", image, "echo", text)
		require.Zero(t, got.Code, "%s", got)
	}
	assert.Equal(t, "newer\n", agent.Careen("logs", "probe").Stdout)
	var run api.Run
	require.NoError(t, json.Unmarshal([]byte(agent.Careen("inspect", "probe").Stdout), &run))
	assert.Equal(t, "newer\n", agent.Careen("logs", run.ID[:8]).Stdout)
	assert.Equal(t, "succeeded\n", agent.Careen("wait", "probe").Stdout)

	got := agent.Careen("logs", "nothing")
	assert.Equal(t, 1, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "cannot find run nothing")

	// A shell completes them as well, and steps and images.
	assert.Contains(t, agent.Careen("__complete", "logs", "pro").Stdout, "probe\tsucceeded, "+image)
	assert.Contains(t, agent.Careen("__complete", "rmi", "").Stdout, image)
	assert.Contains(t, agent.Careen("__complete", "step", "run", "gen").Stdout, "generic_container_step\n")

	assert.Equal(t, "probe\n", agent.Careen("rm", "probe").Stdout)
	assert.Equal(t, "older\n", agent.Careen("logs", "probe").Stdout)
}
