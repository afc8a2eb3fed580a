package httpd_test

import (
	"context"
	"io"
	"net/http/httptest"
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
	"github.com/careen-project/careen/agent/httpd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var root = api.Peer{UID: 0, PID: 1, Command: "test"}

// rig is an agent with a fake runner and a fake resolver.
type rig struct {
	*agent.Agent
	runner *agenttest.Runner
}

// newConfig returns a configuration over fakes with directories of the test's own.
func newConfig(t testing.TB) agent.Config {
	dir := t.TempDir()
	log := logrus.New()
	log.SetOutput(io.Discard)
	return agent.Config{
		Config: exec.Config{
			Runner: agenttest.NewRunner(), Log: log, BootID: "boot-1",
			RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
		},
		Resolver: &agenttest.Resolver{},
		Version:  api.Version{Version: "test", APIVersion: "1"},
	}
}

// start makes an agent, which ends its runs and is closed when the test ends.
func start(t testing.TB, cfg agent.Config) *rig {
	t.Helper()
	cfg.StopOnDrain, cfg.Grace = true, time.Millisecond
	a, err := agent.New(cfg)
	require.NoError(t, err)
	require.NoError(t, a.Recover(context.Background()))
	t.Cleanup(func() {
		require.NoError(t, a.Drain(context.Background(), false))
		require.NoError(t, a.Close())
	})
	return &rig{Agent: a, runner: cfg.Runner.(*agenttest.Runner)}
}

// submit asks for a run that has to be accepted, and waits until it is in a state.
func (r *rig) submit(t testing.TB, req api.RunRequest, state api.State) {
	t.Helper()
	v, _, err := r.Submit(t.Context(), &req, root)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		v, err := r.Run(v.ID)
		return err == nil && v.State == state
	}, 10*time.Second, time.Millisecond, "run %s never gets to %s", v.ID, state)
}

// do asks the API without a socket.
func (r *rig) do(t testing.TB, method, target, body string, peer api.Peer) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Handler().ServeHTTP(w, req.WithContext(httpd.WithPeer(context.Background(), peer)))
	return w
}
