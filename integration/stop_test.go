package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestAbort ends containers in every state that they can be in. What the agent's
// check looks for afterwards includes every process of the container.
func TestAbort(t *testing.T) {
	agent, image := node(t)
	abort := func(t *testing.T, id string, req api.AbortRequest) api.Run {
		began := time.Now()
		_, err := agent.Client.Abort(within(t, 30*time.Second), id, req)
		require.NoError(t, err)
		run := ended(t, agent, id)
		assert.Equal(t, api.Aborted, run.State)
		assert.Equal(t, "aborted", run.Outcome.Code)
		assert.Less(t, time.Since(began), 10*time.Second)
		return run
	}
	t.Run("obeys its stop signal", func(t *testing.T) {
		id := submit(t, agent, shell(image, `trap 'echo parked the heads; exit 7' TERM; echo up; while :; do usleep 10000; done`))
		said(t, agent, id, "up")
		run := abort(t, id, api.AbortRequest{Reason: "the operator changed his mind"})
		assert.Contains(t, run.Outcome.LogTail, "parked the heads")
		assert.Equal(t, 7, *run.Outcome.ExitCode)
		assert.Contains(t, run.Outcome.Message, "changed his mind")
	})
	t.Run("ignores its stop signal", func(t *testing.T) {
		id := submit(t, agent, shell(image, `trap '' TERM; echo up; while :; do usleep 10000; done`))
		said(t, agent, id, "up")
		run := abort(t, id, api.AbortRequest{Grace: "200ms"})
		assert.Equal(t, 9, run.Outcome.Signal)
	})
	t.Run("has daemons", func(t *testing.T) {
		dir := t.TempDir()
		for _, namespace := range []string{"private", "host"} {
			id := submit(t, agent, shell(image,
				`trap '' HUP TERM; setsid sh -c 'trap "" HUP TERM; while :; do touch /sync/alive; usleep 20000; done' & echo up; wait`,
				"-v", dir+":/sync", "--pid="+namespace))
			said(t, agent, id, "up")
			appears(t, filepath.Join(dir, "alive"))
			abort(t, id, api.AbortRequest{Grace: "100ms"})
			require.NoError(t, os.Remove(filepath.Join(dir, "alive")))
			time.Sleep(100 * time.Millisecond) // five times what it touches the file in
			assert.NoFileExists(t, filepath.Join(dir, "alive"), "--pid=%s", namespace)
		}
	})
	t.Run("waits in the queue", func(t *testing.T) {
		first := submit(t, agent, shell(image, "sleep 60"))
		second := submit(t, agent, shell(image, "echo never"))
		run := abort(t, second, api.AbortRequest{})
		assert.Empty(t, run.Outcome.LogTail)
		abort(t, first, api.AbortRequest{Grace: "1ms"})
	})
	t.Run("has ended", func(t *testing.T) {
		id := submit(t, agent, shell(image, "true"))
		ended(t, agent, id)
		_, err := agent.Client.Abort(within(t, 30*time.Second), id, api.AbortRequest{})
		assert.Equal(t, fault.Conflict, fault.CodeOf(err), "%v", err)
	})
	t.Run("interrupted command", func(t *testing.T) {
		cmd := agent.Command(within(t, time.Minute), "run", "--rm", "--stop-timeout=1", image, "sh", "-c", "echo up; sleep 60")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 3))
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		began := time.Now()
		_ = cmd.Wait()
		assert.Less(t, time.Since(began), 10*time.Second)
		assert.NotZero(t, cmd.ProcessState.ExitCode())
		runs, err := agent.Client.Runs(within(t, 10*time.Second), api.Aborted)
		require.NoError(t, err)
		assert.Contains(t, runs[len(runs)-1].Outcome.Message, "careen run was interrupted")
		assert.Equal(t, "client_gone", runs[len(runs)-1].Outcome.Code)
	})
}

// said waits until a run's output has a line.
func said(t *testing.T, agent *harness.Agent, id, want string) {
	t.Helper()
	found := errors.New("found")
	err := agent.Client.Logs(within(t, 30*time.Second), id, logsFollowed, func(_ api.LogLine, text []byte) error {
		if string(text) == want {
			return found
		}
		return nil
	})
	require.ErrorIs(t, err, found, "it never said %q", want)
}

func TestAbortWhilePulling(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	agent := harness.Start(t)
	reg.Faults.Stall("/blobs/", -1, 1000)
	req := shell(image, "true")
	req.PullOptions = []string{"--tls-verify=false"}
	id := submit(t, agent, req)
	reaches(t, agent, id, api.Pulling)
	require.Eventually(t, func() bool {
		// The container's shim has come meanwhile.
		shims, err := filepath.Glob(filepath.Join(agent.RunDir, "containerd/s/new-*"))
		return err == nil && len(shims) == 1 && reg.Faults.Count("/blobs/") > 0
	}, 10*time.Second, 5*time.Millisecond)
	began := time.Now()
	_, err := agent.Client.Abort(within(t, 30*time.Second), id, api.AbortRequest{})
	require.NoError(t, err)
	run := ended(t, agent, id)
	assert.Less(t, time.Since(began), 2*time.Second, "a pull stops at once")
	assert.Equal(t, api.Aborted, run.State)
	assert.Nil(t, run.Outcome.ExitCode, "no container ran")

	// And nothing of it is in the way of the next.
	reg.Faults.Clear()
	got := agent.Careen("run", "--rm", "--tls-verify=false", image, "echo", "now")
	assert.Equal(t, "now\n", got.Stdout, "%s", got)
}

func TestTimeouts(t *testing.T) {
	agent, image := node(t)
	for _, tc := range []struct {
		name, line string
		change     func(*api.RunRequest)
		code       string
	}{
		{"whole run", "echo up; sleep 60", func(r *api.RunRequest) { r.Timeout = "1s" }, "timeout"},
		{"of the option", "echo up; sleep 60", func(r *api.RunRequest) {
			r.RunOptions = []string{"--rm", "--timeout=1", "--stop-timeout=1"}
		}, "timeout"},
		{"silence", "for i in 1 2 3; do echo $i; usleep 300000; done; sleep 60", func(r *api.RunRequest) { r.SilenceTimeout = "800ms" }, "silence_timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := shell(image, tc.line, "--stop-timeout=1")
			tc.change(&req)
			run := ended(t, agent, submit(t, agent, req))
			assert.Equal(t, api.TimedOut, run.State, "%+v", run.Outcome)
			assert.Equal(t, tc.code, run.Outcome.Code)
			assert.NotEmpty(t, run.Outcome.LogTail)
			if tc.code == "silence_timeout" {
				assert.Equal(t, "3", run.Outcome.LogTail[2])
			}
		})
	}
}

func TestQueue(t *testing.T) {
	agent, image := node(t, harness.WithFlags("--queue", "1"))
	holder := submit(t, agent, shell(image, "sleep 60"))
	reaches(t, agent, holder, api.Running)
	waiting := submit(t, agent, shell(image, "echo second"))
	run, err := agent.Client.Run(within(t, 10*time.Second), waiting)
	require.NoError(t, err)
	assert.Equal(t, api.Queued, run.State)
	assert.Equal(t, 1, run.QueuePosition)

	_, _, err = agent.Client.Submit(within(t, 10*time.Second), shell(image, "echo third"))
	var refused *fault.Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, fault.Busy, refused.Code)
	assert.Equal(t, 429, refused.Attrs["status"])
	assert.Equal(t, holder, refused.Attrs["holder"])
	got := agent.Careen("run", "--rm", image, "true")
	assert.Equal(t, 125, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, holder)

	_, err = agent.Client.Abort(within(t, 10*time.Second), holder, api.AbortRequest{Grace: "1ms"})
	require.NoError(t, err)
	assert.Equal(t, api.Succeeded, ended(t, agent, waiting).State)
}

func TestSameIDIsTheSameRun(t *testing.T) {
	agent, image := node(t)
	dir := t.TempDir()
	req := shell(image, "echo x >> /out/effects", "-v", dir+":/out")
	req.ID = "flash-1"
	submit(t, agent, req)
	for range 3 {
		run, isNew, err := agent.Client.Submit(within(t, 10*time.Second), req)
		require.NoError(t, err)
		assert.False(t, isNew)
		assert.Equal(t, "flash-1", run.ID)
	}
	assert.Equal(t, api.Succeeded, ended(t, agent, "flash-1").State)
	_, isNew, err := agent.Client.Submit(within(t, 10*time.Second), req)
	require.NoError(t, err)
	assert.False(t, isNew, "also after its end")
	effects, err := os.ReadFile(filepath.Join(dir, "effects"))
	require.NoError(t, err)
	assert.Equal(t, "x\n", string(effects))

	other := req
	other.Command = []string{"true"}
	_, _, err = agent.Client.Submit(within(t, 10*time.Second), other)
	assert.Equal(t, fault.Conflict, fault.CodeOf(err), "another request under that id: %v", err)
}

// TestCriticalSection: a container holds off an abort while it must not stop.
func TestCriticalSection(t *testing.T) {
	agent, image := node(t)
	dir := t.TempDir()
	id := submit(t, agent, shell(image, strings.Join([]string{
		"trap 'echo stopped; exit 0' TERM", "echo 20 > /run/careen/critical", "echo flashing",
		"while ! test -e /sync/go; do usleep 10000; done", "echo flashed", "rm /run/careen/critical", "while :; do usleep 10000; done",
	}, "\n"), "-v", dir+":/sync"))
	said(t, agent, id, "flashing")
	_, err := agent.Client.Abort(within(t, 10*time.Second), id, api.AbortRequest{Grace: "5s"})
	require.NoError(t, err)
	run, err := agent.Client.WaitOnce(within(t, 10*time.Second), id, 700*time.Millisecond)
	require.NoError(t, err)
	assert.False(t, run.State.Final(), "it was not stopped in its critical section: %+v", run.Outcome)
	assert.NotNil(t, run.CriticalUntil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	run = ended(t, agent, id)
	assert.Equal(t, api.Aborted, run.State)
	assert.Equal(t, []string{"flashing", "flashed", "stopped"}, run.Outcome.LogTail)
}

// TestCriticalLimit: no container holds off its end for longer than the operator says.
func TestCriticalLimit(t *testing.T) {
	agent, image := node(t, harness.WithFlags("--critical-limit", "500ms"))
	id := submit(t, agent, shell(image, "echo 3600 > /run/careen/critical; echo up; sleep 60", "--stop-timeout=0"))
	said(t, agent, id, "up")
	_, err := agent.Client.Abort(within(t, 10*time.Second), id, api.AbortRequest{})
	require.NoError(t, err)
	assert.Equal(t, api.Aborted, ended(t, agent, id).State)
	refused := agent.Careen("agent", "--critical-limit", "-1s")
	assert.Contains(t, refused.Stderr, "it is negative")
}
