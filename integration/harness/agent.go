package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/client"
)

// patience bounds the start, the end and every clean-up of an agent.
const patience = 60 * time.Second

// Binary returns the absolute path of the binary under test, or ends the test
// where there is none.
func Binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("CAREEN_BINARY")
	if path == "" {
		out, err := exec.Command("go", "env", "GOMOD").Output()
		require.NoError(t, err)
		path = filepath.Join(filepath.Dir(string(bytes.TrimSpace(out))), "bin", "careen")
	}
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("there is no binary to test: %v; run make build, or set CAREEN_BINARY", err)
	}
	return path
}

// NeedRoot skips the test where containers cannot be started.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
}

// Agent is an agent with directories of its own. Its methods end the test when
// the agent cannot do what is asked of it.
type Agent struct {
	// Root is the store, RunDir the state of this boot, Socket where it listens.
	Root, RunDir, Socket string
	// Client talks to it, also after a restart.
	Client *client.Client

	t      testing.TB
	binary string
	flags  []string
	env    []string
	log    *buffer
	cmd    *exec.Cmd
	exited chan struct{}
	// before is what the agent's mount namespace held when it was ready.
	before map[string]bool
	// ids are the containers that were on record at some time.
	idsMu sync.Mutex
	ids   map[string]bool
}

// Option changes how [Start] starts an agent.
type Option func(*Agent)

// WithFlags adds flags of "careen agent".
func WithFlags(flags ...string) Option { return func(a *Agent) { a.flags = append(a.flags, flags...) } }

// WithEnv adds variables, as NAME=VALUE.
func WithEnv(env ...string) Option { return func(a *Agent) { a.env = append(a.env, env...) } }

// WithRoot puts the store into a directory that exists.
func WithRoot(dir string) Option { return func(a *Agent) { a.Root = dir } }

// Start starts an agent and returns when it is ready. When the test ends it is
// stopped, and the test fails if anything of it is left: see [Agent.Check].
func Start(t testing.TB, opts ...Option) *Agent {
	t.Helper()
	NeedRoot(t)
	a := &Agent{t: t, binary: Binary(t), log: &buffer{}}
	// Sockets have paths of at most 107 bytes, shims' ones end in 64 digits.
	dir, err := os.MkdirTemp("/run", "ct-")
	require.NoError(t, err)
	a.RunDir, a.Socket = dir, filepath.Join(dir, "careen.sock")
	for _, opt := range opts {
		opt(a)
	}
	if a.Root == "" {
		a.Root = t.TempDir()
	}
	a.Client = client.New(a.Socket)
	t.Cleanup(a.end)
	a.Launch()
	a.before = a.mounts()
	return a
}

// Launch starts the agent's process, again after [Agent.Kill] or [Agent.Stop],
// and returns when it is ready.
func (a *Agent) Launch() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a.LaunchOnly()
	ready := make(chan error, 1)
	go func() { ready <- a.Client.WaitReady(ctx) }()
	select {
	case err := <-ready:
		require.NoError(a.t, err, "the agent is not ready:\n%s", a.log)
	case <-a.exited:
		a.t.Fatalf("the agent ended while it started:\n%s", a.log)
	}
}

// LaunchOnly starts the agent's process and does not wait for it.
func (a *Agent) LaunchOnly() {
	a.t.Helper()
	args := append([]string{"agent", "--root", a.Root, "--run-dir", a.RunDir, "--socket", a.Socket}, a.flags...)
	cmd := exec.Command(a.binary, args...)
	cmd.Env = append([]string{"PATH="}, a.env...)
	cmd.Stdout, cmd.Stderr = a.log, a.log
	// Shims hold the output open after the agent has gone: not waited for.
	cmd.WaitDelay = time.Millisecond
	require.NoError(a.t, cmd.Start())
	exited := make(chan struct{})
	a.cmd, a.exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
}

// Kill ends the agent as a crash does. Containers go on.
func (a *Agent) Kill() {
	a.t.Helper()
	_ = a.cmd.Process.Kill() // it may have ended by itself
	a.gone()
}

// Stop ends the agent with SIGTERM and returns its exit code.
func (a *Agent) Stop() int {
	a.t.Helper()
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	a.gone()
	return a.cmd.ProcessState.ExitCode()
}

func (a *Agent) gone() {
	a.t.Helper()
	select {
	case <-a.exited:
	case <-time.After(patience):
		a.t.Fatalf("the agent does not end:\n%s", a.log)
	}
	a.Client.Close()
}

// SetEnv replaces the variables with which the agent is launched next.
func (a *Agent) SetEnv(env ...string) { a.env = env }

// Exited is closed when the agent's process has ended.
func (a *Agent) Exited() <-chan struct{} { return a.exited }

// Running reports whether the agent's process lives.
func (a *Agent) Running() bool {
	select {
	case <-a.exited:
		return false
	default:
		return true
	}
}

// Pid is the process id of the agent.
func (a *Agent) Pid() int { return a.cmd.Process.Pid }

// Log is what the agent wrote so far, over all its lives.
func (a *Agent) Log() string { return a.log.String() }

// LogSince is what the agent wrote after the first n bytes, and how much it wrote.
func (a *Agent) LogSince(n int) (text string, written int) { return a.log.since(n) }

// end is the last of the test: the agent, its check, its directories.
func (a *Agent) end() {
	defer func() {
		if a.t.Failed() {
			a.t.Logf("the agent's log:\n%s", a.log)
		}
		removeAll(a.t, a.RunDir)
	}()
	if a.cmd == nil {
		return
	}
	if !a.Running() {
		a.Launch()
	}
	a.Check()
	if code := a.Stop(); code != 0 {
		a.t.Errorf("the agent's exit code is %d", code)
	}
	a.checkStopped()
}

// removeAll removes a directory, but never through a mount: that would be into the
// node's own files.
func removeAll(t testing.TB, dir string) {
	if err := detachBelow(dir); err != nil {
		t.Errorf("cannot clean up: %v", err)
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("cannot clean up: %v", err)
	}
}

// Metric returns one unlabelled figure of /metrics.
func (a *Agent) Metric(name string) float64 {
	a.t.Helper()
	body := a.Get("/metrics")
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(body)
	require.NotNil(a.t, m, "there is no %s in\n%s", name, body)
	value, err := strconv.ParseFloat(m[1], 64)
	require.NoError(a.t, err)
	return value
}

// Get returns the body of a GET request on the socket, whatever its status.
func (a *Agent) Get(path string) string {
	a.t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", a.Socket)
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: patience}
	resp, err := c.Get("http://careen" + path)
	require.NoError(a.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(a.t, err)
	return string(body)
}

// Result is how a command ended.
type Result struct {
	// Code is the exit code, -1 where a signal ended the command.
	Code           int
	Stdout, Stderr string
	Took           time.Duration
}

// String shows all of it in a failure's message.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d after %s\nstdout: %s\nstderr: %s", r.Code, r.Took, r.Stdout, r.Stderr)
}

// Command prepares "careen ARGS" against this agent. PATH is empty: careen needs
// no other program.
func (a *Agent) Command(ctx context.Context, args ...string) *exec.Cmd {
	return a.CommandAs(ctx, "careen", args...)
}

// CommandAs is [Agent.Command] under another name of the binary, such as podman.
func (a *Agent) CommandAs(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, a.binary, args...)
	cmd.Args[0] = name
	cmd.Env = []string{"PATH=", "CAREEN_SOCKET=" + a.Socket}
	return cmd
}

// Careen runs "careen ARGS" to its end.
func (a *Agent) Careen(args ...string) Result {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	return RunCommand(a.t, a.Command(ctx, args...))
}

// RunCommand runs a command to its end and keeps its streams apart.
func RunCommand(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	began := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(began)}
}

// buffer may be written by a process and read by the test at once.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) since(n int) (string, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf.Bytes()[n:]), b.buf.Len()
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
