package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/integration/harness"
)

// TestKilledAgentAdopts: the container goes on while there is no agent; the next
// one has its log without a gap and its real exit code.
func TestKilledAgentAdopts(t *testing.T) {
	agent, image := node(t)
	dir := t.TempDir()
	req := shell(image, "i=0; while ! test -e /sync/go; do i=$((i+1)); echo line $i; echo $i > /sync/count; usleep 20000; done; exit 7", "-v", dir+":/sync")
	req.ID = "adopted"
	submit(t, agent, req)
	said(t, agent, "adopted", "line 3")

	// A follower goes on from where it was when the agent is back.
	var lines []string
	var cursor string
	follow := func(ctx context.Context) error {
		return agent.Client.Logs(ctx, "adopted", client.LogOptions{Follow: true, After: cursor}, func(l api.LogLine, text []byte) error {
			lines, cursor = append(lines, string(text)), l.Cursor
			return nil
		})
	}
	// So does who follows at a shell, without knowing of it.
	shown := agent.Command(within(t, time.Minute), "logs", "-f", "adopted")
	var complaints bytes.Buffer
	shown.Stderr = &complaints
	screen, err := shown.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, shown.Start())
	first := make([]byte, len("line 1\n"))
	_, err = io.ReadFull(screen, first)
	require.NoError(t, err)
	broken := make(chan error, 1)
	go func() { broken <- follow(within(t, time.Minute)) }()
	for range 2 {
		agent.Kill()
		if err := <-broken; err == nil {
			t.Fatal("the log seemed to end with the agent")
		}
		count := readCount(t, dir)
		require.Eventually(t, func() bool { return readCount(t, dir) > count+3 }, 10*time.Second, 5*time.Millisecond,
			"the container goes on without an agent")
		agent.Launch()
		run, isNew, err := agent.Client.Submit(within(t, 10*time.Second), req)
		require.NoError(t, err)
		assert.False(t, isNew, "the same id is the same run after a crash")
		assert.Equal(t, api.Running, run.State)
		go func() { broken <- follow(within(t, time.Minute)) }()
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	require.NoError(t, <-broken)
	run := ended(t, agent, "adopted")
	var life []string
	require.NoError(t, agent.Client.Events(within(t, 10*time.Second), "adopted", 0, func(e api.Event) error {
		if e.Type == "state" || e.Type == "exit" || e.Type == "policy" {
			life = append(life, e.Type+" "+string(e.State))
		}
		return nil
	}))
	assert.Equal(t, []string{"state queued", "policy ", "state pulling", "state creating", "state running", "exit ", "state failed"},
		life, "events of three agents")
	assert.Equal(t, 7, *run.Outcome.ExitCode, "%+v", run.Outcome)
	assert.Equal(t, "exit", run.Outcome.Code)
	var want []string
	for i := range readCount(t, dir) {
		want = append(want, fmt.Sprintf("line %d", i+1))
	}
	assert.Equal(t, want, containerLines(lines), "no line twice and none lost")
	assert.Equal(t, strings.Join(want, "\n")+"\n", agent.Careen("logs", "adopted").Stdout)
	rest := readAll(t, screen)
	require.NoError(t, shown.Wait(), "%s", &complaints)
	assert.Equal(t, strings.Join(want, "\n")+"\n", string(first)+rest)
}

// containerLines leaves out the agent's own notes.
func containerLines(lines []string) (own []string) {
	for _, line := range lines {
		if strings.HasPrefix(line, "line ") {
			own = append(own, line)
		}
	}
	return own
}

func readCount(t *testing.T, dir string) (n int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "count"))
	if err != nil || len(data) == 0 {
		return 0 // being written
	}
	_, err = fmt.Sscan(string(data), &n)
	require.NoError(t, err)
	return n
}

// TestEndedWhileAgentWasAway: how a container ended is known, though no agent saw
// it.
func TestEndedWhileAgentWasAway(t *testing.T) {
	for _, tc := range []struct {
		name, line, code string
		exit             int
		state            api.State
		options          []string
	}{
		{"success", "exit 0", "", 0, api.Succeeded, nil},
		{"failure", "echo too bad; exit 9", "exit", 9, api.Failed, nil},
		{"memory", "tail /dev/zero", "oom", 137, api.Failed, []string{"--memory=32m"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			agent, image := node(t)
			dir := t.TempDir()
			req := shell(image, "echo up; while ! test -e /sync/go; do usleep 10000; done; touch /sync/end; "+tc.line,
				append(tc.options, "-v", dir+":/sync")...)
			req.ID = "away"
			submit(t, agent, req)
			said(t, agent, "away", "up")
			agent.Kill()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
			appears(t, filepath.Join(agent.RunDir, "runs", "away", "exit.json"))
			agent.Launch()
			run := ended(t, agent, "away")
			assert.Equal(t, tc.state, run.State, "%+v", run.Outcome)
			assert.Equal(t, tc.code, run.Outcome.Code)
			assert.Equal(t, tc.exit, *run.Outcome.ExitCode)
			_, isNew, err := agent.Client.Submit(within(t, 10*time.Second), req)
			require.NoError(t, err)
			assert.False(t, isNew, "it is not run again")
		})
	}
}

// TestDrain: what SIGTERM does to a running step is the operator's choice.
func TestDrain(t *testing.T) {
	t.Run("goes on", func(t *testing.T) {
		agent, image := node(t)
		dir := t.TempDir()
		req := shell(image, "echo up; while ! test -e /sync/go; do usleep 10000; done; exit 4", "-v", dir+":/sync")
		id := submit(t, agent, req)
		said(t, agent, id, "up")
		assert.Zero(t, agent.Stop())
		agent.Launch()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
		assert.Equal(t, 4, *ended(t, agent, id).Outcome.ExitCode)
	})
	t.Run("stops", func(t *testing.T) {
		agent, image := node(t, harness.WithFlags("--stop-on-exit"))
		id := submit(t, agent, shell(image, "trap 'exit 5' TERM; echo up; while :; do usleep 10000; done"))
		said(t, agent, id, "up")
		assert.Zero(t, agent.Stop())
		agent.Launch()
		run := ended(t, agent, id)
		assert.Equal(t, api.Aborted, run.State, "%+v", run.Outcome)
		assert.Equal(t, "agent_stopped", run.Outcome.Code)
		assert.Equal(t, 5, *run.Outcome.ExitCode)
	})
}

// TestShimKilled: nobody can know how the container ended, and the agent says so.
func TestShimKilled(t *testing.T) {
	agent, image := node(t)
	id := submit(t, agent, shell(image, "echo up; sleep 60"))
	said(t, agent, id, "up")
	var run api.Run
	require.Eventually(t, func() (running bool) { // the output may come before the state
		var err error
		run, err = agent.Client.Run(within(t, 10*time.Second), id)
		return err == nil && run.Pid > 0
	}, time.Minute, time.Millisecond)
	shim := parent(t, run.Pid)
	require.NotEqual(t, agent.Pid(), shim)
	process, err := os.FindProcess(shim)
	require.NoError(t, err)
	require.NoError(t, process.Kill())
	run = ended(t, agent, id)
	assert.Equal(t, api.Lost, run.State, "%+v", run.Outcome)
	assert.Equal(t, "lost", run.Outcome.Code)
	assert.Nil(t, run.Outcome.ExitCode)
	assert.Zero(t, agent.Careen("run", "--rm", image, "true").Code, "and the next step runs")
}

// parent reads a process's parent.
func parent(t *testing.T, pid int) (ppid int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	_, err = fmt.Sscan(strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))[1], &ppid)
	require.NoError(t, err)
	return ppid
}
