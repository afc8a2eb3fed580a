package exec_test

import (
	"fmt"
	"os"
	osexec "os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/rootfs/file/filetest"
)

// TestSurvivorsAreDescribed: a process that writes to a frozen file system sleeps
// uninterruptibly and survives SIGKILL, as one does whose disk does not answer.
func TestSurvivorsAreDescribed(t *testing.T) {
	dir := filetest.Mount(t, "ext4", 4<<20)
	thaw := filetest.Freeze(t, dir)
	cmd := osexec.Command("sh", "-c", `sh -c 'echo x > "$1/file"' inner "$1" & wait`, "outer", dir)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		thaw()
		_ = cmd.Wait()
	})
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
