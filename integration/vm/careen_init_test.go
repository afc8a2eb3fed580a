package vm_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/vm"
)

// careenRamdisk is what "careen ramdisk append" makes of nothing: careen as the
// first process, and the one kernel module that a ramdisk has to bring.
func careenRamdisk(t *testing.T) string {
	t.Helper()
	binary := careenBinary(t)
	kernel, err := vm.FindKernel()
	require.NoError(t, err)
	image := filepath.Join(t.TempDir(), "image")
	args := []string{"ramdisk", "append", "--output-file", image, "--unit", "init", "--compression", "none"}
	for _, file := range []string{"modules.dep", "modules.builtin", "kernel/fs/overlayfs/overlay.ko"} {
		args = append(args, "--file", "/lib/modules/"+kernel.Release+"/"+file+"="+filepath.Join(kernel.Modules, file))
	}
	out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return image
}

// TestCareenIsTheInit boots a ramdisk whose only init is careen: it keeps an agent,
// reaps orphans, and takes the node down when it is told to.
func TestCareenIsTheInit(t *testing.T) {
	t.Parallel()
	image := careenRamdisk(t)
	links := map[string]string{"/bin/busybox": "/.vm/busybox"}
	list, err := exec.CommandContext(t.Context(), "busybox", "--list").Output()
	require.NoError(t, err)
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			links["/bin/"+applet] = "busybox"
		}
	}
	g := bootCareen(t, vm.Config{Memory: 768, Initramfs: image, Init: "/careen-init", Links: links, Reboot: true})
	g.agentReady()
	require.Equal(t, "careen-init", g.MustRun("cat /proc/1/comm"))
	out, code := g.careen("run --rm --tls-verify=false " + g.plain + " echo under careen as init")
	require.Zero(t, code, out)
	require.Contains(t, out, "under careen as init")

	// A step goes on while the init gets itself another agent.
	g.MustRun("mkdir /ctl")
	run := g.background("kept", "-v /ctl:/ctl", "until [ -e /ctl/go ]; do usleep 20000; done; exit 5")
	old := g.agentPid()
	g.MustRun("kill -9 " + old)
	g.Await("[ ! -e /proc/" + old + " ]")
	g.agentReady()
	require.NotEqual(t, old, g.agentPid())
	g.MustRun("touch /ctl/go")
	ended := g.awaitEnd(run.ID)
	require.Equal(t, 5, *ended.Outcome.ExitCode, "%+v", ended.Outcome)

	// An orphan that ends must not stay.
	g.MustRun(makeOrphan)
	g.Await(noZombie)

	// SIGTERM reboots, with a step at work that does not keep the node up.
	boot := g.MustRun("cat /proc/sys/kernel/random/boot_id")
	g.background("left", "--stop-timeout=1", `trap "" TERM; while :; do sleep 1000; done`)
	g.Leave("kill -TERM 1")
	g.AwaitBoot()
	g.agentReady()
	require.NotEqual(t, boot, g.MustRun("cat /proc/sys/kernel/random/boot_id"))
	require.Contains(t, g.Console(), "aborted: the node is shutting down")

	// SIGUSR2 powers off: QEMU ends.
	g.Leave("kill -USR2 1")
	g.AwaitEnd()
	require.Contains(t, g.Console(), "the node goes down")
}
