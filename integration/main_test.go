package integration

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// tag is the busybox image of most tests.
const tag = "busybox:1"

// within is a context that bounds what a test waits for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// node is an agent and a plain registry with busybox in it, already pulled.
func node(t *testing.T, opts ...harness.Option) (agent *harness.Agent, image string) {
	t.Helper()
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ = reg.Push(t, tag, harness.Busybox(t))
	agent = harness.Start(t, opts...)
	got := agent.Careen("pull", "--tls-verify=false", image)
	require.Zero(t, got.Code, "%s", got)
	return agent, image
}

// shell is a request to run a line of shell with further options.
func shell(image, line string, options ...string) api.RunRequest {
	return api.RunRequest{
		Image: image, Command: []string{"sh", "-c", line},
		RunOptions: append([]string{"--rm", "--net=host"}, options...), ExactOptions: true,
	}
}

// submit starts a run and returns its id.
func submit(t *testing.T, agent *harness.Agent, req api.RunRequest) string {
	t.Helper()
	run, isNew, err := agent.Client.Submit(within(t, 30*time.Second), req)
	require.NoError(t, err)
	require.True(t, isNew)
	return run.ID
}

// ended waits for a run's end.
func ended(t *testing.T, agent *harness.Agent, id string) api.Run {
	t.Helper()
	run, err := agent.Client.Wait(within(t, time.Minute), id)
	require.NoError(t, err)
	require.NotNil(t, run.Outcome)
	return run
}

// reaches waits until a run is in a state.
func reaches(t *testing.T, agent *harness.Agent, id string, state api.State) {
	t.Helper()
	require.Eventually(t, func() bool {
		run, err := agent.Client.Run(within(t, 10*time.Second), id)
		require.NoError(t, err)
		require.False(t, run.State.Final() && run.State != state, "it is %s: %+v", run.State, run.Outcome)
		return run.State == state
	}, 20*time.Second, 10*time.Millisecond, "run %s does not get %s", id, state)
}

// appears waits for a file that a container makes.
func appears(t *testing.T, path string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := os.Stat(path)
		return err == nil
	}, 20*time.Second, 5*time.Millisecond, "there is no %s", path)
}

// logsFollowed reads a run's output from its start until its end.
var logsFollowed = client.LogOptions{Follow: true}
