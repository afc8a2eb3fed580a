package integration

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
)

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
