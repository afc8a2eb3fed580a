package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
)

// The campaign's environment: the child's directory and its failpoint as
// "NAME COUNT", and for a longer campaign by hand the number of kills and the seed.
const (
	childEnv     = "CAREEN_TEST_CHILD"
	failpointEnv = "CAREEN_TEST_FAILPOINT"
	killsEnv     = "CAREEN_TEST_KILLS"
	seedEnv      = "CAREEN_TEST_SEED"
)

// failpoints are all places between two steps where an agent is killed.
var failpoints = []string{
	"agent.request-kept", "agent.before-record", "agent.after-record", "agent.before-create", "agent.after-create",
	"agent.before-start", "agent.after-start", "agent.before-exit", "agent.before-delete", "agent.after-delete",
	"agent.image-ready", "agent.spec-kept", "agent.log-kept", "agent.events-kept", "agent.request-removed",
	"agent.before-final", "agent.after-final", "agent.before-audit", "agent.after-audit",
	"journal.before-write", "journal.torn", "journal.before-sync",
}

// runChild is an agent over a DiskRunner in a process of its own, which kills
// itself at its failpoint.
func runChild() {
	dir := os.Getenv(childEnv)
	die := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	name, count, _ := strings.Cut(os.Getenv(failpointEnv), " ")
	left, _ := strconv.ParseInt(count, 10, 64)
	var hits atomic.Int64
	hits.Store(left)
	a, err := agent.New(agent.Config{
		Resolver: &agenttest.Resolver{}, Config: exec.Config{
			Runner: &agenttest.DiskRunner{Dir: filepath.Join(dir, "disk")}, Log: log,
			RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), Persistent: true, QueueLimit: 100,
			KeepRuns: 100_000, KeepLogs: 100_000, Slots: 2,
			Failpoint: func(at string) {
				if at == name && hits.Add(-1) == 0 {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {}
				}
			},
		}})
	if err != nil {
		die(err)
	}
	if err := a.Recover(context.Background()); err != nil {
		die(err)
	}
	ln, err := httpd.Listen(filepath.Join(dir, "sock"), os.Getuid())
	if err != nil {
		die(err)
	}
	die(a.Serve(context.Background(), ln))
}

// campaign drives children and knows what it asked for.
type campaign struct {
	dir    string
	rand   *rand.Rand
	client *client.Client
	asked  map[string]*asked
	next   int
	killed int
	atFail map[string]int
}

// asked is one run that the driver wants.
type asked struct {
	image   string
	code    int
	taken   bool // the agent said so
	aborted bool
}

func TestKillAtAnyPointLosesAndRepeatsNothing(t *testing.T) {
	kills, seed := 200, uint64(time.Now().UnixNano())
	if testing.Short() {
		kills = 25
	}
	if text := os.Getenv(killsEnv); text != "" {
		kills, _ = strconv.Atoi(text)
	}
	if text := os.Getenv(seedEnv); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("%d kills with %s=%d", kills, seedEnv, seed)
	// A unix socket's path is short.
	dir, err := os.MkdirTemp("", "careen")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	c := &campaign{dir: dir, rand: rand.New(rand.NewPCG(seed, 0)), client: client.New(filepath.Join(dir, "sock")),
		asked: map[string]*asked{}, atFail: map[string]int{}}
	defer c.client.Close()
	for c.killed < kills {
		c.round(t)
	}
	c.settle(t)
	t.Logf("%d runs, killed at failpoints %v", len(c.asked), c.atFail)
}

// child starts an agent, with a failpoint or none.
func (c *campaign) child(t *testing.T, failpoint string) (*osexec.Cmd, <-chan error) {
	cmd := osexec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+c.dir, failpointEnv+"="+failpoint)
	out, err := os.Create(filepath.Join(c.dir, "output"))
	require.NoError(t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return cmd, done
}

// said is what the last child had to say: nothing, if all is well.
func (c *campaign) said(t *testing.T) string {
	data, err := os.ReadFile(filepath.Join(c.dir, "output"))
	require.NoError(t, err)
	return string(data)
}

// round has one agent live and die.
func (c *campaign) round(t *testing.T) {
	failpoint := ""
	if c.rand.IntN(4) > 0 {
		failpoint = fmt.Sprintf("%s %d", failpoints[c.rand.IntN(len(failpoints))], 1+c.rand.IntN(8))
	}
	life := 20*time.Millisecond + time.Duration(c.rand.IntN(300))*time.Millisecond
	cmd, done := c.child(t, failpoint)
	ctx, cancel := context.WithCancel(t.Context())
	driven := make(chan struct{})
	go func() {
		defer close(driven)
		c.drive(ctx)
	}()
	if failpoint != "" {
		life += 400 * time.Millisecond // to get there
	}
	select {
	case <-done:
		require.Empty(t, c.said(t), "the agent ended by itself")
		c.atFail[strings.Fields(failpoint)[0]]++
	case <-time.After(life):
		if err := cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) { // the failpoint may have been as late
			require.NoError(t, err)
		}
		<-done
		require.Empty(t, c.said(t))
	}
	c.killed++
	cancel()
	<-driven
	c.client.Close()
}

// drive asks for runs, asks again for old ones, and aborts some, until ctx ends.
func (c *campaign) drive(ctx context.Context) {
	for ctx.Err() == nil {
		id := c.pick()
		want := c.asked[id]
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, isNew, err := c.client.Submit(short, api.RunRequest{ID: id, Image: want.image})
		switch {
		case err == nil:
			want.taken = true
			if isNew && c.rand.IntN(8) == 0 {
				if _, err := c.client.Abort(short, id, api.AbortRequest{}); err == nil {
					want.aborted = true
				} else if fault.CodeOf(err) != fault.Conflict {
					want.aborted = true // the agent may have taken it or not
				}
			}
		case fault.CodeOf(err) == fault.Unreachable:
			time.Sleep(2 * time.Millisecond)
		}
		cancel()
	}
}

// pick chooses an id: mostly a new one, else one that was asked for before.
func (c *campaign) pick() string {
	if c.next > 0 && c.rand.IntN(3) == 0 {
		return fmt.Sprintf("r%d", c.rand.IntN(c.next))
	}
	if c.next > 0 {
		if last := fmt.Sprintf("r%d", c.next-1); !c.asked[last].taken {
			return last // no new one before the last was taken
		}
	}
	id := fmt.Sprintf("r%d", c.next)
	c.next++
	code := c.rand.IntN(4)
	c.asked[id] = &asked{code: code, image: fmt.Sprintf("pull=%dms/run=%dms/exit=%d", c.rand.IntN(5), c.rand.IntN(40), code)}
	return id
}

// settle lets everything end under an agent that is left alone, and checks.
func (c *campaign) settle(t *testing.T) {
	cmd, done := c.child(t, "")
	defer func() {
		_ = cmd.Process.Kill()
		<-done
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	require.NoError(t, c.client.WaitReady(ctx))
	for id, want := range c.asked {
		if !want.taken {
			continue
		}
		v, err := c.client.Wait(ctx, id)
		require.NoError(t, err, "run %s was taken and is not known any more", id)
		c.checkRun(t, id, want, v)
		c.checkEvents(ctx, t, v)
	}
	runner := &agenttest.DiskRunner{Dir: filepath.Join(c.dir, "disk")}
	effects, err := runner.Effects()
	require.NoError(t, err)
	for id, n := range effects {
		require.Equal(t, 1, n, "run %s was started %d times", id, n)
		require.Contains(t, c.asked, id)
	}
	for id, want := range c.asked {
		if want.taken && !want.aborted {
			require.Equal(t, 1, effects[id], "run %s never ran", id)
		}
	}
	c.checkLeaks(t)
	c.checkAudit(t)
}

// checkRun compares one run's outcome with what it has to be.
func (c *campaign) checkRun(t *testing.T, id string, want *asked, v api.Run) {
	text, err := json.Marshal(v)
	require.NoError(t, err)
	require.NotNil(t, v.Outcome, "%s", text)
	if want.aborted && v.State == api.Aborted {
		return
	}
	require.NotNil(t, v.Outcome.ExitCode, "%s", text)
	require.Equal(t, want.code, *v.Outcome.ExitCode, "%s", text)
	require.JSONEq(t, fmt.Sprintf(`{"run":%q}`, id), string(v.Outcome.Result), "%s", text)
	state := api.Succeeded
	if want.code != 0 {
		state = api.Failed
	}
	require.Equal(t, state, v.State, "%s", text)
}

// checkEvents wants the events of a run to tell its whole life, however many agents it
// was under.
func (c *campaign) checkEvents(ctx context.Context, t *testing.T, v api.Run) {
	var states []api.State
	var last int64
	require.NoError(t, c.client.Events(ctx, v.ID, 0, func(e api.Event) error {
		require.Greater(t, e.Seq, last)
		last = e.Seq
		if e.Type == "state" {
			states = append(states, e.State)
		}
		return nil
	}))
	require.NotEmpty(t, states, "run %s", v.ID)
	require.Equal(t, api.Queued, states[0], "run %s: %v", v.ID, states)
	require.Equal(t, v.State, states[len(states)-1], "run %s: %v", v.ID, states)
}

// checkLeaks looks for what killed agents may have left.
func (c *campaign) checkLeaks(t *testing.T) {
	var left []string
	gone := func() bool {
		left = nil
		for _, dir := range []string{"run/runs", "run/requests", "run/events", "disk/containers"} {
			files, err := filepath.Glob(filepath.Join(c.dir, dir, "*"))
			require.NoError(t, err)
			left = append(left, files...)
		}
		return len(left) == 0
	}
	for deadline := time.Now().Add(5 * time.Second); !gone() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	require.Empty(t, left)
	var metrics bytes.Buffer
	require.NoError(t, c.client.Metrics(t.Context(), &metrics))
	for line := range strings.Lines(metrics.String()) {
		if n, ok := strings.CutPrefix(line, "process_open_fds "); ok {
			fds, err := strconv.Atoi(strings.TrimSpace(n))
			require.NoError(t, err)
			require.Less(t, fds, 40)
		}
	}
}

// checkAudit wants each run in the audit record exactly once.
func (c *campaign) checkAudit(t *testing.T) {
	var audit bytes.Buffer
	require.NoError(t, c.client.Audit(t.Context(), &audit))
	seen := map[string]int{}
	torn := 0
	for line := range strings.Lines(audit.String()) {
		var rec api.AuditRecord
		if json.Unmarshal([]byte(line), &rec) != nil {
			torn++
			continue
		}
		if rec.Event == "run" { // and not a refusal while the queue was full
			seen[rec.Run]++
		}
	}
	for id, want := range c.asked {
		if want.taken {
			require.Equal(t, 1, seen[id], "audit records of run %s", id)
		}
	}
	require.LessOrEqual(t, torn, c.killed)
}
