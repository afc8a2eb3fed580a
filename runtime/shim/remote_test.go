package shim_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/runtime/shim"
)

// sockets is a directory whose path leaves room for a container's id.
func sockets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "cs-")
	require.NoError(t, err)
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		assert.NoError(t, err)
		assert.Empty(t, left, "sockets that are left")
		assert.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

func spawn(t *testing.T, dir string) *shim.Remote {
	t.Helper()
	requireRoot(t)
	self, err := os.Executable()
	require.NoError(t, err)
	remote, err := shim.Spawn(self, "test", dir)
	require.NoError(t, err)
	return remote
}

func gone(t *testing.T, remote *shim.Remote) {
	t.Helper()
	select {
	case <-remote.Lost():
	case <-time.After(20 * time.Second):
		t.Fatal("the shim does not end")
	}
}

// empty waits until a shim that ended has removed its socket.
func empty(t *testing.T, dir string) {
	t.Helper()
	require.Eventually(t, func() bool {
		left, err := os.ReadDir(dir)
		return err == nil && len(left) == 0
	}, time.Minute, time.Millisecond)
}

func TestASpawnedShimTakesItsContainerLater(t *testing.T) {
	dir := sockets(t)
	remote := spawn(t, dir)
	b := newBundle(t, script("echo out; exit 4"))
	b.task = remote.Task
	_, err := remote.Task.State(t.Context(), &taskapi.StateRequest{ID: b.id})
	require.Error(t, err, "it keeps none yet")
	require.NoError(t, remote.Name(b.id))
	b.mustStart()

	// Another agent finds it, and the first one's end is not its.
	require.NoError(t, remote.Close())
	found, err := shim.Dial(dir, b.id)
	require.NoError(t, err)
	b.task = found.Task
	assert.Equal(t, 4, b.wait().Code)
	assert.Equal(t, "out\n", b.output("stdout"))
	_, err = found.Task.Delete(t.Context(), &taskapi.DeleteRequest{ID: b.id})
	require.NoError(t, err)
	require.NoError(t, found.End(t.Context(), b.id))
	assert.False(t, found.Alive())
	empty(t, dir)
	_, err = shim.Dial(dir, b.id)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestASpawnedShimEndsWithItsAgent(t *testing.T) {
	dir := sockets(t)
	remote := spawn(t, dir)
	assert.True(t, remote.Alive())
	require.NoError(t, remote.Close())
	gone(t, remote)
	empty(t, dir)
}

func TestASpawnedShimThatWasNamedEndsWithItsAgent(t *testing.T) {
	dir := sockets(t)
	remote := spawn(t, dir)
	require.NoError(t, remote.Name("0123456789abcdef"))
	require.NoError(t, remote.Close())
	gone(t, remote)
	// It does not know its new name; the next agent removes what nobody listens on.
	path := shim.SocketPath(dir, "0123456789abcdef")
	require.Eventually(t, func() bool { return !canDial(dir, "0123456789abcdef") }, 20*time.Second, time.Millisecond)
	require.NoError(t, shim.RemoveDeadSocket(path))
	empty(t, dir)
}

// An agent may be killed after it deleted a container and before it ended the shim.
func TestAShimWhoseContainerWasDeletedEndsWithoutBeingAsked(t *testing.T) {
	for name, restarted := range map[string]bool{"with the agent that spawned it": false, "after a while under the next agent": true} {
		t.Run(name, func(t *testing.T) {
			if restarted && testing.Short() {
				t.Skip("it waits for half a minute")
			}
			dir := sockets(t)
			remote := spawn(t, dir)
			b := newBundle(t, script("exit 0"))
			b.task = remote.Task
			require.NoError(t, remote.Name(b.id))
			b.mustStart()
			b.wait()
			last := remote
			if restarted {
				require.NoError(t, remote.Close())
				var err error
				last, err = shim.Dial(dir, b.id)
				require.NoError(t, err)
			}
			_, err := last.Task.Delete(t.Context(), &taskapi.DeleteRequest{ID: b.id})
			require.NoError(t, err)
			require.NoError(t, last.Close())
			empty(t, dir)
		})
	}
}

func canDial(dir, id string) bool {
	remote, err := shim.Dial(dir, id)
	if err != nil {
		return false
	}
	_ = remote.Close()
	return true
}

func TestEndingIsBounded(t *testing.T) {
	dir := sockets(t)
	remote := spawn(t, dir)
	b := newBundle(t, command("sleep", "1000"))
	b.task = remote.Task
	require.NoError(t, remote.Name(b.id))
	b.mustStart()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, remote.End(ctx, b.id), context.DeadlineExceeded, "it keeps a container that runs")

	again, err := shim.Dial(dir, b.id)
	require.NoError(t, err)
	_, err = again.Task.Kill(t.Context(), &taskapi.KillRequest{ID: b.id, Signal: 9, All: true})
	require.NoError(t, err)
	_, err = again.Task.Wait(t.Context(), &taskapi.WaitRequest{ID: b.id})
	require.NoError(t, err)
	_, err = again.Task.Delete(t.Context(), &taskapi.DeleteRequest{ID: b.id})
	require.NoError(t, err)
	require.NoError(t, again.End(t.Context(), b.id))
	empty(t, dir)
}

// A profile that refuses one call.
func refusing(call string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		script("busybox mkdir /made 2>/dev/null && echo made || echo refused")(s)
		errno := uint(1)
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{call}, Action: specs.ActErrno, ErrnoRet: &errno}},
		}
	}
}

func TestASeccompProfileIsCompiledOnce(t *testing.T) {
	programs := filepath.Join(t.TempDir(), "programs")
	run := func(call string) string {
		b := newBox(t, refusing(call))
		b.target.SeccompDir = programs
		b.mustStart()
		require.Equal(t, 0, b.wait().Code)
		return b.output("stdout")
	}
	kept := func() []string {
		found, err := filepath.Glob(filepath.Join(programs, "*"))
		require.NoError(t, err)
		return found
	}
	assert.Equal(t, "refused\n", run("mkdir"))
	strict := kept()
	require.Len(t, strict, 1)
	assert.Equal(t, "refused\n", run("mkdir"), "with the program that was kept")
	assert.Equal(t, strict, kept())

	// Another profile has a program of its own.
	assert.Equal(t, "made\n", run("chroot"))
	require.Len(t, kept(), 2)

	// That it is the kept program that is in force: exchanged, it is the other's.
	var lax string
	for _, path := range kept() {
		if path != strict[0] {
			lax = path
		}
	}
	program, err := os.ReadFile(lax)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(strict[0], program, 0o600))
	assert.Equal(t, "made\n", run("mkdir"))
}
