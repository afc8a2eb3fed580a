package vm_test

import (
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// testLife ends what can end while a step is at work: the agent politely and not,
// the node's memory, and the step itself by reboot(2).
func testLife(g *careenGuest) {
	testAgentGone(g)
	testStopOnExit(g)
	testClock(g)
	testUnsetClock(g)
	testRebootCall(g)
	testNoMemory(g)
}

// testAgentGone: a step outlives two agents.
func testAgentGone(g *careenGuest) {
	g.MustRun("mkdir -p /ctl")
	run := g.background("survivor", "-v /ctl:/ctl", "echo begun; n=0; until [ -e /ctl/go ]; do usleep 20000; n=$((n+1)); echo $n >/ctl/beat; done; echo ended; exit 7")
	pid := g.MustRun("pidof tail >/dev/null; cat /ctl/beat >/dev/null; ps | grep 'until [[]' | grep -v careen | awk '{print $1}' | head -n 1")

	g.endAgent("TERM")
	g.MustRun("[ -e /proc/" + pid + " ]")
	beat := g.MustRun("cat /ctl/beat")
	g.Await(`[ "$(cat /ctl/beat)" != "` + beat + `" ]`)
	g.startAgent("")
	adopted := g.inspect(run.ID)
	require.Equal(g.t, api.Running, adopted.State, g.agentLog())
	require.Equal(g.t, run.StartedAt, adopted.StartedAt, "the same container, not a second one")

	g.endAgent("KILL")
	g.startAgent("")
	require.Equal(g.t, api.Running, g.inspect(run.ID).State)
	g.MustRun("touch /ctl/go")
	ended := g.awaitEnd(run.ID)
	require.Equal(g.t, api.Failed, ended.State)
	require.Equal(g.t, 7, *ended.Outcome.ExitCode)
	out, code := g.careen("logs " + run.ID)
	require.Zero(g.t, code, out)
	require.Equal(g.t, "begun\nended\n", out)
	g.MustRun("rm -r /ctl")
}

// testStopOnExit: an agent that is told so takes its step along, by the ladder.
func testStopOnExit(g *careenGuest) {
	g.endAgent("TERM")
	g.startAgent("--stop-on-exit")
	g.MustRun("mkdir -p /ctl")
	run := g.background("taken", "-v /ctl:/ctl", "trap 'touch /ctl/asked; exit 0' TERM; touch /ctl/ready; while :; do usleep 20000; done")
	g.Await("[ -e /ctl/ready ]")
	g.endAgent("TERM")
	g.MustRun("[ -e /ctl/asked ]")
	require.Empty(g.t, g.MustRun("ls -d /sys/fs/cgroup/careen/*/ 2>/dev/null || true"))
	g.startAgent("")
	ended := g.inspect(run.ID)
	require.Equal(g.t, api.Aborted, ended.State, "%+v", ended.Outcome)
	g.t.Logf("a step that its agent took along: %s: %s", ended.Outcome.Code, ended.Outcome.Message)
	g.MustRun("rm -r /ctl")
}

// testClock: a ramdisk's clock jumps by years when NTP arrives. No limit passes by
// that, and a step takes as long as it took.
func testClock(g *careenGuest) {
	for name, years := range map[string]string{"ahead": "+ 94608000", "back": "- 94608000"} {
		g.MustRun("mkdir -p /ctl")
		run := g.background("clock-"+name, "--timeout=3600 -v /ctl:/ctl", "until [ -e /ctl/go ]; do usleep 20000; done")
		g.MustRun("date -s @$(( $(date +%s) " + years + " )); touch /ctl/go")
		ended := g.awaitEnd(run.ID)
		require.Equal(g.t, api.Succeeded, ended.State, "%+v", ended.Outcome)
		took, err := time.ParseDuration(ended.Outcome.Duration)
		require.NoError(g.t, err)
		require.Positive(g.t, took)
		require.Less(g.t, took, time.Hour)
		// By the clock it may be newer than all that follow.
		out, code := g.careen("rm " + run.ID)
		require.Zero(g.t, code, out)
		g.MustRun("rm -r /ctl")
	}
}

// testUnsetClock: a node whose clock has no battery, and whose private CA is named by the
// kernel's command line. The clock is set by the registry's, for real.
func testUnsetClock(g *careenGuest) {
	began := time.Now()
	g.MustRun("cp /certs/ca.crt /certs/late.crt; date -s @31536000")
	out, code := g.careen("run --rm --pull=always " + g.tls + " date +%Y")
	require.Zero(g.t, code, out)
	require.Contains(g.t, out, "\n"+time.Now().UTC().Format("2006"))
	require.Contains(g.t, out, "the node's clock was at 1971-01-01T")
	require.Contains(g.t, g.agentLog(), "the node's clock was at 1971-01-01T")
	for _, run := range g.all() {
		if run.CreatedAt.Year() > 1971 {
			continue
		}
		require.Contains(g.t, strings.Join(run.Warnings, "\n"), "the node's clock was at 1971-01-01T")
		out, code = g.careen("rm " + run.ID)
		require.Zero(g.t, code, out)
	}
	out, code = g.careen("config")
	require.Zero(g.t, code, out)
	require.Regexp(g.t, "(?m)^ca +kernel command line +1 certificate in /certs/late.crt", out)
	g.MustRun("rm /certs/late.crt") // others want it unknown
	g.t.Logf("an unset clock took %s", time.Since(began).Round(time.Millisecond))
}

// testRebootCall: reboot(2) in a PID namespace of its own is a wish, not a failure.
func testRebootCall(g *careenGuest) {
	boot := g.MustRun("cat /proc/sys/kernel/random/boot_id")
	out, code := g.careen("run --rm --cap-add=SYS_BOOT " + g.plain + " reboot -f -n")
	run := g.last()
	require.True(g.t, run.Outcome.RebootRequested, "%d %s %+v", code, out, run.Outcome)
	require.Equal(g.t, api.Succeeded, run.State, "%+v", run.Outcome)
	require.Contains(g.t, run.Outcome.RebootReason, "reboot(2)")
	require.Equal(g.t, boot, g.MustRun("cat /proc/sys/kernel/random/boot_id"), "the node stays up")

	out, code = g.step("", "true")
	require.Equal(g.t, 125, code, out)
	require.Contains(g.t, out, "reboot")
	out, code = g.careen("rm " + run.ID)
	require.Zero(g.t, code, out)
	out, code = g.step("", "echo goes on")
	require.Zero(g.t, code, out)
}

// testNoMemory: a step without a limit takes all of the node's memory. The kernel
// has to choose the step, not its agent or its shim.
func testNoMemory(g *careenGuest) {
	agent := g.agentPid()
	out, code := g.step("", "exec tail /dev/zero")
	require.Equal(g.t, 137, code, out)
	require.Equal(g.t, agent, g.agentPid(), g.agentLog())
	run := g.last()
	require.Equal(g.t, string(fault.OOM), run.Outcome.Code, "%+v", run.Outcome)
	out, code = g.step("", "echo after")
	require.Zero(g.t, code, out)
	require.Contains(g.t, out, "after")
}

// testReboot: a step that may, reboots the node for real. The next agent finds it
// in a state directory that survived, and says why nobody knows its end.
func testReboot(g *careenGuest, formatted bool) {
	if !formatted {
		g.t.Skip("needs mke2fs of Debian's e2fsprogs")
	}
	g.endAgent("TERM")
	const state = "mkdir -p /persistent; mount -t ext4 /dev/vda /persistent"
	g.MustRun(state)
	g.startAgent("--state /persistent/careen")
	before := g.MustRun("cat /proc/sys/kernel/random/boot_id")
	g.MustRun("mkdir -p /ctl")
	g.background("flash", "--pid=host --privileged -v /ctl:/ctl", "echo about to; until [ -e /ctl/go ]; do usleep 20000; done; sync; exec reboot -f -n")
	g.Leave("touch /ctl/go")
	g.AwaitBoot()

	// /dev is the agent's to mount; here the disk is wanted before.
	g.MustRun("mkdir -p /dev && mount -t devtmpfs devtmpfs /dev; " + state)
	g.startAgent("--state /persistent/careen")
	now := g.MustRun("cat /proc/sys/kernel/random/boot_id")
	require.NotEqual(g.t, before, now)
	run := g.last()
	require.Equal(g.t, "flash", run.Name)
	require.Equal(g.t, api.Lost, run.State)
	require.Equal(g.t, string(fault.Lost), run.Outcome.Code)
	require.Equal(g.t, "interrupted_by_reboot", run.Outcome.Attrs["reason"], "%+v", run.Outcome)
	var attrs []string
	for _, value := range run.Outcome.Attrs {
		if text, ok := value.(string); ok {
			attrs = append(attrs, text)
		}
	}
	require.Contains(g.t, attrs, before)
	require.Contains(g.t, attrs, now)
	require.Nil(g.t, run.Outcome.ExitCode)
	g.t.Logf("lost: %s %s %v", run.Outcome.Message, run.Outcome.Remedy, strings.Join(attrs, " "))

	// It is not run again, and others run.
	out, code := g.careen("run --rm --tls-verify=false " + g.plain + " echo after the reboot")
	require.Zero(g.t, code, out)
	require.Contains(g.t, out, "after the reboot")
}
