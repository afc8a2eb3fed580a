package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/runtime/container"
)

// scenario is one story: a container that does what its script says, things that
// happen to it, and everything that the agent tells of it, to the moment.
type scenario struct {
	name string
	// image is a script of package agenttest.
	image string
	// request are words that set members of the request, or of what it resolves to.
	request string
	// happens are things at times: "5s abort, 6s exit 0". What happens at one time
	// happens in that order, each after all of what came before it has settled.
	happens string
	// want are the changes of state with their times, and the outcome.
	want string
}

var scenarios = []scenario{
	{"success", "pull=2s/create=1s/run=10s", "", "",
		"0s queued, 0s pulling, 2s creating, 3s running, 13s succeeded exit=0"},
	{"failure", "run=10s/exit=3", "", "", "0s queued, 0s pulling, 0s creating, 0s running, 10s failed exit exit=3"},
	{"ends at once", "run=0s", "", "", "0s queued, 0s pulling, 0s creating, 0s running, 0s succeeded exit=0"},
	{"killed by a signal", "run=1s/signal=11", "", "", "0s queued, 0s pulling, 0s creating, 0s running, 1s failed signalled exit=139"},
	{"out of memory", "run=1s/signal=9/oom=1", "", "", "0s queued, 0s pulling, 0s creating, 0s running, 1s failed oom exit=137"},
	{"out of memory inside, and fine", "run=1s/oom=1", "", "", "0s queued, 0s pulling, 0s creating, 0s running, 1s succeeded exit=0"},

	{"pull fails", "pull=2s/pullerr=image_not_found", "", "", "0s queued, 0s pulling, 2s failed image_not_found exit=125"},
	{"create fails", "createerr=node", "", "", "0s queued, 0s pulling, 0s creating, 0s failed node exit=125"},
	{"no such command", "starterr=command_absent", "", "", "0s queued, 0s pulling, 0s creating, 0s failed command_absent exit=127"},
	{"command not executable", "starterr=command_denied", "", "", "0s queued, 0s pulling, 0s creating, 0s failed command_denied exit=126"},

	{"abort while it runs", "run=forever", "", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 5s aborted aborted exit=143"},
	{"abort, and it ends well", "run=forever/term=2s:0", "", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 7s aborted aborted exit=0"},
	{"abort, and it does not hear", "run=forever/term=ignore", "", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 15s aborted aborted exit=137"},
	{"abort with the container's own grace", "run=forever/term=ignore/grace=3s", "", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 8s aborted aborted exit=137"},
	{"abort with a grace", "run=forever/term=ignore/grace=3s", "", "5s abort 1s",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 6s aborted aborted exit=137"},
	{"abort again, with less grace", "run=forever/term=ignore", "", "5s abort, 7s abort 1s",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 7s aborted aborted exit=137"},
	{"abort, and nothing helps", "run=forever/term=ignore/kill=ignore", "", "5s abort, 60s exit 0",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 45s failed stuck"},
	{"abort while it pulls", "pull=1h", "", "5s abort", "0s queued, 0s pulling, 5s stopping, 5s aborted aborted"},
	{"abort while it is created", "create=1h", "", "5s abort", "0s queued, 0s pulling, 0s creating, 5s stopping, 5s aborted aborted"},
	{"abort twice while it pulls", "pull=1h", "", "5s abort, 5s abort: conflict", "0s queued, 0s pulling, 5s stopping, 5s aborted aborted"},

	{"exit, then abort", "run=forever", "", "5s exit 0, 5s abort: conflict",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s succeeded exit=0"},
	{"abort, then exit", "run=forever/term=ignore", "", "5s abort, 5s exit 0",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 5s aborted aborted exit=0"},
	{"timeout, then exit", "run=forever/term=ignore", "timeout=5s", "6s exit 0",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 6s timed_out timeout exit=0"},
	{"exit, then timeout", "run=4s", "timeout=5s", "6s nothing", "0s queued, 0s pulling, 0s creating, 0s running, 4s succeeded exit=0"},
	{"timeout, then abort", "run=forever/term=ignore", "timeout=5s", "6s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 15s timed_out timeout exit=137"},
	{"abort, then timeout", "run=forever/term=ignore", "timeout=6s", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 15s aborted aborted exit=137"},
	{"abort, timeout, exit", "run=forever/term=ignore", "timeout=6s", "5s abort, 7s exit 9",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 7s aborted aborted exit=9"},
	{"timeout, abort, exit", "run=forever/term=ignore", "timeout=5s", "6s abort, 7s exit 9",
		"0s queued, 0s pulling, 0s creating, 0s running, 5s stopping, 7s timed_out timeout exit=9"},
	{"timeout while it pulls", "pull=1h", "timeout=5s", "", "0s queued, 0s pulling, 5s stopping, 5s timed_out timeout"},
	{"timeout counts the pull", "pull=4s/run=forever", "timeout=5s", "",
		"0s queued, 0s pulling, 4s creating, 4s running, 5s stopping, 5s timed_out timeout exit=143"},
	{"podman's --timeout kills", "pull=4s/run=forever/ptimeout=5s", "", "",
		"0s queued, 0s pulling, 4s creating, 4s running, 9s stopping, 9s timed_out timeout exit=137"},
	{"silence", "run=forever", "silence=5s", "2.9s print x",
		"0s queued, 0s pulling, 0s creating, 0s running, 8s stopping, 8s timed_out silence_timeout exit=143"},
	{"a pull that stalls", "pull=100h/pullsilent=1", "", "", "0s queued, 0s pulling, 10m0s stopping, 10m0s failed stalled"},

	{"a critical section holds off abort", "run=forever/critical=60", "", "5s abort, 19.9s uncritical",
		"0s queued, 0s pulling, 0s creating, 0s running, 20s stopping, 20s aborted aborted exit=143"},
	{"up to the limit it claims", "run=forever/critical=30", "", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 30s stopping, 30s aborted aborted exit=143"},
	{"up to the operator's limit", "run=forever/critical=99999", "", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 30m0s stopping, 30m0s aborted aborted exit=143"},
	{"a critical section holds off a timeout", "run=forever/critical=60", "timeout=5s", "19.9s uncritical",
		"0s queued, 0s pulling, 0s creating, 0s running, 20s stopping, 20s timed_out timeout exit=143"},
	{"it ends in its critical section", "run=10s/critical=60", "", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 10s succeeded exit=0"},
	{"exit and abort in a critical section", "run=forever/critical=60", "", "5s abort, 7s exit 4, 7s abort: conflict",
		"0s queued, 0s pulling, 0s creating, 0s running, 7s failed exit exit=4"},
	{"a container that is critical as a whole ends by itself", "run=20m", "critical", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 20m0s succeeded exit=0"},
	{"or is ended at the operator's limit", "run=forever", "critical", "5s abort",
		"0s queued, 0s pulling, 0s creating, 0s running, 30m5s stopping, 30m5s aborted aborted exit=143"},
	{"which holds for its timeout too", "run=forever", "critical timeout=1h", "",
		"0s queued, 0s pulling, 0s creating, 0s running, 1h30m0s stopping, 1h30m0s timed_out timeout exit=143"},

	{"reboot by exit code", "run=1s/exit=42", "reboot=42", "", "0s queued, 0s pulling, 0s creating, 0s running, 1s succeeded exit=42 reboot"},
	{"reboot by reboot(2)", "run=1s/signal=1/reboot=restart", "", "", "0s queued, 0s pulling, 0s creating, 0s running, 1s succeeded exit=0 reboot"},
	{"halt by reboot(2)", "run=1s/signal=2/reboot=halt", "", "", "0s queued, 0s pulling, 0s creating, 0s running, 1s failed signalled exit=130"},
	{"reboot by result", `run=1s/result={"reboot":true,"reason":"new firmware"}`, "", "",
		"0s queued, 0s pulling, 0s creating, 0s running, 1s succeeded exit=0 reboot"},
	{"a result that wants nothing", `run=1s/result={"reboot":"yes"}`, "", "",
		"0s queued, 0s pulling, 0s creating, 0s running, 1s succeeded exit=0"},
	{"the exit is unknown", "run=forever", "", "5s forget",
		"0s queued, 0s pulling, 0s creating, 0s running, 35s lost lost"},
	{"the runtime is away for a while", "run=20s", "", "5s break, 10s mend",
		"0s queued, 0s pulling, 0s creating, 0s running, 20s succeeded exit=0"},
}

func TestScenarios(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(t, sc) })
		})
	}
}

// play acts one scenario out.
func play(t *testing.T, sc scenario) {
	began := time.Now()
	rg := newRig(t)
	req := api.RunRequest{ID: "s", Image: sc.image}
	for _, word := range strings.Fields(sc.request) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "timeout":
			req.Timeout = value
		case "silence":
			req.SilenceTimeout = value
		case "reboot":
			var code int
			_, err := fmt.Sscan(value, &code)
			require.NoError(t, err)
			req.RebootExitCodes = []int{code}
		case "critical":
			rg.resolver.Change = func(_ *api.RunRequest, res *policy.Resolved) error {
				res.Parts[0].Critical = true
				return nil
			}
		}
	}
	rg.submit(t, req)
	synctest.Wait()
	for _, step := range strings.Split(sc.happens, ", ") {
		if step == "" {
			continue
		}
		at, act, _ := strings.Cut(step, " ")
		d, err := time.ParseDuration(at)
		require.NoError(t, err)
		time.Sleep(d - time.Since(began))
		synctest.Wait()
		rg.act(t, act)
		synctest.Wait()
	}
	v := rg.end(t, "s")
	require.Equal(t, sc.want, rg.story(t, began, v))
	// Whatever happened: nothing of the container is left, and it started once at most.
	time.Sleep(time.Hour)
	synctest.Wait()
	require.Nil(t, rg.runner.Container("s"))
	starts := 0
	for _, call := range rg.runner.Trace() {
		if call == "start s" {
			starts++
		}
	}
	require.LessOrEqual(t, starts, 1)
	require.NoError(t, rg.Close())
}

// act does what a scenario says happens.
func (r *rig) act(t *testing.T, text string) {
	t.Helper()
	text, code, _ := strings.Cut(text, ": ")
	word, rest, _ := strings.Cut(text, " ")
	var err error
	switch word {
	case "abort":
		_, err = r.Abort(context.Background(), "s", api.AbortRequest{Reason: "the test", Grace: rest})
	case "exit":
		var exit container.Exit
		_, scanErr := fmt.Sscan(rest, &exit.Code)
		require.NoError(t, scanErr)
		r.runner.End("s", exit)
	case "print":
		r.runner.Println("s", rest)
	case "uncritical":
		err = r.runner.Remove("s", "critical")
	case "forget":
		r.runner.Forget("s")
	case "break":
		r.runner.Break(fmt.Errorf("containerd is away"))
	case "mend":
		r.runner.Break(nil)
	case "nothing":
	default:
		t.Fatalf("nothing is known of %q", word)
	}
	require.Equal(t, code, string(fault.CodeOf(err)), "%v", err)
}

// story tells what the events and the outcome of a run say.
func (r *rig) story(t *testing.T, began time.Time, v api.Run) string {
	var parts []string
	for _, e := range r.events(t, v.ID) {
		if e.Type == "state" {
			parts = append(parts, fmt.Sprintf("%v %s", e.Time.Sub(began).Round(time.Millisecond), e.State))
		}
	}
	tale := strings.Join(parts, ", ")
	if v.Outcome.Code != "" {
		tale += " " + v.Outcome.Code
		require.NotEmpty(t, v.Outcome.Message)
	}
	if v.Outcome.ExitCode != nil {
		tale += fmt.Sprintf(" exit=%d", *v.Outcome.ExitCode)
	}
	if v.Outcome.RebootRequested {
		tale += " reboot"
	}
	return tale
}

// events reads the events of a run that has ended over the API.
func (r *rig) events(t *testing.T, id string) []api.Event {
	t.Helper()
	return r.eventsAfter(t, t.Context(), id, 0)
}

// eventsAfter reads those that follow seq, until there will be no more or ctx ends.
func (r *rig) eventsAfter(t *testing.T, ctx context.Context, id string, seq int64) []api.Event {
	t.Helper()
	w := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/v1/runs/"+id+"/events", nil)
	req.Header.Set("Last-Event-ID", fmt.Sprint(seq))
	r.Handler().ServeHTTP(w, req.WithContext(httpd.WithPeer(ctx, root)))
	require.Equal(t, http.StatusOK, w.Code)
	var events []api.Event
	for lines := bufio.NewScanner(w.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var e api.Event
			require.NoError(t, json.Unmarshal([]byte(data), &e))
			events = append(events, e)
		}
	}
	return events
}
