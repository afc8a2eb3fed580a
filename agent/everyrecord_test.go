package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
)

// TestCrashAfterAnyRecordStillEnds takes the state directory as it is after each
// single record of some stories, and gives it to a new agent that finds no container
// any more: the run has an end under that one too, whatever it was about to do.
func TestCrashAfterAnyRecordStillEnds(t *testing.T) {
	for _, story := range []struct {
		name, image, timeout string
		abort                time.Duration // 0 for none
		exits                time.Duration
	}{
		{name: "success", image: "pull=1s/create=1s/run=5s"},
		{name: "failure", image: "pull=1s/run=5s/exit=3"},
		{name: "pull fails", image: "pull=1s/pullerr=network"},
		{name: "abort while it pulls", image: "pull=1h", abort: 5 * time.Second},
		{name: "abort while it is created", image: "create=1h", abort: 5 * time.Second},
		{name: "abort while it runs", image: "run=forever/term=ignore", abort: 5 * time.Second},
		{name: "abort in a critical section", image: "run=20s/critical=1", abort: 5 * time.Second},
		{name: "timeout while it pulls", image: "pull=1h", timeout: "5s"},
		{name: "timeout while it is created", image: "create=1h", timeout: "5s"},
		{name: "timeout while it runs", image: "run=forever/term=ignore", timeout: "5s"},
		{name: "reboot", image: `run=1s/result={"reboot":true}`},
	} {
		t.Run(story.name, func(t *testing.T) {
			copies := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				cfg := newConfig(t)
				records := 0
				cfg.Failpoint = func(name string) {
					if name == "agent.after-record" {
						records++
						require.NoError(t, os.CopyFS(filepath.Join(copies, fmt.Sprint(records)), os.DirFS(filepath.Dir(cfg.RunDir))))
					}
				}
				rg := start(t, cfg)
				rg.submit(t, api.RunRequest{ID: "s", Image: story.image, Timeout: story.timeout})
				if story.abort > 0 {
					time.Sleep(story.abort)
					synctest.Wait()
					_, err := rg.Abort(context.Background(), "s", api.AbortRequest{Grace: "1s"})
					require.NoError(t, err)
				}
				rg.end(t, "s")
				time.Sleep(time.Hour)
				synctest.Wait()
				require.NoError(t, rg.Close())
				require.Greater(t, records, 2)
				for n := range records {
					after(t, cfg, filepath.Join(copies, fmt.Sprint(n+1)), n+1)
				}
			})
		})
	}
}

// after starts an agent on a copy of the directories of one that crashed.
func after(t *testing.T, cfg agent.Config, dir string, n int) {
	cfg.Failpoint, cfg.Runner = nil, agenttest.NewRunner()
	cfg.RunDir, cfg.StateDir = filepath.Join(dir, "run"), filepath.Join(dir, "state")
	rg := start(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Hour)
	defer cancel()
	v, err := rg.Wait(ctx, "s")
	require.NoError(t, err)
	if !v.State.Final() {
		// It started again, and no client has asked for its end yet.
		_, _ = rg.Abort(context.Background(), "s", api.AbortRequest{})
		time.Sleep(time.Minute)
		v, err = rg.Run("s")
		require.NoError(t, err)
	}
	require.True(t, v.State.Final(), "after record %d it stays %s", n, v.State)
	require.NotNil(t, v.Outcome)
	require.NotEqual(t, "internal", v.Outcome.Code, "after record %d: %s", n, v.Outcome.Message)
	time.Sleep(time.Minute)
	synctest.Wait()
	for _, dir := range []string{"requests", "events"} {
		left, err := os.ReadDir(filepath.Join(cfg.RunDir, dir))
		require.NoError(t, err)
		require.Empty(t, left, "%s after record %d", dir, n)
	}
	var states []api.State
	for _, e := range rg.events(t, "s") {
		if e.Type == "state" {
			states = append(states, e.State)
		}
	}
	require.Equal(t, api.Queued, states[0], "events after record %d: %v", n, states)
	require.Equal(t, v.State, states[len(states)-1], "events after record %d: %v", n, states)
	require.NoError(t, rg.Close())
}
