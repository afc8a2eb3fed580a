package leaks_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/leaks"
)

func TestSinceReportsWhatAStepLeft(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	dir, own, before := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "before.json")
	require.NoError(t, leaks.Record(before, own))
	require.NoError(t, unix.Mount("left", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	require.NoError(t, unix.Mount("ours", own, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(own, unix.MNT_DETACH) })
	left := leaks.Since(before, own)
	require.Contains(t, left, "mount "+dir+" (tmpfs from left)")
	for _, item := range left {
		require.NotContains(t, item, own)
		require.NotEqual(t, "network link lo", item, "it was there before")
	}
}

// A record of an older agent, as this version reads it.
func TestSinceReadsTheStoredForm(t *testing.T) {
	before := filepath.Join(t.TempDir(), "before.json")
	require.NoError(t, os.WriteFile(before, []byte(`{"clock":9000000000000000000,"inventory":{"network link lo":true}}`), 0o600))
	left := leaks.Since(before)
	require.NotContains(t, left, "network link lo")
	require.Contains(t, left, "mount /proc (proc from proc)")
}

func TestSinceWithoutARecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "before.json")
	require.Empty(t, leaks.Since(path))
	require.NoError(t, os.WriteFile(path, []byte(`{"clock":`), 0o600))
	require.Empty(t, leaks.Since(path))
}
