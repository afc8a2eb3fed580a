package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/integration/harness"
)

// soakClients are how many clients an agent has at once.
const soakClients = 50

// TestSoak: short runs in a row under fifty clients that poll, wait, follow events
// and output, stop reading, abort, and go away. What the agent holds afterwards is
// what it held after the first of them.
//
// CAREEN_SOAK is the number of runs (100). With a binary built by go build -race, and
// CAREEN_RACE=1, the agent's log must not have a report of the race detector either.
func TestSoak(t *testing.T) {
	runs := campaign(t, "CAREEN_SOAK", 100)
	agent, image := node(t, harness.WithEnv("GORACE=halt_on_error=1"))
	s := &soak{agent: agent, image: image}
	s.phase(t, max(20, runs/5))
	first := s.holding(t)
	began := time.Now()
	s.phase(t, runs)
	took := time.Since(began)
	last := s.holding(t)
	fmt.Printf("soak: %d runs under %d clients, %v each, %d aborted, %d requests; before %v, after %v\n", runs, soakClients,
		(took / time.Duration(runs)).Round(time.Millisecond), s.aborted, s.requests, first, last)
	assert.LessOrEqual(t, last.fds, first.fds+2, "file descriptors")
	assert.LessOrEqual(t, last.goroutines, first.goroutines+2, "goroutines")
	assert.LessOrEqual(t, last.mounts, first.mounts, "mounts")
	// Go keeps as many threads as system calls ever blocked at once, here those of the
	// clients: what grows with the runs is beyond that.
	assert.LessOrEqual(t, last.threads, max(first.threads, soakClients)+8, "threads")
	if os.Getenv("CAREEN_RACE") == "" { // the detector keeps a history of its own
		assert.LessOrEqual(t, last.memory, first.memory+(16<<20), "resident memory")
	}
	assert.NotContains(t, agent.Log(), "DATA RACE")
}

// soak is an agent that is kept busy.
type soak struct {
	agent *harness.Agent
	image string
	next  int

	mu                sync.Mutex
	aborted, requests int
}

// holding is what a process has.
type holding struct{ fds, goroutines, threads, mounts, memory int }

func (h holding) String() string {
	return fmt.Sprintf("%d fds, %d goroutines, %d threads, %d mounts, %.1f MB", h.fds, h.goroutines, h.threads, h.mounts,
		float64(h.memory)/1e6)
}

// holding reads what the agent has once connections that clients gave up are gone.
func (s *soak) holding(t *testing.T) (h holding) {
	t.Helper()
	read := func() holding {
		proc := fmt.Sprintf("/proc/%d/", s.agent.Pid())
		mounts, err := os.ReadFile(proc + "mountinfo")
		require.NoError(t, err)
		return holding{
			fds: int(s.agent.Metric("process_open_fds")), goroutines: int(s.agent.Metric("go_goroutines")),
			threads: int(s.agent.Metric("process_threads")), memory: int(s.agent.Metric("process_resident_memory_bytes")),
			mounts: strings.Count(string(mounts), s.agent.RunDir+"/") + strings.Count(string(mounts), s.agent.Root+"/"),
		}
	}
	require.Eventually(t, func() bool {
		before := h
		h = read()
		return before.fds == h.fds && before.goroutines == h.goroutines && before.mounts == h.mounts
	}, 40*time.Second, 300*time.Millisecond)
	return h
}

// phase does so many runs under all clients.
func (s *soak) phase(t *testing.T, runs int) {
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range soakClients {
		clients.Go(func() { s.client(ctx, i) })
	}
	for range runs {
		s.run(t)
	}
	stop()
	clients.Wait()
	s.agent.Check()
}

// run is one step: mostly a quick one, now and then one that writes more than a
// reader who has stopped can take.
func (s *soak) run(t *testing.T) {
	line := "echo " + itoa(s.next)
	switch s.next % 10 {
	case 3:
		line = "yes 0123456789012345678901234567890123456789 | head -n 40000"
	case 7:
		line = "echo up; usleep 200000"
	}
	s.next++
	id := submit(t, s.agent, shell(s.image, line, "--stop-timeout=1"))
	run := ended(t, s.agent, id)
	if run.State == api.Aborted {
		s.aborted++
	} else {
		require.Equal(t, api.Succeeded, run.State, "%+v", run.Outcome)
	}
	if s.next%10 == 0 {
		s.agent.Note()
	}
	require.NoError(t, s.agent.Client.Delete(within(t, 10*time.Second), id))
}

// client does what its number says, over and over, with the newest run.
func (s *soak) client(ctx context.Context, number int) {
	c := client.New(s.agent.Socket)
	defer c.Close()
	for n := 0; ctx.Err() == nil; n++ {
		// What it is told does not matter: the run may be gone already.
		runs, err := c.Runs(ctx)
		if err == nil && len(runs) > 0 {
			brief, cancel := context.WithTimeout(ctx, time.Duration(50+10*number)*time.Millisecond)
			s.act(brief, c, runs[len(runs)-1].ID, number, n)
			cancel()
		}
		s.mu.Lock()
		s.requests += 2
		s.mu.Unlock()
		select {
		case <-time.After(150 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (s *soak) act(ctx context.Context, c *client.Client, id string, number, n int) {
	switch number % 8 {
	case 0:
		_, _ = c.Run(ctx, id)
	case 1:
		_ = c.Events(ctx, id, 0, func(api.Event) error { return nil })
	case 2:
		_ = c.Logs(ctx, id, logsFollowed, func(api.LogLine, []byte) error { return nil })
	case 3:
		_, _ = c.WaitOnce(ctx, id, time.Second)
	case 4:
		s.stall(ctx, "/v1/runs/"+id+"/logs?follow=true")
	case 5:
		s.stall(ctx, "/v1/runs/"+id+"/events")
	case 6:
		_ = c.Metrics(ctx, io.Discard)
	case 7:
		if number == 7 && n%16 == 0 {
			_, _ = c.Abort(ctx, id, api.AbortRequest{Grace: "20ms"})
			return
		}
		s.stall(ctx, "/v1/runs/"+id+"/bundle")
	}
}

// stall asks and does not read the answer.
func (s *soak) stall(ctx context.Context, path string) {
	conn, err := net.Dial("unix", s.agent.Socket)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: careen\r\n\r\n")
	<-ctx.Done()
}
