package shim_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/shim"
)

// cgroupsOf lists the cgroups of a box, and the processes in them.
func cgroupsOf(t *testing.T, id string) (groups []string, pids string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/careen-test/", "/sys/fs/cgroup/*/careen-test/"} {
		found, err := filepath.Glob(pattern + id)
		require.NoError(t, err)
		for _, group := range found {
			groups = append(groups, group)
			procs, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
			pids += string(procs)
		}
	}
	return groups, pids
}

// A shim that is killed at any point of a creation leaves no cgroup and no process.
func TestAShimThatDiesWhileItCreatesLeavesNothing(t *testing.T) {
	dir := sockets(t)
	const tries = 30
	for i := range tries {
		b := newBundle(t, func(s *specs.Spec) {
			command("sleep", "1000")(s)
			s.Linux.Resources = &specs.LinuxResources{}
		})
		b.target.Dir = container.Dir(b.run)
		remote := spawn(t, dir)
		require.NoError(t, remote.Name(b.id))
		answer, err := remote.Task.Connect(t.Context(), &taskapi.ConnectRequest{})
		require.NoError(t, err)
		created := make(chan struct{})
		go func() {
			defer close(created)
			_, _ = remote.Task.Create(t.Context(), &taskapi.CreateTaskRequest{ID: b.id, Bundle: b.bundle, Stdout: b.target.String()})
		}()
		// From the first directory of libcontainer's on, at a different time in each try.
		require.Eventually(t, func() bool {
			_, err := os.Stat(filepath.Join(b.target.Dir.State(), b.id))
			return err == nil
		}, 20*time.Second, 100*time.Microsecond)
		until := time.Now().Add(time.Duration(i) * time.Millisecond)
		for time.Now().Before(until) { //nolint:revive // the moment of the kill is the input of the test
		}
		require.NoError(t, unix.Kill(int(answer.ShimPid), unix.SIGKILL))
		gone(t, remote)
		<-created
		_, err = shim.CleanUp(b.bundle, b.id)
		require.NoError(t, err)
		groups, pids := cgroupsOf(t, b.id)
		assert.Empty(t, groups, "after %d ms, with processes %s", i, pids)
		require.NoError(t, shim.RemoveDeadSocket(shim.SocketPath(dir, b.id)))
		require.NoError(t, remote.Close())
	}
}
