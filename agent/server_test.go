package agent_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	ln, err := agent.Listen(s.socket, os.Getuid())
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

func TestSocketIsPrivateAndReplacedOnlyWhenDead(t *testing.T) {
	dir, err := os.MkdirTemp("", "careen")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sub", "s")
	ln, err := agent.Listen(path, os.Getuid())
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	_, err = agent.Listen(path, os.Getuid())
	require.Equal(t, fault.Conflict, fault.CodeOf(err), "a live one is not replaced: %v", err)
	require.NoError(t, ln.Close())
	require.NoFileExists(t, path)

	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	dead.SetUnlinkOnClose(false)
	require.NoError(t, dead.Close())
	require.FileExists(t, path)
	ln, err = agent.Listen(path, os.Getuid())
	require.NoError(t, err, "a stale one is replaced")
	require.NoError(t, ln.Close())

	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = agent.Listen(path, os.Getuid())
	require.ErrorContains(t, err, "no socket")
	require.FileExists(t, path)
	_, err = agent.Listen(filepath.Join(dir, strings.Repeat("x", 120)), os.Getuid())
	require.ErrorContains(t, err, "107 bytes")
}

func TestOnlyThoseAllowedMayAsk(t *testing.T) {
	cfg := newConfig(t)
	cfg.AllowedUIDs = []uint32{990}
	rg := start(t, cfg)
	defer rg.Close()
	for uid, want := range map[uint32]int{0: 200, 990: 200, 1000: 403} {
		w := rg.do(t, "GET", "/v1/version", "", agent.Peer{UID: uid})
		require.Equal(t, want, w.Code, "uid %d", uid)
		require.Equal(t, want == 403, strings.Contains(w.Body.String(), "--allow-uid"), "what to do: %s", w.Body)
	}
	w := &recorder{header: http.Header{}}
	req, err := http.NewRequest("GET", "/v1/version", nil)
	require.NoError(t, err)
	rg.Handler().ServeHTTP(w, req)
	require.Equal(t, 403, w.code, "a connection whose peer is not known")
}

// recorder is the least that a handler can answer to.
type recorder struct {
	header http.Header
	code   int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(code int)        { r.code = code }

func TestRequestsAreReadStrictly(t *testing.T) {
	rg := newRig(t)
	defer rg.Close()
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for name, c := range map[string]struct {
		method, target, body string
		code                 int
		field                string
	}{
		"unknown member":            {"POST", "/v1/runs", `{"image":"x","privileged":true}`, 400, "privileged"},
		"unknown member inside":     {"POST", "/v1/runs", `{"image":"x","terminal_size":{"columns":1,"rows":2,"depth":3}}`, 400, "terminal_size.depth"},
		"another case":              {"POST", "/v1/runs", `{"Image":"x"}`, 400, "Image"},
		"twice":                     {"POST", "/v1/runs", `{"image":"x","image":"y"}`, 400, "image"},
		"twice inside":              {"POST", "/v1/runs", `{"image":"x","args":{"a":1,"a":2}}`, 400, "args.a"},
		"a number for a string":     {"POST", "/v1/runs", `{"image":7}`, 400, "image"},
		"a string for a list":       {"POST", "/v1/runs", `{"image":"x","command":"ls"}`, 400, "command"},
		"a number in a list":        {"POST", "/v1/runs", `{"image":"x","command":[1]}`, 400, "command"},
		"a number out of range":     {"POST", "/v1/runs", `{"image":"x","terminal_size":{"columns":99999,"rows":1}}`, 400, "terminal_size.columns"},
		"no object":                 {"POST", "/v1/runs", `[1]`, 400, "body"},
		"null":                      {"POST", "/v1/runs", `null`, 400, "body"},
		"something after it":        {"POST", "/v1/runs", `{"image":"x"} {}`, 400, "body"},
		"cut short":                 {"POST", "/v1/runs", `{"image":"x"`, 400, "body"},
		"no JSON":                   {"POST", "/v1/runs", `image=x`, 400, "body"},
		"no UTF-8":                  {"POST", "/v1/runs", "{\"image\":\"\xff\"}", 400, "body"},
		"too deep":                  {"POST", "/v1/runs", `{"image":"x","args":` + deep + `}`, 400, "args" + strings.Repeat(".a", 32)},
		"too large":                 {"POST", "/v1/runs", `{"image":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "body"},
		"empty":                     {"POST", "/v1/runs", ``, 400, "step"},
		"neither":                   {"POST", "/v1/runs", `{}`, 400, "step"},
		"bad id":                    {"POST", "/v1/runs", `{"image":"x","id":"../x"}`, 400, "id"},
		"id with a dot first":       {"POST", "/v1/runs", `{"image":"x","id":".x"}`, 400, "id"},
		"bad timeout":               {"POST", "/v1/runs", `{"image":"x","timeout":"soon"}`, 400, "timeout"},
		"no timeout at all":         {"POST", "/v1/runs", `{"image":"x","timeout":"0s"}`, 400, "timeout"},
		"negative timeout":          {"POST", "/v1/runs", `{"image":"x","silence_timeout":"-1s"}`, 400, "silence_timeout"},
		"bad exit code":             {"POST", "/v1/runs", `{"image":"x","reboot_exit_codes":[256]}`, 400, "reboot_exit_codes"},
		"bad grace":                 {"POST", "/v1/runs/x/abort", `{"grace":"x"}`, 400, "grace"},
		"unknown parameter":         {"GET", "/v1/runs?limit=1&colour=red", "", 400, "colour"},
		"parameter twice":           {"GET", "/v1/runs?limit=1&limit=2", "", 400, "limit"},
		"bad parameter":             {"GET", "/v1/runs?limit=many", "", 400, "limit"},
		"bad state":                 {"GET", "/v1/runs?state=asleep", "", 400, "state"},
		"bad escape":                {"GET", "/v1/runs?limit=%zz", "", 400, "query"},
		"bad poll":                  {"GET", "/v1/runs/x/wait?timeout=1h", "", 400, "timeout"},
		"bad phase":                 {"GET", "/v1/steps?phase=lunch", "", 400, "phase"},
		"no phase":                  {"GET", "/v1/steps", "", 400, "phase"},
		"bad tail":                  {"GET", "/v1/runs/x/logs?tail=-1", "", 400, "tail"},
		"bad stream":                {"GET", "/v1/runs/x/logs?stream=stdin", "", 400, "stream"},
		"bad cursor":                {"GET", "/v1/runs/x/logs?after=x", "", 400, "after"},
		"bad size":                  {"POST", "/v1/runs/x/resize", `{"columns":0,"rows":1}`, 400, "columns"},
		"pull of nothing":           {"POST", "/v1/images/pull", `{}`, 400, "image"},
		"no such run":               {"GET", "/v1/runs/x", "", 404, ""},
		"no such pull":              {"GET", "/v1/pulls/x", "", 404, ""},
		"no such resource":          {"GET", "/v2/runs", "", 404, ""},
		"no such method":            {"PUT", "/v1/runs", "", 405, ""},
		"a path that climbs":        {"GET", "/v1/runs/../../etc/passwd", "", 404, ""},
		"a run named with a slash":  {"GET", "/v1/runs/a%2Fb", "", 404, ""},
		"an image that is not here": {"DELETE", "/v1/images/docker.io%2Flibrary%2Fbusybox:1", "", 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := rg.do(t, c.method, c.target, c.body, root)
			require.Equal(t, c.code, w.Code, "%s", w.Body)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			var p api.Problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
			require.Equal(t, c.field, p.Field, "%s", w.Body)
			require.Equal(t, c.code, p.Status)
			require.NotEmpty(t, p.Code)
			require.True(t, strings.HasPrefix(p.Detail, "cannot ") || c.code == 404 || c.code == 405, p.Detail)
			if c.code == 405 {
				require.Equal(t, "GET, HEAD, POST", w.Header().Get("Allow"))
			}
		})
	}
	require.Empty(t, rg.Runs())
	require.Empty(t, rg.runner.Trace())
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"image":"x"}`, `{"args":{"a":[1,{"b":null}]}}`, `[`, `{"a":{"a":{}}}`, `{"command":["a"]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var req api.RunRequest
		if err := agent.Decode(data, &req); err != nil {
			require.Equal(t, fault.BadRequest, fault.CodeOf(err))
			require.NotEmpty(t, err.(*fault.Error).Attrs["field"])
			return
		}
		// What is accepted means the same when it is written and read again.
		text, err := json.Marshal(req)
		require.NoError(t, err)
		var again api.RunRequest
		require.NoError(t, agent.Decode(text, &again))
	})
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

func TestWithoutAQueueTheHolderIsNamed(t *testing.T) {
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

func TestAStepThatIsNotAbortable(t *testing.T) {
	rg := newRig(t)
	rg.resolver.Change = func(_ *api.RunRequest, res *agent.Resolved) error {
		res.Abortable = false
		return nil
	}
	rg.submit(t, api.RunRequest{ID: "flash", Image: "run=forever"})
	rg.waitFor(t, "flash", api.Running)
	_, err := rg.Abort("flash", api.AbortRequest{})
	require.Equal(t, fault.Conflict, fault.CodeOf(err))
	require.ErrorContains(t, err, "not abortable")
	_, err = rg.Abort("flash", api.AbortRequest{Force: true})
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
	s.runner.End("a", agent.Exit{})
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
	s.runner.End("a", agent.Exit{Code: 1})
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
	s.runner.End("b", agent.Exit{})
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

// TestPullsStepBackForRuns: the image of the next step is pulled with less than the
// priority of the step that runs, and with all of it when none does.
func TestPullsStepBackForRuns(t *testing.T) {
	s := serve(t, newConfig(t))
	ctx := t.Context()
	_, err := s.client.Pull(ctx, api.PullRequest{Image: "pull=0s"}, nil)
	require.NoError(t, err)
	require.NotContains(t, s.runner.Trace(), "step back for a run")
	_, _, err = s.client.Submit(ctx, api.RunRequest{ID: "a", Image: "run=1h"})
	require.NoError(t, err)
	s.waitFor(t, "a", api.Running)
	require.NotContains(t, s.runner.Trace(), "step back for a run", "a run's own pull does not")
	_, err = s.client.Pull(ctx, api.PullRequest{Image: "pull=0s"}, nil)
	require.NoError(t, err)
	require.Contains(t, s.runner.Trace(), "step back for a run")
	s.runner.End("a", agent.Exit{})
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
	rg.runner.End("a", agent.Exit{})
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

func TestAClientThatGoesStopsNothing(t *testing.T) {
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
	s.runner.End("a", agent.Exit{})
	require.Equal(t, api.Succeeded, s.end(t, "a").State)
}

func TestNobodyThere(t *testing.T) {
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

// TestAThousandRunsInARow looks for what grows.
func TestAThousandRunsInARow(t *testing.T) {
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
