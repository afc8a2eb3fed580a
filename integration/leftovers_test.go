package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
)

// TestLeftovers: what a step leaves on the node is told in its outcome, also where
// the agent that started it was killed, and before the next step starts. What was
// there before it is not.
func TestLeftovers(t *testing.T) {
	agent, image := node(t)
	// The mount of a step that reaches the node: a bind that propagates.
	dir := t.TempDir()
	require.NoError(t, unix.Mount("shared", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	require.NoError(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	step := func(id, act string) api.RunRequest {
		req := shell(image, act+"; echo done > /dir/"+id+"; while ! test -e /dir/"+id+".go; do usleep 10000; done",
			"--privileged", "-v", dir+":/dir:rshared")
		req.ID = id
		return req
	}
	go1 := func(id string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, id+".go"), nil, 0o600))
	}
	leaves := func(id string) string {
		return fmt.Sprintf("mkdir -p /dir/%s.d && mount -t tmpfs left-by-%s /dir/%s.d", id, id, id)
	}
	unmounted := func(id string) {
		at := filepath.Join(dir, id+".d")
		require.NoError(t, unix.Unmount(at, unix.MNT_DETACH), "it is on the node")
	}

	t.Run("of a step that an agent saw through", func(t *testing.T) {
		submit(t, agent, step("one", leaves("one")))
		go1("one")
		run := ended(t, agent, "one")
		assert.Contains(t, strings.Join(run.Outcome.Leftovers, "\n"), "left-by-one")
		assert.Equal(t, api.Succeeded, run.State)
		clean := ended(t, agent, submit(t, agent, shell(image, "true")))
		assert.NotContains(t, strings.Join(clean.Outcome.Leftovers, "\n"), "left-by-one", "it was there before")
		unmounted("one")
	})
	t.Run("of a step whose agent was killed", func(t *testing.T) {
		submit(t, agent, step("two", leaves("two")))
		appears(t, filepath.Join(dir, "two"))
		agent.Kill()
		go1("two")
		appears(t, filepath.Join(agent.RunDir, "runs", "two", "exit.json"))
		agent.Launch()
		next := submit(t, agent, shell(image, "true"))
		run := ended(t, agent, "two")
		assert.Contains(t, strings.Join(run.Outcome.Leftovers, "\n"), "left-by-two", "%+v", run.Outcome)
		later := ended(t, agent, next)
		assert.True(t, later.StartedAt.After(*run.EndedAt), "told before the next step starts")
		assert.NotContains(t, strings.Join(later.Outcome.Leftovers, "\n"), "left-by-two")
		unmounted("two")
	})
	t.Run("killed while it removes the container", func(t *testing.T) {
		agent.Kill()
		agent.SetEnv("CAREEN_FAILPOINT=agent.after-delete")
		agent.Launch()
		submit(t, agent, step("three", leaves("three")))
		go1("three")
		select {
		case <-agent.Exited():
		case <-time.After(time.Minute):
			t.Fatal("the agent was not killed")
		}
		agent.SetEnv()
		agent.Kill()
		agent.Launch()
		run := ended(t, agent, "three")
		assert.Contains(t, strings.Join(run.Outcome.Leftovers, "\n"), "left-by-three", "%+v", run.Outcome)
		unmounted("three")
	})
	t.Run("a loop device and a network link", func(t *testing.T) {
		if _, err := os.Stat("/dev/loop-control"); err != nil {
			t.Skip("this kernel has no loop devices")
		}
		step := func(line string) api.Run {
			return ended(t, agent, submit(t, agent, shell(image, line, "--privileged", "-v", dir+":/dir")))
		}
		made := step("dd if=/dev/zero of=/dir/disk bs=1k count=64 2>/dev/null && losetup -f > /dir/loop && losetup $(cat /dir/loop) /dir/disk && " +
			"ip link add cleft0 type bridge")
		said := strings.Join(made.Outcome.Leftovers, "\n")
		undone := step("losetup -d $(cat /dir/loop); ip link del cleft0")
		require.Equal(t, api.Succeeded, made.State, "%+v", made.Outcome)
		assert.Equal(t, api.Succeeded, undone.State, "%+v", undone.Outcome)
		assert.Regexp(t, `(?m)^loop device /dev/loop\d+ \(.*/disk\)$`, said)
		assert.Contains(t, said, "network link cleft0")
		after := strings.Join(ended(t, agent, submit(t, agent, shell(image, "true"))).Outcome.Leftovers, "\n")
		assert.NotContains(t, after, "cleft0")
		assert.NotContains(t, after, "/disk")
	})
	t.Run("a process that left its control group", func(t *testing.T) {
		// The container sees the node's groups and moves its daemon to the root.
		act := "for g in /host/*/cgroup.procs /host/cgroup.procs; do test -e $g && groups=\"$groups $g\"; done; " +
			"sh -c \"for g in $groups; do echo 0 > \\$g; done; exec setsid sleep 300\" > /dir/said 2>&1 & echo $! > /dir/pid"
		req := step("four", act)
		req.RunOptions = append(req.RunOptions.([]string), "-v", "/sys/fs/cgroup:/host", "--pid=host")
		submit(t, agent, req)
		appears(t, filepath.Join(dir, "four"))
		var pid int
		data, err := os.ReadFile(filepath.Join(dir, "pid"))
		require.NoError(t, err)
		_, err = fmt.Sscan(string(data), &pid)
		require.NoError(t, err)
		t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
		require.Eventually(t, func() bool {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			return string(comm) == "sleep\n"
		}, 10*time.Second, 10*time.Millisecond)
		go1("four")
		run := ended(t, agent, "four")
		assert.Contains(t, run.Outcome.Leftovers, fmt.Sprintf("process sleep (pid %d)", pid), "%+v", run.Outcome)
	})
}
