package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/harness"
)

// campaign reads how often something is done: CI's number, or more by a variable.
func campaign(t *testing.T, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, variable)
	return n
}

// TestCrashCampaign kills the agent at random moments while it pulls, creates,
// runs, stops and deletes. Each container leaves a line on the node as its first
// act, as a flashed chip would: one that has two was run twice.
//
// CAREEN_CAMPAIGN is the number of kills (10), CAREEN_SEED repeats a campaign.
func TestCrashCampaign(t *testing.T) {
	kills := campaign(t, "CAREEN_CAMPAIGN", 10)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAREEN_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("CAREEN_SEED=%d CAREEN_CAMPAIGN=%d", seed, kills)
	dice := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test that repeats
	agent, image := node(t, harness.WithFlags("--queue", "64"))
	effects := t.TempDir()

	lines := []string{
		"true", "exit 3", "usleep 50000", "usleep 300000; exit 4", "trap 'exit 0' TERM; sleep 30 & wait",
		"trap '' TERM; while :; do usleep 10000; done",
	}
	var accepted []string
	for kill := range kills {
		for range 1 + dice.IntN(3) {
			id := fmt.Sprintf("c%d", len(accepted))
			req := shell(image, "echo x >> /effects/"+id+"; echo ran; "+lines[dice.IntN(len(lines))], "-v", effects+":/effects")
			req.ID, req.Timeout = id, "2s"
			req.RunOptions = append(req.RunOptions.([]string), "--stop-timeout=1")
			if _, _, err := agent.Client.Submit(within(t, 20*time.Second), req); err != nil {
				t.Fatalf("run %s was refused: %v", id, err)
			}
			accepted = append(accepted, id)
		}
		if dice.IntN(4) == 0 {
			// An abort may find any state; that it came too late is an answer too.
			_, err := agent.Client.Abort(within(t, 20*time.Second), accepted[dice.IntN(len(accepted))], api.AbortRequest{Grace: "50ms"})
			assert.Contains(t, []fault.Code{"", fault.Conflict}, fault.CodeOf(err), "%v", err)
		}
		time.Sleep(time.Duration(dice.IntN(600)) * time.Millisecond)
		agent.Kill()
		if kill%5 == 4 {
			// A crash while the agent recovers from one.
			agent.LaunchOnly()
			time.Sleep(time.Duration(dice.IntN(200)) * time.Millisecond)
			agent.Kill()
		}
		agent.Launch()
	}

	outcomes := map[string]int{}
	for _, id := range accepted {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		run, err := agent.Client.Wait(ctx, id)
		cancel()
		require.NoError(t, err, "run %s has no end", id)
		require.True(t, run.State.Final(), "run %s is %s", id, run.State)
		require.NotNil(t, run.Outcome, id)
		outcomes[string(run.State)+" "+run.Outcome.Code]++
		if run.Outcome.Code == string(fault.Signalled) {
			// Nobody sends signals here but careen, which knows why it does.
			t.Errorf("run %s: %s (stop reason %q)", id, run.Outcome.Message, run.StopReason)
		}
		data, err := os.ReadFile(filepath.Join(effects, id))
		had := strings.Count(string(data), "x")
		assert.LessOrEqual(t, had, 1, "run %s ran twice", id)
		if run.State == api.Succeeded {
			assert.NoError(t, err, "run %s succeeded and had no effect", id)
		}
	}
	t.Logf("%d runs, %d kills: %v", len(accepted), kills, outcomes)
}

// TestSoak: short runs in a row, with clients that poll, follow, stall and go away.
// What the agent holds afterwards is what it held after the first few.
//
// CAREEN_SOAK is the number of runs (40); an eighth of it, at least 5, are clients.
func TestSoak(t *testing.T) {
	runs := campaign(t, "CAREEN_SOAK", 40)
	agent, image := node(t)
	run := func(i int) {
		id := submit(t, agent, shell(image, "echo "+itoa(i)))
		require.Equal(t, api.Succeeded, ended(t, agent, id).State)
		require.NoError(t, agent.Client.Delete(within(t, 10*time.Second), id))
	}
	for i := range 5 {
		run(i)
	}
	type holding struct{ fds, goroutines, memory float64 }
	settled := func() (h holding) {
		read := func() holding {
			return holding{agent.Metric("process_open_fds"), agent.Metric("go_goroutines"), agent.Metric("process_resident_memory_bytes")}
		}
		// Connections that clients gave up take a moment to go.
		require.Eventually(t, func() bool {
			before := h
			h = read()
			return before.fds == h.fds && before.goroutines == h.goroutines
		}, 20*time.Second, 100*time.Millisecond)
		return h
	}
	first := settled()
	ctx, stop := context.WithCancel(context.Background())
	done := clients(ctx, agent, min(50, max(5, runs/8)))
	began := time.Now()
	for i := range runs {
		run(i)
	}
	took := time.Since(began)
	stop()
	for range cap(done) {
		<-done
	}
	last := settled()
	t.Logf("%d runs in %s, %s each; before %+v, after %+v", runs, took.Round(time.Millisecond), (took / time.Duration(runs)).Round(time.Millisecond), first, last)
	assert.LessOrEqual(t, last.fds, first.fds+5, "file descriptors")
	assert.LessOrEqual(t, last.goroutines, first.goroutines+5, "goroutines")
	assert.LessOrEqual(t, last.memory, first.memory+float64(48<<20), "resident memory: what Go keeps, and no more with more runs")
}

// clients are what an agent has to do with at once: they poll, list, follow events
// and logs, and leave when they like.
func clients(ctx context.Context, agent *harness.Agent, n int) chan struct{} {
	done := make(chan struct{}, n)
	for i := range n {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				// What they are told does not matter: the run may be gone already.
				runs, err := agent.Client.Runs(ctx)
				if err != nil || len(runs) == 0 {
					time.Sleep(5 * time.Millisecond)
					continue
				}
				id := runs[len(runs)-1].ID
				brief, cancel := context.WithTimeout(ctx, time.Duration(20+i)*time.Millisecond)
				switch i % 4 {
				case 0:
					_, _ = agent.Client.Run(brief, id)
				case 1:
					_ = agent.Client.Events(brief, id, 0, func(api.Event) error { return nil })
				case 2:
					_ = agent.Client.Logs(brief, id, logsFollowed, func(api.LogLine, []byte) error {
						<-brief.Done() // a reader that has stopped reading
						return nil
					})
				case 3:
					_, _ = agent.Client.WaitOnce(brief, id, time.Second)
				}
				cancel()
				time.Sleep(20 * time.Millisecond)
			}
		}()
	}
	return done
}
