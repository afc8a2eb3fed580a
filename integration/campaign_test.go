package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// failpoints are the places between two steps of the agent, of its journal and of
// the runtime below it. The campaign kills at each of them at least once.
var failpoints = []string{
	"agent.request-kept", "agent.before-record", "agent.after-record", "agent.image-ready", "agent.before-create",
	"agent.after-create", "agent.spec-kept", "agent.before-start", "agent.after-start", "agent.before-exit",
	"agent.before-delete", "agent.after-delete", "agent.log-kept", "agent.before-final", "agent.after-final",
	"agent.before-audit", "agent.after-audit", "agent.events-kept", "agent.request-removed",
	"journal.before-write", "journal.torn", "journal.before-sync",
	"runtime.leased", "runtime.layer-made", "runtime.layer-mounted", "runtime.control-mounted",
	"runtime.container-made", "runtime.task-made", "runtime.task-deleted", "runtime.container-deleted",
	"runtime.layer-deleted", "runtime.dir-cleared",
}

// rareFailpoints come up once in some hundred records: they are armed in every life
// of an agent until they have been met.
var rareFailpoints = []string{"journal.compact-before-rename", "journal.compact-after-rename"}

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

// TestCrashCampaign kills agents with SIGKILL: at every failpoint, and at random
// moments while they start, recover, pull, create, run, stop and delete. Each
// container leaves a line on the node as its first act, as a flashed chip would, and
// a result and an exit code of its own: at the end every run that was acknowledged
// has just that, once, and nothing is left on the node.
//
// Two campaigns go on side by side. CAREEN_CAMPAIGN is the number of kills of both
// (200), CAREEN_SEED repeats what was drawn.
func TestCrashCampaign(t *testing.T) {
	kills := campaign(t, "CAREEN_CAMPAIGN", 200)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAREEN_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	fmt.Printf("campaign: CAREEN_SEED=%d CAREEN_CAMPAIGN=%d\n", seed, kills)
	for half := range uint64(2) {
		t.Run(fmt.Sprint("half ", half+1), func(t *testing.T) {
			t.Parallel()
			c := newCrashes(t, rand.New(rand.NewPCG(seed, half)), half)
			for c.kills < kills/2 {
				c.life(t)
				if c.kills%300 == 0 { // before the first of them are forgotten (KeepRuns)
					c.settle(t)
					c.agent.Kill()
				}
			}
			if len(c.rare) > 0 {
				c.due = append(c.due, c.rare...)
				c.rare = nil
				c.life(t)
			}
			require.Empty(t, c.due, "failpoints that no agent came to; give CAREEN_CAMPAIGN more kills")
			c.settle(t)
		})
	}
}

// crashes is one agent that is killed again and again, and who asks it for runs.
type crashes struct {
	agent   *harness.Agent
	dice    *rand.Rand
	image   string   // is in the store
	pulled  []string // are pulled for each run and removed with it
	effects string
	asked   []*asked
	settled int // how many of them have been checked
	// due are the failpoints still to be met, fired how often each was.
	due, rare []string
	fired     map[string]int
	kills     int
	written   int // of the agent's log
}

// asked is one run that the driver wants, and how it has to end.
type asked struct {
	req     api.RunRequest
	exit    int
	endless bool // ends by its limit only
	taken   bool // the agent said so
	aborted bool // an abort may have been heard
}

func newCrashes(t *testing.T, dice *rand.Rand, half uint64) *crashes {
	harness.NeedRoot(t)
	c := &crashes{dice: dice, effects: t.TempDir(), fired: map[string]int{}}
	reg := registry.Start(t)
	c.image, _ = reg.Push(t, tag, harness.Busybox(t))
	for i := range 2 {
		image := harness.Busybox(t, []registry.Entry{registry.File("own", strings.Repeat(itoa(i), 100_000))})
		ref, _ := reg.Push(t, fmt.Sprintf("own:%d", i), image)
		c.pulled = append(c.pulled, ref)
	}
	for i, name := range failpoints {
		if uint64(i%2) == half {
			c.due = append(c.due, name)
		}
	}
	c.rare = rareFailpoints[half : half+1]
	c.agent = harness.Start(t, harness.WithFlags("--queue", "64"))
	got := c.agent.Careen("pull", "--tls-verify=false", c.image)
	require.Zero(t, got.Code, "%s", got)
	c.agent.Kill()
	return c
}

// life has one agent live and die.
func (c *crashes) life(t *testing.T) {
	var armed []string
	if len(c.due) > 0 {
		armed = append(armed, c.due[0])
	} else if c.dice.IntN(2) == 0 {
		armed = append(armed, fmt.Sprintf("%s=%d", failpoints[c.dice.IntN(len(failpoints))], 1+c.dice.IntN(4)))
	}
	armed = append(armed, c.rare...)
	c.agent.SetEnv("CAREEN_FAILPOINT=" + strings.Join(armed, ","))
	c.agent.LaunchOnly()
	span, early := time.Duration(c.dice.IntN(900))*time.Millisecond, false
	switch {
	case len(c.due) > 0:
		span = 30 * time.Second // until it has come to its failpoint
	case c.dice.IntN(4) == 0:
		span, early = span/10, true // while it starts, or recovers from the crash before
	}
	ctx, cancel := context.WithCancel(t.Context())
	var driver sync.WaitGroup
	driver.Go(func() { c.drive(ctx) })
	if !early {
		c.ready(ctx)
	}
	select {
	case <-c.agent.Exited():
	case <-time.After(span):
	}
	c.agent.Kill()
	cancel()
	driver.Wait()
	c.kills++
	if c.kills%100 == 0 {
		// Seen by who waits for a long campaign with go test -v.
		fmt.Printf("campaign: %s: %d kills, %d runs\n", t.Name(), c.kills, len(c.asked))
	}
	c.took(t)
}

// ready waits until the agent answers, or has ended.
func (c *crashes) ready(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	go func() {
		select {
		case <-c.agent.Exited():
			cancel()
		case <-ctx.Done():
		}
	}()
	_ = c.agent.Client.WaitReady(ctx)
}

var firedLine = regexp.MustCompile(`killed at failpoint (\S+)`)

// took takes note of what ended the last agent.
func (c *crashes) took(t *testing.T) {
	said, written := c.agent.LogSince(c.written)
	c.written = written
	require.NotContains(t, said, "panic")
	m := firedLine.FindStringSubmatch(said)
	if m == nil {
		return
	}
	c.fired[m[1]]++
	if len(c.due) > 0 && c.due[0] == m[1] {
		c.due = c.due[1:]
	}
	if len(c.rare) > 0 && c.rare[0] == m[1] {
		c.rare = nil
	}
}

// drive asks for runs, asks again for those there are, and aborts some, until the
// agent is gone.
func (c *crashes) drive(ctx context.Context) {
	for ctx.Err() == nil {
		want, again := c.pick()
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		run, _, err := c.agent.Client.Submit(short, want.req)
		if err == nil {
			want.taken = true
			if !again && c.dice.IntN(8) == 0 {
				// An abort may find any state; that it came too late is an answer too.
				_, err := c.agent.Client.Abort(short, want.req.ID, api.AbortRequest{Grace: "50ms"})
				want.aborted = fault.CodeOf(err) != fault.Conflict
			}
		}
		pause := 2 * time.Millisecond
		if run.QueuePosition > 2 {
			pause = 100 * time.Millisecond
		}
		if err == nil && c.dice.IntN(3) == 0 {
			// Somebody who waits is there in most crashes.
			_, _ = c.agent.Client.WaitOnce(short, want.req.ID, 200*time.Millisecond)
		}
		cancel()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// pick chooses what to ask for: the last one until it is taken, a new one, or one
// that was asked for before.
func (c *crashes) pick() (want *asked, again bool) {
	if n := len(c.asked); n > 0 {
		if last := c.asked[n-1]; !last.taken {
			return last, false
		}
		if n > c.settled && c.dice.IntN(3) == 0 {
			return c.asked[c.settled+c.dice.IntN(n-c.settled)], true
		}
	}
	want = c.draw(fmt.Sprintf("c%d", len(c.asked)))
	c.asked = append(c.asked, want)
	return want, false
}

// draw makes up a run.
func (c *crashes) draw(id string) *asked {
	want := &asked{exit: c.dice.IntN(4)}
	image, options := c.image, []string{"-v", c.effects + ":/effects", "--stop-timeout=1",
		// Long records fill the journal, so that it is compacted now and then.
		"--label=pad=" + strings.Repeat("x", 2000)}
	act := "exit " + itoa(want.exit)
	switch c.dice.IntN(10) {
	case 0:
		act = fmt.Sprintf("usleep 300000; exit %d", want.exit)
	case 1:
		act, want.endless = "trap 'exit 0' TERM; sleep 30 & wait", true
	case 2:
		act, want.endless = "trap '' TERM; while :; do usleep 10000; done", true
		options[2] = "--stop-timeout=0"
	case 3, 4:
		image = c.pulled[c.dice.IntN(len(c.pulled))]
		options = append(options, "--rmi")
	case 5:
		// Mounts of its own and a daemon, which have to go with it.
		act = "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m; setsid sleep 60 & " + act
		options = append(options, "--privileged")
	}
	want.req = shell(image, fmt.Sprintf(`echo x >> /effects/%s; echo '{"run":"%s"}' > /run/careen/result.json; echo ran; %s`, id, id, act), options...)
	want.req.ID, want.req.PullOptions = id, []string{"--tls-verify=false"}
	want.req.Timeout = "10m"
	if want.endless {
		want.req.Timeout = "700ms"
	}
	return want
}

// settle lets everything end under an agent that is left alone, and checks.
func (c *crashes) settle(t *testing.T) {
	c.agent.SetEnv()
	c.agent.Launch()
	outcomes := map[string]int{}
	for _, want := range c.asked[c.settled:] {
		if want.taken {
			c.check(t, want, outcomes)
		}
	}
	c.checkAudit(t)
	for c.settled < len(c.asked) && c.asked[c.settled].taken {
		c.settled++
	}
	// What one agent holds after all that is what one holds that saw nothing.
	c.agent.Check()
	after := c.agent.Metric("process_open_fds")
	assert.LessOrEqual(t, after, float64(30), "file descriptors")
	fmt.Printf("campaign: %s: %d kills, of them at failpoints %v; %d runs: %v\n", t.Name(), c.kills, c.fired, len(c.asked), outcomes)
}

// check holds one run against what was asked for.
func (c *crashes) check(t *testing.T, want *asked, outcomes map[string]int) {
	id := want.req.ID
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	run, err := c.agent.Client.Wait(ctx, id)
	require.NoError(t, err, "run %s was acknowledged and has no end", id)
	require.NotNil(t, run.Outcome, "run %s is %s", id, run.State)
	o := run.Outcome
	outcomes[strings.TrimSpace(string(run.State)+" "+o.Code)]++
	data, err := os.ReadFile(filepath.Join(c.effects, id))
	had := strings.Count(string(data), "x")
	assert.LessOrEqual(t, had, 1, "run %s ran twice", id)
	text, _ := json.Marshal(run)
	switch run.State {
	case api.Aborted:
		assert.True(t, want.aborted, "nobody aborted %s", text)
		return
	case api.TimedOut:
		assert.True(t, want.endless, "%s", text)
		return
	}
	assert.Equal(t, 1, had, "run %s had no effect: %v, %s", id, err, text)
	assert.False(t, want.endless, "%s", text)
	state := api.Succeeded
	if want.exit != 0 {
		state = api.Failed
	}
	assert.Equal(t, state, run.State, "%s", text)
	if assert.NotNil(t, o.ExitCode, "%s", text) {
		assert.Equal(t, want.exit, *o.ExitCode, "%s", text)
	}
	if o.Result != nil || len(c.asked)-c.settled < 500 { // of more runs than are kept, only how they ended is
		assert.JSONEq(t, fmt.Sprintf(`{"run":%q}`, id), string(o.Result), "%s", text)
	}
}

// checkAudit wants each run in the audit record once.
func (c *crashes) checkAudit(t *testing.T) {
	var audit bytes.Buffer
	require.NoError(t, c.agent.Client.Audit(within(t, 20*time.Second), &audit))
	seen := map[string]int{}
	for line := range strings.Lines(audit.String()) {
		var rec api.AuditRecord
		if json.Unmarshal([]byte(line), &rec) == nil && rec.Event == "run" {
			seen[rec.Run]++
		}
	}
	for _, want := range c.asked[c.settled:] {
		if want.taken {
			assert.Equal(t, 1, seen[want.req.ID], "audit records of run %s", want.req.ID)
		}
	}
}
