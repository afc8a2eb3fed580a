package file_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/file"
)

// The EFI system partition is vfat, which has no permissions to set.
func TestReplaceOnVFAT(t *testing.T) {
	if _, err := exec.LookPath("mkfs.vfat"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and mkfs.vfat (Debian's dosfstools)")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	require.NoError(t, os.Mkdir(at, 0o700))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 4<<20))
	out, err := exec.Command("mkfs.vfat", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := exec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Skipf("this machine cannot mount vfat: %s", out)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(at, unix.MNT_DETACH)) })
	for _, d := range []file.Durability{file.Volatile, file.Whole, file.Stable} {
		require.NoError(t, file.Replace(filepath.Join(at, "f"), []byte("new"), 0o600, d))
	}
}
