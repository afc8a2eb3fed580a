package reexec

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigIgn is SIG_IGN, and lastSignal the highest number (signal(7)).
const (
	sigIgn     = 1
	lastSignal = 64
)

// sigaction is the kernel's struct sigaction on 64-bit machines.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// resetSignals gives every ignored signal its default action and unblocks all signals.
// Both outlive execve(2): the container would inherit what the shim ignores, and what
// the process that started the agent ignored or blocked.
func resetSignals() {
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		var have, want sigaction
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&have)), unsafe.Sizeof(have.mask), 0, 0); errno != 0 || have.handler != sigIgn {
			continue
		}
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&want)), 0, unsafe.Sizeof(want.mask), 0, 0)
	}
	// init functions run on the thread that executes the container's command.
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil)
}
