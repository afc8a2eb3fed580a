package vm_test

import (
	"testing"

	"github.com/careen-project/careen/integration/vm"
)

// TestCareenInABareGuest is careen's promise as a whole, in one guest that all
// parts share: a kernel, careen and busybox, 1 GiB, cgroup v2.
func TestCareenInABareGuest(t *testing.T) {
	t.Parallel()
	disk, formatted := diskImage(t, 64<<20)
	g := bootCareen(t, vm.Config{
		Memory: 1024, Reboot: true, Load: []string{"virtio_blk"},
		QEMU:      []string{"-drive", "file=" + disk + ",format=raw,if=virtio"},
		HostFiles: zoneFiles(), Cmdline: []string{"careen.ca=/certs/late.crt"}, // see testUnsetClock
		Files: map[string][]byte{"/etc/careen/careen.toml": []byte("[clock]\nrepair = true\n")},
	})
	part := func(name string, test func(*careenGuest)) bool {
		return t.Run(name, func(t *testing.T) { test(g.in(t)) })
	}
	if !part("start", testStart) {
		return // the others need the agent and its image
	}
	part("steps", testSteps)
	part("pivoted, not chrooted", testPivoted)
	part("options", testOptions)
	part("figures", testFigures)
	part("life", testLife)
	part("reboot", func(g *careenGuest) { testReboot(g, formatted) })
	part("allowed reboot", func(g *careenGuest) { testAllowedReboot(g, formatted) })
}
