package agent_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		runChild()
		return
	}
	goleak.VerifyTestMain(m)
}

var root = api.Peer{UID: 0, PID: 1, Command: "test"}

// rig is an agent on fakes.
type rig struct {
	*agent.Agent
	runner   *agenttest.Runner
	resolver *agenttest.Resolver
	cfg      agent.Config
}

// newConfig returns a configuration over fakes with directories of the test's own.
func newConfig(t testing.TB) agent.Config {
	dir := t.TempDir()
	log := logrus.New()
	log.SetOutput(io.Discard)
	if testing.Verbose() {
		log.SetOutput(os.Stderr)
	}
	began := time.Now()
	return agent.Config{
		Config: exec.Config{
			Runner: agenttest.NewRunner(), Log: log, BootID: "boot-1",
			RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
			Clock: func() time.Duration { return time.Hour + time.Since(began) },
		},
		Resolver: &agenttest.Resolver{},
		Version:  api.Version{Version: "test", APIVersion: "1"},
	}
}

// start makes an agent and has it recover.
func start(t testing.TB, cfg agent.Config) *rig {
	t.Helper()
	a, err := agent.New(cfg)
	require.NoError(t, err)
	require.NoError(t, a.Recover(context.Background()))
	rg := &rig{Agent: a, cfg: cfg}
	rg.runner, _ = cfg.Runner.(*agenttest.Runner)
	rg.resolver, _ = cfg.Resolver.(*agenttest.Resolver)
	return rg
}

func newRig(t testing.TB) *rig { return start(t, newConfig(t)) }

// again lets go of the agent and starts another one over the same containers.
func (r *rig) again(t testing.TB, change func(*agent.Config)) *rig {
	t.Helper()
	require.NoError(t, r.Close())
	cfg := r.cfg
	if change != nil {
		change(&cfg)
	}
	return start(t, cfg)
}

// submit asks for a run that has to be accepted.
func (r *rig) submit(t testing.TB, req api.RunRequest) api.Run {
	t.Helper()
	v, _, err := r.Submit(context.Background(), &req, root)
	require.NoError(t, err)
	return v
}

// end waits for a run's end.
func (r *rig) end(t testing.TB, id string) api.Run {
	t.Helper()
	// Not the test's context: cleanup waits too.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
	defer cancel()
	v, err := r.Wait(ctx, id)
	require.NoError(t, err)
	require.NotNil(t, v.Outcome, "run %s is %s", id, v.State)
	return v
}

// waitFor waits until a run is in a state.
func (r *rig) waitFor(t testing.TB, id string, state api.State) api.Run {
	t.Helper()
	var v api.Run
	require.Eventually(t, func() bool {
		var err error
		v, err = r.Run(id)
		return err == nil && v.State == state
	}, 10*time.Second, time.Millisecond, "run %s never gets to %s", id, state)
	return v
}

// drainAll ends every run.
func (r *rig) drainAll(t testing.TB) {
	t.Helper()
	for _, v := range r.Runs() {
		if !v.State.Final() {
			if _, err := r.Abort(context.Background(), v.ID, api.AbortRequest{Grace: "1ms", Force: true}); err != nil {
				require.Equal(t, fault.Conflict, fault.CodeOf(err), "%v", err) // it has just ended
			}
			r.end(t, v.ID)
		}
	}
}

// get asks the API without a socket, as root.
func (r *rig) get(t testing.TB, target string) *httptest.ResponseRecorder {
	t.Helper()
	return r.do(t, http.MethodGet, target, "", root)
}

// do asks the API without a socket.
func (r *rig) do(t testing.TB, method, target, body string, peer api.Peer) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Handler().ServeHTTP(w, req.WithContext(httpd.WithPeer(context.Background(), peer)))
	return w
}
