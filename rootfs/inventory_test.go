package rootfs_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs"
)

func TestInventoryShowsWhatAStepLeft(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	dir, own := t.TempDir(), t.TempDir()
	before := rootfs.TakeInventory(own)
	require.NoError(t, unix.Mount("left", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	require.NoError(t, unix.Mount("ours", own, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(own, unix.MNT_DETACH) })
	assert.Contains(t, rootfs.TakeInventory(own).Since(before), "mount "+dir+" (tmpfs from left)")
	for _, item := range rootfs.TakeInventory(own).Since(before) {
		assert.NotContains(t, item, own)
	}
	assert.Contains(t, before, "network link lo")
}
