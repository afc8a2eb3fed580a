package runtime_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/shim"
)

// started makes a container that runs until it is killed, and returns it and its shim.
func (r *rig) started(run string, command ...string) (container.Container, int) {
	r.t.Helper()
	options := r.run("", command...)
	image, err := r.engine.Image(r.t.Context(), options.Pull(), func(api.PullProgress) {})
	require.NoError(r.t, err)
	c := container.Container{Run: run, ID: fmt.Sprintf("%064x", time.Now().UnixNano()), Dir: r.t.TempDir()}
	_, err = r.engine.Create(r.t.Context(), container.CreateSpec{Container: c, Run: options, Image: image})
	require.NoError(r.t, err)
	pid, err := r.engine.Start(r.t.Context(), c)
	require.NoError(r.t, err)
	return c, parent(r.t, pid)
}

// parent is the parent of a process: of a container's first one it is the shim.
func parent(t *testing.T, pid int) int {
	t.Helper()
	var ppid int
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(status), "PPid:")
	_, err = fmt.Sscan(rest, &ppid)
	require.NoError(t, err)
	return ppid
}

// hang stops every thread of a shim as a debugger does, so that SIGCONT has no effect,
// until the test ends or the shim does.
func hang(t *testing.T, shim int) {
	t.Helper()
	stopped, end, done := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		// The tracer is a thread. It ends with this goroutine, which lets the shim go on.
		runtime.LockOSThread()
		stopped <- trace(shim)
		<-end
	}()
	require.NoError(t, <-stopped)
	t.Cleanup(func() { close(end); <-done })
}

// trace stops the threads of a process, also those that start meanwhile.
func trace(pid int) error {
	traced := map[int]bool{}
	for more := true; more; {
		more = false
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || traced[tid] {
				continue
			}
			if err := unix.PtraceAttach(tid); err != nil {
				return err
			}
			for stateOf(pid, tid) != 't' { // the wait for it belongs to the shim's parent
				time.Sleep(100 * time.Microsecond)
			}
			traced[tid], more = true, true
		}
	}
	return nil
}

// agentLimit is what an agent that starts may take before it answers.
const agentLimit = 15 * time.Second

func TestAnEngineFindsAContainerWhoseShimHangs(t *testing.T) {
	r := newRig(t)
	c, shim := r.started("hangs", "sleep", "100000")
	hang(t, shim)
	require.NoError(t, r.engine.Close())
	r.open()
	ctx, cancel := context.WithTimeout(t.Context(), agentLimit)
	defer cancel()
	found, err := r.engine.Existing(ctx)
	require.NoError(t, err)
	require.NoError(t, ctx.Err())
	require.Len(t, found, 1)
	assert.Equal(t, container.StateRunning, found[0].State)
	ctx, cancel = context.WithTimeout(t.Context(), agentLimit)
	defer cancel()
	_, err = r.engine.Delete(ctx, c)
	require.NoError(t, err)
}

func TestAShimThatWasStoppedGoesOn(t *testing.T) {
	r := newRig(t)
	c, shim := r.started("stopped", "sh", "-c", "sleep 1; echo late; exit 4")
	require.NoError(t, unix.Kill(shim, unix.SIGSTOP))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exit, err := r.engine.Wait(ctx, c)
	require.NoError(t, err)
	assert.Equal(t, 4, exit.Code)
	_, err = r.engine.Delete(t.Context(), c)
	require.NoError(t, err)
}

func TestTheExitOfAContainerWhoseShimHangsIsKnown(t *testing.T) {
	r := newRig(t)
	c, shim := r.started("ends", "sh", "-c", "sleep 1; exit 4")
	hang(t, shim)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exit, err := r.engine.Wait(ctx, c)
	require.NoError(t, err)
	assert.Equal(t, 4, exit.Code)
	_, err = r.engine.Delete(t.Context(), c)
	require.NoError(t, err)
}

func TestSIGKILLReachesAContainerWhoseShimHangs(t *testing.T) {
	for name, command := range map[string][]string{
		"its own processes": {"sleep", "100000"}, "and a child": {"sh", "-c", "sleep 100000 & sleep 100000"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c, shim := r.started("killed", command...)
			hang(t, shim)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.NoError(t, r.engine.Signal(ctx, c, syscall.SIGTERM, false))
			require.NoError(t, r.engine.Signal(ctx, c, syscall.SIGKILL, true))
			exit, err := r.engine.Wait(ctx, c)
			require.NoError(t, err)
			assert.Equal(t, 137, exit.Code)
			_, err = r.engine.Delete(ctx, c)
			require.NoError(t, err)
		})
	}
}

func TestAShimThatHangsWhileItCreatesIsEnded(t *testing.T) {
	if testing.Short() {
		t.Skip("the creation has half a minute")
	}
	r := newRig(t)
	options := r.run("", "true")
	image, err := r.engine.Image(t.Context(), options.Pull(), func(api.PullProgress) {})
	require.NoError(t, err)
	r.engine.Prestart()
	require.Eventually(t, func() bool { return len(r.shims()) == 1 }, time.Minute, time.Millisecond)
	shim := r.shims()[0]
	hang(t, shim)
	c := container.Container{Run: "creating", ID: strings.Repeat("ab", 32), Dir: t.TempDir()}
	_, err = r.engine.Create(t.Context(), container.CreateSpec{Container: c, Run: options, Image: image})
	require.Error(t, err)
	require.Eventually(t, func() bool { return unix.Kill(shim, 0) != nil || stateOf(shim, shim) == 'Z' }, time.Minute, time.Millisecond)
}

// An agent may be killed after it deleted a container and before it ended the shim and
// removed the container's record. The next agent ends the shim.
func TestTheNextAgentEndsAShimWhoseContainerWasDeleted(t *testing.T) {
	r := newRig(t)
	c, _ := r.started("deleted", "sh", "-c", "exit 3")
	_, err := r.engine.Wait(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, r.engine.Close())
	killed, err := shim.Dial(filepath.Join(r.root, "state", "s"), c.ID)
	require.NoError(t, err)
	_, err = killed.Task.Delete(t.Context(), &taskapi.DeleteRequest{ID: c.ID})
	require.NoError(t, err)
	require.NoError(t, killed.Close())

	r.open()
	found, err := r.engine.Existing(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Equal(t, container.StateStopped, found[0].State)
	exit, err := r.engine.Wait(t.Context(), c)
	require.NoError(t, err)
	assert.Equal(t, 3, exit.Code)
	// Sooner than the shim would end by itself.
	assert.Eventually(t, func() bool { return len(r.shims()) == 0 }, agentLimit, time.Millisecond)
	_, err = r.engine.Delete(t.Context(), c)
	require.NoError(t, err)
}

// stateOf is the letter of proc_pid_stat(5) of a thread, 0 for one that is gone.
func stateOf(pid, tid int) byte {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid))
	if err != nil {
		return 0
	}
	return data[strings.LastIndexByte(string(data), ')')+2]
}
