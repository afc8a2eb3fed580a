package vm_test

import (
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// testStart starts the agent where nothing is mounted, and pulls over plain HTTP.
func testStart(g *careenGuest) {
	out, _ := g.Run("ls /proc /sys 2>&1")
	require.NotContains(g.t, out, "self", "the guest has to be bare")
	began := time.Now()
	g.startAgent("")
	g.t.Logf("the agent answers %s after it was started", time.Since(began).Round(10*time.Millisecond))
	require.Contains(g.t, g.agentLog(), "pivot_root true")
	require.Contains(g.t, g.agentLog(), "cgroup v2")
	environ := g.MustRun("tr '\\0' '\\n' </proc/" + g.agentPid() + "/environ")
	require.Equal(g.t, "PATH=", strings.SplitN(environ, "\n", 2)[0], "the agent needs no program of the node")

	out, code := g.careen("run --rm --tls-verify=false " + g.plain + " sh -c 'echo to stdout; echo to stderr >&2'")
	require.Zero(g.t, code, out)
	for _, want := range []string{"pull: done", "to stdout", "to stderr"} {
		require.Contains(g.t, out, want)
	}
	run := g.last()
	require.Equal(g.t, api.Succeeded, run.State)
	require.Regexp(g.t, "^sha256:", run.Digest)
	g.t.Logf("first run: %v", run.Outcome.Phases)
}

// testSteps runs what Ironic would: steps that succeed, fail and are aborted, with
// the options that runbooks have.
func testSteps(g *careenGuest) {
	out, code := g.step("", "echo before; exit 3")
	require.Equal(g.t, 3, code, out)
	run := g.last()
	require.Equal(g.t, api.Failed, run.State)
	require.Equal(g.t, string(fault.Exit), run.Outcome.Code)
	require.Equal(g.t, []string{"before"}, run.Outcome.LogTail)

	out, code = g.careen("run --rm " + g.tls + " true")
	require.Equal(g.t, 125, code, out)
	require.Equal(g.t, string(fault.TLSCA), g.last().Outcome.Code, out)
	out, code = g.careen("run --rm --cert-dir /certs " + g.tls + " echo trusted")
	require.Zero(g.t, code, out)
	require.Contains(g.t, out, "trusted")

	testAbort(g)

	out, code = g.step("--read-only", "exec 2>&1; echo x >/file; echo == tmp; echo y >/tmp/file && cat /tmp/file; touch /sys/x; echo z >/proc/sys/kernel/panic")
	require.NotZero(g.t, code)
	require.Contains(g.t, out, "can't create /file: Read-only file system")
	require.Contains(g.t, section(out, "tmp"), "y", "--read-only-tmpfs is the default")
	require.Contains(g.t, out, "touch: /sys/x: Read-only file system")
	require.Contains(g.t, out, "can't create /proc/sys/kernel/panic: Read-only file system")

	out, code = g.step("--privileged", "grep CapEff /proc/self/status; echo == dev; ls /dev; echo == mount; mount -t tmpfs own /mnt 2>&1 || "+
		"{ mkdir /mnt; mount -t tmpfs own /mnt; }; grep own /proc/mounts; echo == sys; grep ' /sys ' /proc/mounts; head -c 4 /dev/vda | wc -c; swapoff /image-mark 2>&1 | grep Invalid")
	require.Zero(g.t, code, out)
	require.Contains(g.t, section(out, "dev"), "vda", "the node's devices")
	require.Contains(g.t, section(out, "mount"), "own /mnt tmpfs")
	require.Contains(g.t, section(out, "sys"), "rw,")
	require.Equal(g.t, g.MustRun("grep CapEff /proc/1/status"), strings.SplitN(out[strings.Index(out, "CapEff"):], "\n", 2)[0])
	require.NotContains(g.t, g.MustRun("cat /proc/mounts"), "own /mnt")

	// A config drive that the node mounts after the agent has started.
	g.MustRun("mkdir -p /mnt/late && mount -t tmpfs late /mnt/late && echo late >/mnt/late/word")
	out, code = g.step("-v /mnt:/node:ro", "cat /node/late/word; grep -c late /proc/mounts")
	require.Zero(g.t, code, out)
	require.Contains(g.t, out, "late\n1")
	g.MustRun("umount /mnt/late")
}

// testAbort ends a step that ignores SIGTERM and has daemonised another process.
func testAbort(g *careenGuest) {
	run := g.background("stubborn", "--stop-timeout=1", `trap "" TERM; setsid sh -c 'trap "" TERM HUP; while :; do sleep 1000; done' & while :; do sleep 1001; done`)
	const count = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 100[01]' || true"
	g.Await("ps; [ \"$(ps | grep -c 'sleep 100[01]$')\" -ge 2 ]")
	out, code := g.careen("abort --reason 'the test says so' " + run.ID)
	require.Zero(g.t, code, out)
	ended := g.awaitEnd(run.ID)
	require.Equal(g.t, api.Aborted, ended.State)
	require.Equal(g.t, string(fault.Aborted), ended.Outcome.Code)
	require.Contains(g.t, ended.Outcome.Message, "the test says so")
	require.Equal(g.t, "0", g.MustRun(count), g.MustRun("ps"))
	require.Empty(g.t, g.MustRun("ls -d /sys/fs/cgroup/careen/*/ 2>/dev/null || true"))
	if pid := ended.Pid; pid != 0 {
		g.MustRun("[ ! -e /proc/" + strconv.Itoa(pid) + " ]")
	}
}

// escape walks up from a directory outside of its root: the kernel stops ".." at
// the process's root and at the root of the mount namespace, so who has changed
// its root below an open directory gets to the latter. In a container that was
// only chrooted, that is the node's root.
const escape = "exec 9</; chroot /proc /self/fd/9/bin/busybox ls -a /self/fd/9/../../../../../.."

// testPivoted proves that nothing of the node is behind a container's root.
func testPivoted(g *careenGuest) {
	g.MustRun("mkdir -p /jail/bin /jail/proc && cp /bin/busybox /jail/bin/busybox && mount --bind /proc /jail/proc")
	out := g.MustRun("chroot /jail /bin/busybox sh -c " + quoted("exec 9</; /bin/busybox chroot /proc /self/fd/9/bin/busybox ls -a /self/fd/9/../../../.."))
	require.Contains(g.t, out, ".vm", "the way out has to work where there is one")
	g.MustRun("umount /jail/proc && rm -r /jail")

	for _, options := range []string{"", "--privileged"} {
		out, code := g.step(options, "echo == escape; "+escape+"; echo == mounts; cat /proc/self/mountinfo")
		require.Zero(g.t, code, out)
		require.Contains(g.t, section(out, "escape"), "image-mark")
		require.NotContains(g.t, section(out, "escape"), ".vm")
		roots, known := []string{}, map[string]bool{}
		lines := strings.Split(section(out, "mounts"), "\n")
		for _, line := range lines {
			known[strings.Fields(line)[0]] = true
		}
		for _, line := range lines {
			fields := strings.Fields(line)
			if !known[fields[1]] {
				roots = append(roots, line)
			}
			require.NotContains(g.t, line, "rootfs rootfs", "the node's root")
		}
		require.Len(g.t, roots, 1, "one mount has a parent outside: the container's root")
		require.Equal(g.t, "/", strings.Fields(roots[0])[4])
		require.Contains(g.t, roots[0], " - overlay overlay ")
	}
}
