package integration

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

func TestExitCodes(t *testing.T) {
	agent, image := node(t)
	for _, tc := range []struct {
		name string
		args []string
		code int
		err  string
	}{
		{"success", []string{image, "true"}, 0, ""},
		{"failure", []string{image, "sh", "-c", "exit 3"}, 3, "3"},
		{"signal", []string{image, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"}, 137, ""},
		{"killed", []string{"--init=false", image, "sh", "-c", "kill -KILL $$; sleep 1; exit 9"}, 9, ""},
		{"option", []string{"--no-such-option", image}, 125, "--no-such-option"},
		{"refused option", []string{"--detach", image}, 125, "--detach"},
		{"reference", []string{"registry.example/Upper:1", "true"}, 125, "registry.example/Upper:1"},
		{"absent image", []string{"--pull=never", "localhost:1/none:1", "true"}, 125, "localhost:1/none:1"},
		{"not executable", []string{image, "/bin/text"}, 126, "/bin/text"},
		{"absent command", []string{image, "/bin/nothing"}, 127, "/bin/nothing"},
		{"absent in PATH", []string{image, "nothing"}, 127, "nothing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := agent.Careen(append([]string{"run", "--rm", "--net=host"}, tc.args...)...)
			assert.Equal(t, tc.code, got.Code, "%s", got)
			assert.Contains(t, got.Stderr, tc.err)
			assert.Empty(t, got.Stdout)
		})
	}
}

// TestSignalDeath: the container's first process ends by a signal from the node.
func TestSignalDeath(t *testing.T) {
	agent, image := node(t)
	id := submit(t, agent, shell(image, "echo up; sleep 60"))
	reaches(t, agent, id, api.Running)
	run, err := agent.Client.Run(within(t, time.Minute), id)
	require.NoError(t, err)
	require.NoError(t, exec.Command("kill", "-KILL", itoa(run.Pid)).Run())
	run = ended(t, agent, id)
	assert.Equal(t, api.Failed, run.State)
	assert.Equal(t, "signalled", run.Outcome.Code)
	assert.Equal(t, 9, run.Outcome.Signal)
	assert.Equal(t, 137, *run.Outcome.ExitCode)
}

// TestSpaceIsGivenBack: the next step has all of the store that the one before it
// wrote to.
func TestSpaceIsGivenBack(t *testing.T) {
	agent, image := node(t)
	before := diskUsage(t, agent.Root)
	for range 2 {
		got := agent.Careen("run", "--rm", image, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=64")
		require.Zero(t, got.Code, "%s", got)
		assert.Less(t, diskUsage(t, agent.Root)-before, int64(8<<20))
	}
}

func TestStreamsAreKeptApartAndLive(t *testing.T) {
	agent, image := node(t)
	dir := t.TempDir()
	cmd := agent.Command(within(t, time.Minute), "run", "--rm", "-v", dir+":/sync", image, "sh", "-c",
		"echo one; echo two >&2; printf no-newline; while ! test -e /sync/go; do usleep 10000; done; echo; echo three")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	// The first line comes while the container waits for the file.
	first := make([]byte, len("one\n"))
	_, err = stdout.Read(first)
	require.NoError(t, err)
	assert.Equal(t, "one\n", string(first))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	rest := readAll(t, stdout)
	require.NoError(t, cmd.Wait())
	assert.Equal(t, "no-newline\nthree\n", rest)
	assert.Equal(t, "two\n", stderr.String())
}

func TestOutputIsExact(t *testing.T) {
	agent, image := node(t)
	got := agent.Careen("run", "--rm", image, "printf", "no newline at the end")
	assert.Equal(t, "no newline at the end", got.Stdout)
	got = agent.Careen("run", "--rm", image, "printf", `a\000b\377c\033[31m\n`)
	assert.Equal(t, "a\x00b\xffc\x1b[31m\n", got.Stdout)
	got = agent.Careen("run", "--rm", image, "sh", "-c", "yes 0123456789abcde | head -c 3000000")
	assert.Zero(t, got.Code)
	assert.Equal(t, 3000000, len(got.Stdout), "three megabytes, all of them")
}

// TestEscapeSequencesDoNotReachATerminal: what a container writes could rewrite what
// the operator has read, or type commands. One with a terminal of its own may.
func TestEscapeSequencesDoNotReachATerminal(t *testing.T) {
	agent, image := node(t)
	shown := func(options ...string) string {
		cmd := agent.Command(within(t, time.Minute), append(append([]string{"run", "--rm"}, options...), image, "printf", `\033[31mred`)...)
		terminal, err := pty.Start(cmd)
		require.NoError(t, err)
		defer terminal.Close()
		out, _ := io.ReadAll(terminal) // ends with EIO
		require.NoError(t, cmd.Wait())
		return string(out)
	}
	assert.Contains(t, shown(), `\x1b[31mred`)
	assert.Contains(t, shown("--tty"), "\x1b[31mred")
}

func TestStandardInput(t *testing.T) {
	agent, image := node(t)
	cmd := agent.Command(within(t, time.Minute), "run", "--rm", "-i", image, "cat")
	text := strings.Repeat("line of input\n", 20000)
	cmd.Stdin = strings.NewReader(text)
	got := harness.RunCommand(t, cmd)
	assert.Zero(t, got.Code, got.Stderr)
	assert.Equal(t, len(text), len(got.Stdout))
	assert.True(t, text == got.Stdout)

	// Without -i there is none, whatever the caller has.
	cmd = agent.Command(within(t, time.Minute), "run", "--rm", image, "cat")
	cmd.Stdin = strings.NewReader(text)
	got = harness.RunCommand(t, cmd)
	assert.Zero(t, got.Code, got.Stderr)
	assert.Empty(t, got.Stdout)
}

func TestTerminal(t *testing.T) {
	agent, image := node(t)
	cmd := agent.Command(within(t, time.Minute), "run", "--rm", "-it", image, "sh", "-c",
		"test -t 0 && test -t 1 && stty size; read line; echo got=$line")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
	require.NoError(t, err)
	defer terminal.Close()
	var seen strings.Builder
	readUntil := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		for !strings.Contains(seen.String(), want) {
			require.NoError(t, terminal.SetReadDeadline(time.Now().Add(20*time.Second)))
			n, err := terminal.Read(buf)
			seen.Write(buf[:n])
			require.NoError(t, err, "only saw %q", seen.String())
		}
	}
	readUntil("30 100\r\n")
	_, err = terminal.WriteString("hello\r")
	require.NoError(t, err)
	readUntil("got=hello\r\n")
	require.NoError(t, cmd.Wait(), seen.String())
}

// TestProcess: what podman's options make of a process, seen from inside by a
// program that is the image's only file.
func TestProcess(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ := reg.Push(t, "probe:1", harness.Probe(t))
	agent := harness.Start(t)
	type report struct {
		Args, Env []string
		Dir       string
		UID, GID  int
		Pid       int
		Hostname  string
		RootWrite bool
		Groups    []int
	}
	probe := func(t *testing.T, args ...string) (r report) {
		got := agent.Careen(append([]string{"run", "--rm", "--tls-verify=false"}, args...)...)
		require.Zero(t, got.Code, "%s", got)
		require.NoError(t, json.Unmarshal([]byte(got.Stdout), &r), got.Stdout)
		return r
	}
	host, err := os.Hostname()
	require.NoError(t, err)

	plain := probe(t, "--net=host", image)
	assert.Equal(t, []string{"/probe", "report"}, plain.Args)
	assert.Contains(t, plain.Env, "FROM_IMAGE=yes")
	assert.Contains(t, plain.Env, "container=careen")
	assert.Equal(t, "/work", plain.Dir)
	assert.Zero(t, plain.UID)
	assert.Equal(t, host, plain.Hostname)
	assert.True(t, plain.RootWrite)
	assert.Equal(t, 1, plain.Pid)

	set := probe(t, "--net=none", "--read-only", "-e", "A=b c", "-e", "FROM_IMAGE=no", "-w", "/", "-u", "1234:2345",
		"--group-add=99", "--hostname", "step-1", image, "report", "two words", "")
	assert.Equal(t, []string{"/probe", "report", "two words", ""}, set.Args)
	assert.Contains(t, set.Env, "A=b c")
	assert.Contains(t, set.Env, "FROM_IMAGE=no")
	assert.Equal(t, "/", set.Dir)
	assert.Equal(t, 1234, set.UID)
	assert.Equal(t, 2345, set.GID)
	assert.Contains(t, set.Groups, 99)
	assert.Equal(t, "step-1", set.Hostname)
	assert.False(t, set.RootWrite)

	entry := probe(t, "--entrypoint", `["/probe","report"]`, "--pid=host", image, "x")
	assert.Equal(t, []string{"/probe", "report", "x"}, entry.Args)
	assert.Greater(t, entry.Pid, 1)
}

func TestIsolation(t *testing.T) {
	agent, image := node(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("of the node\n"), 0o644))
	run := func(args ...string) harness.Result { return agent.Careen(append([]string{"run", "--rm"}, args...)...) }

	got := run("--read-only", image, "sh", "-c", "touch /tmp/x && ! touch /x 2>/dev/null && echo fine")
	assert.Equal(t, "fine\n", got.Stdout, "%s", got)
	got = run("-v", dir+":/data:ro", image, "sh", "-c", "cat /data/file; ! touch /data/x 2>/dev/null && echo fine")
	assert.Equal(t, "of the node\nfine\n", got.Stdout, "%s", got)
	got = run("-v", dir+":/data", image, "sh", "-c", "echo changed > /data/new")
	assert.Zero(t, got.Code, "%s", got)
	assert.FileExists(t, filepath.Join(dir, "new"))

	got = run(image, "sh", "-c", "! mount -t tmpfs x /tmp 2>/dev/null && ! test -e /dev/mem && echo fine")
	assert.Equal(t, "fine\n", got.Stdout, "%s", got)
	got = run("--privileged", image, "sh", "-c", "mount -t tmpfs x /tmp && test -e /dev/kmsg && echo fine")
	assert.Equal(t, "fine\n", got.Stdout, "%s", got)
	got = run("--network=none", image, "sh", "-c", "grep -c : /proc/net/dev")
	assert.Equal(t, "1\n", got.Stdout, "the loopback device alone: %s", got)
	got = run("--env-file", writeFile(t, "vars", "ONE=1\n# no\nTWO=two words\n"), image, "sh", "-c", "echo $ONE $TWO")
	assert.Equal(t, "1 two words\n", got.Stdout, "%s", got)
	got = run("-u", "worker", image, "id")
	assert.Contains(t, got.Stdout, "uid=1234(worker) gid=2345(worker)")
	got = run("--pids-limit=1", image, "sh", "-c", "true & wait; echo never")
	assert.NotZero(t, got.Code, "%s", got)
}

func TestOutOfMemory(t *testing.T) {
	agent, image := node(t)
	id := submit(t, agent, shell(image, "echo eating; tail /dev/zero", "--memory=32m"))
	run := ended(t, agent, id)
	assert.Equal(t, api.Failed, run.State)
	assert.Equal(t, "oom", run.Outcome.Code, "%+v", run.Outcome)
	assert.True(t, run.Outcome.OOMKilled)
	assert.Contains(t, run.Outcome.Message, "memory")
	assert.Contains(t, run.Outcome.LogTail, "eating")
	assert.True(t, agent.Running(), "the agent lives on")
}

func TestResultAndReboot(t *testing.T) {
	agent, image := node(t)
	id := submit(t, agent, shell(image, `echo '{"disks": 2}' > /run/careen/result.json`))
	run := ended(t, agent, id)
	assert.Equal(t, api.Succeeded, run.State, "%+v", run.Outcome)
	assert.JSONEq(t, `{"disks": 2}`, string(run.Outcome.Result))

	id = submit(t, agent, shell(image, `echo '{"disks":' > /run/careen/result.json`))
	run = ended(t, agent, id)
	assert.Empty(t, run.Outcome.Result, "half a document is none")
	assert.NotEmpty(t, run.Warnings)
}

// TestRebootSyscall: reboot(2) in a PID namespace is a request, not a failure, and
// nothing new starts until the agent's node has been rebooted.
func TestRebootSyscall(t *testing.T) {
	agent, image := node(t)
	id := submit(t, agent, shell(image, "echo flashed; reboot -f; sleep 60", "--cap-add=SYS_BOOT"))
	run := ended(t, agent, id)
	assert.Equal(t, api.Succeeded, run.State, "%+v", run.Outcome)
	assert.True(t, run.Outcome.RebootRequested)
	assert.Contains(t, run.Outcome.LogTail, "flashed")
	got := agent.Careen("run", "--rm", image, "true")
	assert.Equal(t, 125, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "reboot")
	require.NoError(t, agent.Client.Delete(within(t, time.Minute), id))
}
