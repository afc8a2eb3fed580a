package exec_test

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/exec"
)

// TestSurvivorsAreDescribed: a process that writes to a frozen file system sleeps
// uninterruptibly and survives SIGKILL, as one does whose disk does not answer.
func TestSurvivorsAreDescribed(t *testing.T) {
	dir := frozen(t)
	cmd := osexec.Command("sh", "-c", `sh -c 'echo x > "$1/file"' inner "$1" & wait`, "outer", dir)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() })
	thaw := func() {
		mount, err := os.Open(dir)
		require.NoError(t, err)
		defer mount.Close()
		require.NoError(t, unix.IoctlSetInt(int(mount.Fd()), fithaw, 0))
	}
	t.Cleanup(thaw)
	want := `^: process \d+ "sh" in state S.*; process \d+ "sh" in state D`
	if _, err := os.ReadFile("/proc/self/stack"); err == nil {
		want += ` in \w+ \(\[<0>\] `
	}
	// On its way to sleep it is in state D for a moment without a place where it sleeps.
	var said string
	for deadline := time.Now().Add(10 * time.Second); !regexp.MustCompile(want).MatchString(said) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		said = exec.Survivors(cmd.Process.Pid)
	}
	require.Regexp(t, want, said)
	_, after, _ := strings.Cut(said, "; process ")
	var pid int
	_, err := fmt.Sscan(after, &pid)
	require.NoError(t, err)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	require.Contains(t, exec.Survivors(pid), "in state D", "it survives")
	require.Empty(t, exec.Survivors(0))
}

// FIFREEZE and FITHAW of linux/fs.h.
const fifreeze, fithaw = 0xc0045877, 0xc0045878

// frozen mounts a file system and freezes it.
func frozen(t *testing.T) string {
	t.Helper()
	if _, err := osexec.LookPath("mkfs.ext4"); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and mkfs.ext4")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	require.NoError(t, os.Mkdir(at, 0o700))
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 4<<20))
	out, err := osexec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := osexec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Skipf("no loop device here: %s", out)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(at, unix.MNT_DETACH)) })
	mount, err := os.Open(at)
	require.NoError(t, err)
	defer mount.Close()
	require.NoError(t, unix.IoctlSetInt(int(mount.Fd()), fifreeze, 0))
	return at
}
