package agent_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/runtime/container"
)

// TestWhoLooksDoesNotWaitForTheDisk: while a record is being brought to a disk that
// takes its time, everybody is told how things are on record so far.
func TestWhoLooksDoesNotWaitForTheDisk(t *testing.T) {
	var slow atomic.Bool
	arrived, release := make(chan struct{}), make(chan struct{})
	cfg := newConfig(t)
	cfg.Failpoint = func(name string) {
		if name == "journal.before-sync" && slow.CompareAndSwap(true, false) {
			close(arrived)
			<-release
		}
	}
	rg := start(t, cfg)
	rg.submit(t, api.RunRequest{ID: "a", Image: "out=hello/run=forever"})
	rg.waitFor(t, "a", api.Running)
	slow.Store(true)
	rg.runner.End("a", container.Exit{})
	<-arrived

	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for _, path := range []string{"/v1/runs/a", "/v1/runs", "/v1/runs/a/wait?timeout=1ms", "/v1/version"} {
			if code := rg.get(t, path).Code; code != http.StatusOK {
				t.Error(path, code)
			}
		}
		v, err := rg.Run("a")
		if err != nil || v.State != api.Running {
			t.Error(v.State, err)
		}
	}()
	select {
	case <-looked:
	case <-time.After(10 * time.Second):
		t.Error("it waits for the disk")
	}
	close(release)
	require.Equal(t, api.Succeeded, rg.end(t, "a").State)
	require.NoError(t, rg.Close())
}
