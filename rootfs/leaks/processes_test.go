package leaks

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestProcessesAreNewAndOfAnotherNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes a mount namespace")
	}
	start := func(flags uintptr) *exec.Cmd {
		cmd := exec.Command("sleep", "60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: flags}
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		return cmd
	}
	line := func(cmd *exec.Cmd) string { return fmt.Sprintf("process sleep (pid %d)", cmd.Process.Pid) }
	now := func() time.Duration {
		var ts unix.Timespec
		require.NoError(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts))
		return time.Duration(ts.Nano()) - 10*time.Millisecond // start times are that coarse
	}
	before := now()
	own, stray := start(0), start(unix.CLONE_NEWNS)
	assert.Contains(t, processes(before), line(stray))
	assert.NotContains(t, processes(before), line(own))
	assert.NotContains(t, processes(now()+time.Minute), line(stray), "it was there before")
}
