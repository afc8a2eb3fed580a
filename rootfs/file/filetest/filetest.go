// Package filetest makes file systems for tests: real ones that may be frozen.
package filetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// FIFREEZE and FITHAW of linux/fs.h.
const fifreeze, fithaw = 0xc0045877, 0xc0045878

// Mount makes a file system of a kind, such as ext4 or vfat, with a size in bytes, and mounts
// it from a loop device until the test ends. It skips the test without root, without the
// mkfs program of the kind, and where the kernel cannot mount it.
func Mount(t testing.TB, kind string, size int64) (dir string) {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and mkfs." + kind)
	}
	base := t.TempDir()
	image, dir := filepath.Join(base, "image"), filepath.Join(base, "at")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, size))
	out, err := exec.Command(mkfs, image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this machine cannot mount %s from a loop device: %s", kind, out)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// Freeze has every write to a file system wait until thaw is called. thaw may be called again.
func Freeze(t testing.TB, dir string) (thaw func()) {
	t.Helper()
	ioctl := func(request uint) error {
		mount, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer mount.Close()
		return unix.IoctlSetInt(int(mount.Fd()), request, 0)
	}
	require.NoError(t, ioctl(fifreeze))
	thawed := false
	thaw = func() {
		if !thawed {
			thawed = true
			require.NoError(t, ioctl(fithaw))
		}
	}
	t.Cleanup(thaw)
	return thaw
}
