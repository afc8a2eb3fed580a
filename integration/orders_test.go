package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/harness"
)

// TestOrders plays every order of abort, timeout and exit on real containers. The
// table is that of the agent's own test over a fake runtime.
func TestOrders(t *testing.T) {
	agent, image := node(t)
	for _, order := range agenttest.Orders {
		t.Run(strings.Join(order.Happens, ", "), func(t *testing.T) {
			// Where the machine is too slow for the order that is wanted, limits are longer.
			for unit := 500 * time.Millisecond; unit < 10*time.Second; unit *= 2 {
				if story, inOrder := play(t, agent, image, order, unit); inOrder {
					assert.Equal(t, order.Story, story)
					return
				}
			}
			t.Fatal("the machine is too slow to tell one thing from the next")
		})
	}
}

// play has things happen in their order, and returns what the run tells of it, or
// that they happened in another one.
func play(t *testing.T, agent *harness.Agent, image string, order agenttest.Order, unit time.Duration) (story string, inOrder bool) {
	dir := t.TempDir()
	req := shell(image, "trap '' TERM; touch /sync/up; while ! test -e /sync/go; do usleep 5000; done; exit 9", "-v", dir+":/sync")
	// An hour where it is to end by itself; else the ladder shall not take long.
	grace := "--stop-timeout=1"
	if slices.Contains(order.Happens, "exit") {
		grace = "--stop-timeout=3600"
	}
	req.RunOptions = append(req.RunOptions.([]string), grace)
	// What comes before the timeout gets time to; a timeout that comes first does not
	// come before the container runs.
	limit := unit * time.Duration(2+slices.Index(order.Happens, "timeout"))
	if slices.Contains(order.Happens, "timeout") {
		req.Timeout = limit.String()
	}
	began := time.Now()
	id := submit(t, agent, req)
	for _, what := range order.Happens {
		if run := up(t, agent, id, dir); run.State.Final() && what != "abort!" && what != "timeout" {
			return "", false
		}
		switch what {
		case "abort", "abort!":
			_, err := agent.Client.Abort(within(t, 10*time.Second), id, api.AbortRequest{})
			if late := fault.CodeOf(err) == fault.Conflict; late != (what == "abort!") {
				return "", false
			}
		case "exit":
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
			ended(t, agent, id)
		case "timeout":
			if order.Happens[0] != "timeout" && time.Since(began) >= limit {
				return "", false // it has passed before its turn
			}
			require.Eventually(t, func() bool {
				run, err := agent.Client.Run(within(t, 10*time.Second), id)
				return err == nil && (run.State.Final() || run.State == api.Stopping) && time.Since(began) > limit
			}, time.Minute, 5*time.Millisecond)
		}
	}
	run := ended(t, agent, id)
	var events []api.Event
	require.NoError(t, agent.Client.Events(within(t, 10*time.Second), id, 0, func(e api.Event) error {
		events = append(events, e)
		return nil
	}))
	story = agenttest.Story(events, run)
	return story, strings.HasPrefix(story, "running") && isUp(dir)
}

// up waits until a run's container is deaf to its stop signal, or has ended.
func up(t *testing.T, agent *harness.Agent, id, dir string) (run api.Run) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		run, err = agent.Client.Run(within(t, 10*time.Second), id)
		require.NoError(t, err)
		return run.State.Final() || isUp(dir)
	}, time.Minute, 5*time.Millisecond)
	return run
}

func isUp(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "up"))
	return err == nil
}
