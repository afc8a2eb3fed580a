package shim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// unusualEnv makes the test binary a program that sets up an unusual process and then
// executes its arguments.
const unusualEnv = "CAREEN_TEST_UNUSUAL"

// executeUnusual ignores and blocks signals, sets a narrow umask, leaves descriptors
// open, and executes args.
func executeUnusual(args []string) {
	runtime.LockOSThread()
	os.Unsetenv(unusualEnv)
	type sigaction struct{ handler, flags, restorer, mask uint64 }
	ignore := sigaction{handler: 1} // SIG_IGN
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGUSR1, unix.SIGPIPE} {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
	}
	var blocked unix.Sigset_t
	blocked.Val[0] = 1<<(unix.SIGUSR2-1) | 1<<(unix.SIGTERM-1)
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &blocked, nil)
	unix.Umask(0o077)
	for range 20 {
		if err == nil {
			_, err = unix.Open("/etc/passwd", unix.O_RDONLY, 0) // without O_CLOEXEC
		}
	}
	if err == nil {
		err = syscall.Exec(args[0], args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestAContainerInheritsNothingFromTheAgent(t *testing.T) {
	b := newBundle(t, func(s *specs.Spec) {
		script(`grep -E '^(Sig(Blk|Ign|Cgt)|Umask)' /proc/self/status
echo "oom $(cat /proc/self/oom_score_adj)"
for fd in /proc/$$/fd/*; do echo "fd $(readlink $fd)"; done
read -r _ _ _ _ pgrp session _ </proc/$$/stat; echo "group $pgrp session $session"
echo "nofile $(ulimit -Sn)"
env | sort`)(s)
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1000, Soft: 900}}
	})
	bin := filepath.Join(b.bundle, "rootfs", "bin")
	for _, name := range []string{"grep", "env", "sort", "readlink"} {
		require.NoError(t, os.Symlink("busybox", filepath.Join(bin, name)))
	}
	b.unusual = true
	b.start()
	b.mustStart()
	assert.Equal(t, 0, b.wait().Code)
	out := b.output("stdout")
	for _, line := range []string{
		"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "SigCgt:\t0000000000000000", "Umask:\t0022", "oom 0",
		"group 1 session 1", "nofile 900", "PATH=/bin",
	} {
		assert.Contains(t, strings.Split(out, "\n"), line, out)
	}
	assert.NotContains(t, out, "TTRPC_ADDRESS")
	assert.NotContains(t, out, "GOMAXPROCS")
	assert.NotContains(t, out, "passwd", "a descriptor of the agent's parent")
}
