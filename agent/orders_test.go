package agent_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

// TestOrders plays every order of abort, timeout and exit in simulated time, a second
// between two. integration plays the same table on real containers.
func TestOrders(t *testing.T) {
	for _, order := range agenttest.Orders {
		t.Run(strings.Join(order.Happens, ", "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rg := newRig(t)
				req := api.RunRequest{ID: "s", Image: "run=forever/term=ignore"}
				if at := slices.Index(order.Happens, "timeout"); at >= 0 {
					req.Timeout = fmt.Sprintf("%ds", at+1)
				}
				rg.submit(t, req)
				for _, what := range order.Happens {
					time.Sleep(time.Second)
					synctest.Wait()
					switch what {
					case "abort", "abort!":
						_, err := rg.Abort(context.Background(), "s", api.AbortRequest{})
						require.Equal(t, what == "abort!", fault.CodeOf(err) == fault.Conflict, "%v", err)
					case "exit":
						rg.runner.End("s", container.Exit{Code: 9})
					}
				}
				v := rg.end(t, "s")
				require.Equal(t, order.Story, agenttest.Story(rg.events(t, "s"), v))
				require.NoError(t, rg.Close())
			})
		})
	}
}
