package osthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs f on an operating-system thread of its own, which ends with f,
// so that f may change the thread's namespaces and root without anything else
// in the process seeing it. The thread is never the process's first one: that
// one cannot end, and /proc/self would show its namespaces as the process's.
func Run(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Hold the first thread here, so that the next try lands elsewhere.
			err := Run(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		// Not unlocked on purpose: the runtime then ends the thread.
		done <- f()
	}()
	return <-done
}
