package agent_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/runtime/container"
)

// served is an agent behind a real socket.
type served struct {
	*rig
	client *client.Client
	socket string
}

// serve starts an agent on a socket of the test's own.
func serve(t *testing.T, cfg agent.Config) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "careen") // a socket's path is short
	require.NoError(t, err)
	s := &served{rig: start(t, cfg), socket: filepath.Join(dir, "s")}
	ln, err := httpd.Listen(s.socket, os.Getuid())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	s.client = client.New(s.socket)
	t.Cleanup(func() {
		s.drainAll(t)
		s.client.Close()
		cancel()
		require.NoError(t, <-done)
		require.NoFileExists(t, s.socket)
		require.NoError(t, s.Close())
		require.NoError(t, os.RemoveAll(dir))
	})
	return s
}

func TestQueueAndIdempotence(t *testing.T) {
	cfg := newConfig(t)
	cfg.QueueLimit = 2
	s := serve(t, cfg)
	ctx := t.Context()
	first, isNew, err := s.client.Submit(ctx, api.RunRequest{ID: "first", Image: "run=forever"})
	require.NoError(t, err)
	require.True(t, isNew)
	again, isNew, err := s.client.Submit(ctx, api.RunRequest{ID: "first", Image: "run=forever"})
	require.NoError(t, err)
	require.False(t, isNew)
	require.Equal(t, first.CreatedAt, again.CreatedAt)
	_, _, err = s.client.Submit(ctx, api.RunRequest{ID: "first", Image: "run=1s"})
	require.Equal(t, fault.Conflict, fault.CodeOf(err))

	for i := range 2 {
		v, _, err := s.client.Submit(ctx, api.RunRequest{ID: fmt.Sprint("q", i), Image: "run=0s"})
		require.NoError(t, err)
		require.Equal(t, i+1, v.QueuePosition)
	}
	_, _, err = s.client.Submit(ctx, api.RunRequest{Image: "run=0s"})
	var f *fault.Error
	require.ErrorAs(t, err, &f)
	require.Equal(t, fault.Busy, f.Code)
	require.Equal(t, "first", f.Attrs["holder"])
	require.Equal(t, 429, f.Attrs["status"])
	require.NotEmpty(t, f.Remedy)

	_, err = s.client.Abort(ctx, "q0", api.AbortRequest{})
	require.NoError(t, err)
	q0, err := s.client.Wait(ctx, "q0")
	require.NoError(t, err)
	require.Equal(t, api.Aborted, q0.State, "what waits is aborted at once")
	require.Error(t, s.client.Delete(ctx, "first"))
	_, err = s.client.Abort(ctx, "first", api.AbortRequest{})
	require.NoError(t, err)
	q1, err := s.client.Wait(ctx, "q1")
	require.NoError(t, err)
	require.Equal(t, api.Succeeded, q1.State)
	require.NoError(t, s.client.Delete(ctx, "first"))
	_, err = s.client.Run(ctx, "first")
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
}

func TestBusyWithoutAQueueNamesTheHolder(t *testing.T) {
	cfg := newConfig(t)
	cfg.QueueLimit = -1
	rg := start(t, cfg)
	rg.submit(t, api.RunRequest{ID: "first", Image: "run=forever"})
	w := rg.do(t, "POST", "/v1/runs", `{"image":"x"}`, root)
	require.Equal(t, 409, w.Code)
	require.Contains(t, w.Body.String(), `"holder":"first"`)
	rg.drainAll(t)
	require.NoError(t, rg.Close())
}

func TestNotAbortableStep(t *testing.T) {
	rg := newRig(t)
	rg.resolver.Change = func(_ *api.RunRequest, res *policy.Resolved) error {
		res.Abortable = false
		return nil
	}
	rg.submit(t, api.RunRequest{ID: "flash", Image: "run=forever"})
	rg.waitFor(t, "flash", api.Running)
	_, err := rg.Abort(context.Background(), "flash", api.AbortRequest{})
	require.Equal(t, fault.Conflict, fault.CodeOf(err))
	require.ErrorContains(t, err, "not abortable")
	_, err = rg.Abort(context.Background(), "flash", api.AbortRequest{Force: true})
	require.NoError(t, err)
	require.Equal(t, api.Aborted, rg.end(t, "flash").State)
	require.NoError(t, rg.Close())
}

func TestLogsAreReadWhileItRunsAndAfter(t *testing.T) {
	s := serve(t, newConfig(t))
	ctx := t.Context()
	_, _, err := s.client.Submit(ctx, api.RunRequest{ID: "a", Image: "run=forever"})
	require.NoError(t, err)
	s.waitFor(t, "a", api.Running)
	got := make(chan api.LogLine, 10)
	followed := make(chan error, 1)
	go func() {
		followed <- s.client.Logs(ctx, "a", client.LogOptions{Follow: true}, func(l api.LogLine, text []byte) error {
			l.Base64, l.Text = text, ""
			got <- l
			return nil
		})
	}()
	s.runner.Println("a", "first")
	first := <-got
	require.Equal(t, "first", string(first.Base64))
	s.runner.Println("a", "bytes \xff\xfe")
	require.Equal(t, "bytes \xff\xfe", string((<-got).Base64))
	s.runner.End("a", container.Exit{})
	require.NoError(t, <-followed, "following ends with the run")

	var raw bytes.Buffer
	require.NoError(t, s.client.RawLogs(ctx, "a", client.LogOptions{}, &raw))
	require.Equal(t, "first\nbytes \xff\xfe\n", raw.String())
	one := 1
	raw.Reset()
	require.NoError(t, s.client.RawLogs(ctx, "a", client.LogOptions{Tail: &one}, &raw))
	require.Equal(t, "bytes \xff\xfe\n", raw.String())
	raw.Reset()
	require.NoError(t, s.client.RawLogs(ctx, "a", client.LogOptions{After: first.Cursor}, &raw))
	require.Equal(t, "bytes \xff\xfe\n", raw.String())
}

func TestEventsAreResumed(t *testing.T) {
	s := serve(t, newConfig(t))
	ctx := t.Context()
	_, _, err := s.client.Submit(ctx, api.RunRequest{ID: "a", Image: "run=forever"})
	require.NoError(t, err)
	stop := errors.New("seen enough")
	var seen []api.Event
	err = s.client.Events(ctx, "a", 0, func(e api.Event) error {
		seen = append(seen, e)
		if e.State == api.Running {
			return stop
		}
		return nil
	})
	require.ErrorIs(t, err, stop)
	s.runner.End("a", container.Exit{Code: 1})
	err = s.client.Events(ctx, "a", seen[len(seen)-1].Seq, func(e api.Event) error {
		seen = append(seen, e)
		return nil
	})
	require.NoError(t, err)
	var states []api.State
	for i, e := range seen {
		if i > 0 {
			require.Greater(t, e.Seq, seen[i-1].Seq)
		}
		if e.Type == "state" {
			states = append(states, e.State)
		}
	}
	require.Equal(t, []api.State{api.Queued, api.Pulling, api.Creating, api.Running, api.Failed}, states)
	require.Equal(t, "exit", seen[len(seen)-1].Outcome.Code)
}

func TestStdinAndTerminal(t *testing.T) {
	s := serve(t, newConfig(t))
	ctx := t.Context()
	_, _, err := s.client.Submit(ctx, api.RunRequest{ID: "a", Image: "run=forever/echo=1", Stdin: true})
	require.NoError(t, err)
	s.waitFor(t, "a", api.Running)
	require.NoError(t, s.client.Resize(ctx, "a", api.TerminalSize{Columns: 100, Rows: 30}))
	require.Equal(t, api.TerminalSize{Columns: 100, Rows: 30}, s.runner.Size("a"))
	require.NoError(t, s.client.Stdin(ctx, "a", strings.NewReader("one\n"), false))
	require.NoError(t, s.client.Stdin(ctx, "a", strings.NewReader("two\n"), true))
	v, err := s.client.Wait(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, v.Outcome.LogTail)
	require.Equal(t, fault.Conflict, fault.CodeOf(s.client.Stdin(ctx, "a", strings.NewReader("x"), false)))

	// A client that keeps its side open does not keep the run, nor the run the client.
	_, _, err = s.client.Submit(ctx, api.RunRequest{ID: "b", Image: "run=forever", Stdin: true})
	require.NoError(t, err)
	s.waitFor(t, "b", api.Running)
	reader, writer := io.Pipe()
	defer writer.Close()
	fed := make(chan error, 1)
	go func() { fed <- s.client.Stdin(ctx, "b", reader, false) }()
	s.runner.End("b", container.Exit{})
	require.Error(t, <-fed)
}

func TestPullsAreCancelledAndKept(t *testing.T) {
	s := serve(t, newConfig(t))
	ctx := t.Context()
	var seen []api.PullProgress
	pull, err := s.client.Pull(ctx, api.PullRequest{Image: "pull=20ms"}, func(p api.PullProgress) { seen = append(seen, p) })
	require.NoError(t, err)
	require.Equal(t, api.Succeeded, pull.State)
	require.Equal(t, "sha256:feed", pull.Digest)
	_, err = s.client.Pull(ctx, api.PullRequest{Image: "pullerr=auth"}, nil)
	require.Equal(t, fault.Auth, fault.CodeOf(err))

	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	pull, err = s.client.Pull(short, api.PullRequest{Image: "pull=1h"}, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	pull, err = s.client.PullOnce(ctx, pull.ID, 10*time.Second)
	require.NoError(t, err)
	require.Equal(t, api.Aborted, pull.State, "the client asked for its end when it gave up")
}

// TestBackgroundPullsYieldToRuns: the image of the next step is pulled with less than the
// priority of the step that runs, and with all of it when none does.
func TestBackgroundPullsYieldToRuns(t *testing.T) {
	s := serve(t, newConfig(t))
	ctx := t.Context()
	_, err := s.client.Pull(ctx, api.PullRequest{Image: "pull=0s"}, nil)
	require.NoError(t, err)
	require.NotContains(t, s.runner.Trace(), "background pull limited by a run")
	_, _, err = s.client.Submit(ctx, api.RunRequest{ID: "a", Image: "run=1h"})
	require.NoError(t, err)
	s.waitFor(t, "a", api.Running)
	require.NotContains(t, s.runner.Trace(), "background pull limited by a run", "a run's own pull is not limited")
	_, err = s.client.Pull(ctx, api.PullRequest{Image: "pull=0s"}, nil)
	require.NoError(t, err)
	require.Contains(t, s.runner.Trace(), "background pull limited by a run")
	s.runner.End("a", container.Exit{})
	s.end(t, "a")
}

func TestBundle(t *testing.T) {
	s := serve(t, newConfig(t))
	_, _, err := s.client.Submit(t.Context(), api.RunRequest{ID: "a", Image: "out=hello/run=0s"})
	require.NoError(t, err)
	s.end(t, "a")
	var all bytes.Buffer
	require.NoError(t, s.client.Bundle(t.Context(), "a", &all))
	found := map[string]string{}
	for tr := tar.NewReader(&all); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(tr)
		require.NoError(t, err)
		found[strings.TrimPrefix(h.Name, "careen-a/")] = string(data)
	}
	for _, name := range []string{"run.json", "events.json", "spec.json", "log/0000000001.log", "node/meminfo", "node/mountinfo", "version.json", "health.json"} {
		require.NotEmpty(t, found[name], name)
	}
	require.Contains(t, found["log/0000000001.log"], "stdout F hello")
	require.NotContains(t, all.String()+found["spec.json"], "hunter2")
	require.Contains(t, found["spec.json"], "PASSWORD=***")
}

// TestKeptRequest: a privileged container that mounts /run reads what is there. So the
// request of its run is gone when it starts, and the others have no variable that no
// option names.
func TestKeptRequest(t *testing.T) {
	cfg := newConfig(t)
	cfg.Resolver.(*agenttest.Resolver).Change = func(req *api.RunRequest, res *policy.Resolved) error {
		res.Environ = map[string]string{"NAMED": req.Env["NAMED"]}
		if req.Step != "" {
			res.Parts = append(res.Parts, agenttest.Part("run=forever"))
		}
		return nil
	}
	rg := start(t, cfg)
	kept := func(id string) string {
		data, err := os.ReadFile(filepath.Join(rg.cfg.RunDir, "requests", id+".json"))
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
		return string(data)
	}
	env := map[string]string{"NAMED": "needed", "OTHER": "hunter2"}
	rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever", Env: env})
	rg.waitFor(t, "a", api.Running)
	require.Empty(t, kept("a"), "its container runs")
	rg.submit(t, api.RunRequest{ID: "b", Step: "two", Args: map[string]any{"container_url": "run=forever"}, Env: env})
	require.Contains(t, kept("b"), "needed", "queued")
	require.NotContains(t, kept("b"), "hunter2")
	_, isNew, err := rg.Submit(t.Context(), &api.RunRequest{ID: "b", Step: "two", Args: map[string]any{"container_url": "run=forever"}, Env: env}, root)
	require.NoError(t, err, "the same request")
	require.False(t, isNew)
	rg.runner.End("a", container.Exit{})
	rg.waitFor(t, "b", api.Running)
	require.NotEmpty(t, kept("b"), "part 2 needs it")
	rg.runner.End("b", container.Exit{})
	require.Eventually(t, func() bool {
		v, err := rg.Run("b")
		return err == nil && v.Part == 2 && v.State == api.Running && kept("b") == ""
	}, time.Minute, time.Millisecond)
	rg.runner.End("b", container.Exit{})
	rg.end(t, "b")
	require.NoError(t, rg.Drain(t.Context(), false))
	require.NoError(t, rg.Close())
}

// TestSecretsStayInMemory looks through every answer and every file that outlives
// the run for the password that the request had.
func TestSecretsStayInMemory(t *testing.T) {
	const secret = "correct-horse"
	rg := start(t, func() agent.Config { c := newConfig(t); c.Persistent = true; return c }())
	rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever", Env: map[string]string{"TOKEN": secret},
		RunOptions: []any{"-e", "PASSWORD=" + secret}, PullOptions: "--creds=me:" + secret})
	rg.waitFor(t, "a", api.Running)
	for _, target := range []string{"/v1/runs", "/v1/runs/a", "/v1/runs/a/spec", "/v1/runs/a/bundle", "/v1/audit", "/v1/health", "/metrics"} {
		require.NotContains(t, rg.get(t, target).Body.String(), secret, target)
	}
	rg.runner.End("a", container.Exit{})
	rg.end(t, "a")
	require.NoError(t, rg.Drain(t.Context(), false))
	for _, dir := range []string{rg.cfg.StateDir, rg.cfg.RunDir} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			require.NotContains(t, string(data), secret, path)
			return err
		}))
	}
	require.NoError(t, rg.Close())
}

// TestFiftyClientsAtOnce polls, follows, stalls and aborts while runs come and go.
func TestFiftyClientsAtOnce(t *testing.T) {
	cfg := newConfig(t)
	cfg.QueueLimit, cfg.Slots = 100, 4
	s := serve(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stalled sync.WaitGroup
	s.submit(t, api.RunRequest{ID: "noisy", Image: "run=forever"})
	s.waitFor(t, "noisy", api.Running)
	for range 10 { // followers that never read
		conn, err := net.Dial("unix", s.socket)
		require.NoError(t, err)
		stalled.Go(func() {
			<-ctx.Done()
			conn.Close()
		})
		_, err = io.WriteString(conn, "GET /v1/runs/noisy/logs?follow=true HTTP/1.1\r\nHost: careen\r\n\r\n")
		require.NoError(t, err)
	}
	var busy sync.WaitGroup
	busy.Go(func() {
		for i := range 2000 {
			s.runner.Println("noisy", strings.Repeat(fmt.Sprint(i), 100))
		}
	})
	for i := range 50 {
		busy.Go(func() {
			c := client.New(s.socket)
			defer c.Close()
			id := fmt.Sprint("run", i)
			_, _, err := c.Submit(ctx, api.RunRequest{ID: id, Image: "pull=1ms/run=5ms"})
			if err != nil {
				t.Error(err)
				return
			}
			if i%5 == 0 {
				_, _ = c.Abort(ctx, id, api.AbortRequest{}) // it may have ended
			}
			if err := c.Events(ctx, id, 0, func(api.Event) error { return nil }); err != nil {
				t.Error(err)
			}
			if v, err := c.Wait(ctx, id); err != nil || !v.State.Final() {
				t.Error(v.State, err)
			}
			if _, err := c.Runs(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	busy.Wait()
	cancel()
	stalled.Wait()
}

func TestDisconnectedClientStopsNothing(t *testing.T) {
	s := serve(t, newConfig(t))
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := s.client.Submit(ctx, api.RunRequest{ID: "a", Image: "run=forever"})
	require.NoError(t, err)
	waiting := make(chan error, 1)
	go func() {
		_, err := s.client.Wait(ctx, "a")
		waiting <- err
	}()
	cancel()
	require.ErrorIs(t, <-waiting, context.Canceled)
	s.waitFor(t, "a", api.Running)
	s.runner.End("a", container.Exit{})
	require.Equal(t, api.Succeeded, s.end(t, "a").State)
}

func TestNoAgentListens(t *testing.T) {
	c := client.New(filepath.Join(t.TempDir(), "none"))
	defer c.Close()
	_, err := c.Version(t.Context())
	require.Equal(t, fault.Unreachable, fault.CodeOf(err))
	require.ErrorContains(t, err, "there is no socket")
	require.NotEmpty(t, fault.RemedyOf(err))
}

func TestMetrics(t *testing.T) {
	rg := newRig(t)
	rg.submit(t, api.RunRequest{ID: "a", Image: "run=0s/exit=3"})
	rg.end(t, "a")
	text := rg.get(t, "/metrics").Body.String()
	for _, line := range []string{
		`careen_runs_total{state="failed",code="exit"} 1`, "careen_containers_started_total 1", "careen_pull_bytes_total 100",
		`careen_run_phase_seconds_count{phase="running"} 1`, `careen_run_phase_seconds_bucket{phase="running",le="+Inf"} 1`,
	} {
		require.Contains(t, text, line+"\n")
	}
	for line := range strings.Lines(text) {
		require.Regexp(t, `^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.e]+)\n$`, line)
	}
	require.NoError(t, rg.Close())
}

// TestThousandRunsInARow looks for what grows.
func TestThousandRunsInARow(t *testing.T) {
	runs := 1000
	if testing.Short() {
		runs = 100
	}
	rg := newRig(t)
	fds := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	rg.submit(t, api.RunRequest{ID: "warm", Image: "run=0s"})
	rg.end(t, "warm")
	before := fds()
	for i := range runs {
		id := fmt.Sprint("r", i)
		rg.submit(t, api.RunRequest{ID: id, Image: "out=x/run=0s"})
		require.Equal(t, api.Succeeded, rg.end(t, id).State)
	}
	require.LessOrEqual(t, fds(), before+2)
	require.NoError(t, rg.Drain(t.Context(), false))
	left, err := os.ReadDir(filepath.Join(rg.cfg.RunDir, "runs"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, rg.Close())
}

var _ agent.Resolver = (*agenttest.Resolver)(nil)
