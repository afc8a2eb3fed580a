package osthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs f on a new operating-system thread that ends with f, and returns f's error. f
// may change the thread's namespaces and root: no other thread sees the change. The
// thread is never the process's first one, because that thread cannot end and /proc/self
// shows its namespaces as those of the process.
func Run(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Hold the first thread here, so that the next attempt gets another one.
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
