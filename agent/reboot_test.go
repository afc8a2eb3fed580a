package agent_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

const rebootImage = `run=0s/result={"reboot":true,"reason":"new firmware"}`

// TestRebootWaitsForActiveRuns: the node is rebooted for a container
// when the other runs have ended; queued runs end with code reboot_pending.
func TestRebootWaitsForActiveRuns(t *testing.T) {
	cfg := newConfig(t)
	cfg.Slots = 2
	rg := start(t, cfg)
	rg.submit(t, api.RunRequest{ID: "flash", Image: "run=forever"})
	rg.submit(t, api.RunRequest{ID: "asks", Image: "run=forever/result={\"reboot\":true}"})
	rg.waitFor(t, "flash", api.Running)
	rg.waitFor(t, "asks", api.Running)
	rg.submit(t, api.RunRequest{ID: "waits", Image: "run=0s"})
	rg.runner.End("asks", container.Exit{})
	wish := <-rg.Reboots()
	require.Equal(t, "asks", wish.Run)

	ready := make(chan error, 1)
	go func() { ready <- rg.PrepareReboot(context.Background()) }()
	require.Equal(t, string(fault.RebootPending), rg.end(t, "waits").Outcome.Code)
	_, _, err := rg.Submit(context.Background(), &api.RunRequest{Image: "run=0s"}, root)
	require.Equal(t, fault.RebootPending, fault.CodeOf(err))
	select {
	case err := <-ready:
		t.Fatal("it did not wait for the other run", err)
	case <-time.After(20 * time.Millisecond):
	}
	rg.runner.End("flash", container.Exit{Code: 3})
	require.NoError(t, <-ready)
	require.Equal(t, 3, *rg.end(t, "flash").Outcome.ExitCode)
	require.NoError(t, rg.Close())
}

func TestRebootIsCancelled(t *testing.T) {
	cfg := newConfig(t)
	cfg.Slots = 2
	rg := start(t, cfg)
	rg.submit(t, api.RunRequest{ID: "flash", Image: "run=forever"})
	rg.waitFor(t, "flash", api.Running)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, rg.PrepareReboot(ctx), context.Canceled)
	require.NoError(t, rg.Close())
}

// TestRebootRequestOutlivesTheAgent: one that was killed before it rebooted the
// node leaves that to the next.
func TestRebootRequestOutlivesTheAgent(t *testing.T) {
	rg := newRig(t)
	rg.submit(t, api.RunRequest{ID: "asks", Image: rebootImage})
	rg.end(t, "asks")
	rg = rg.again(t, nil)
	select {
	case wish := <-rg.Reboots():
		require.Equal(t, "asks", wish.Run)
		require.Contains(t, wish.Reason, "new firmware")
	default:
		t.Fatal("the wish is forgotten")
	}
	rg = rg.again(t, func(cfg *agent.Config) { cfg.BootID = "boot-2" })
	require.Empty(t, rg.Reboots(), "it has been rebooted")
	require.NoError(t, rg.Close())
}
