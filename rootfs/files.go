package rootfs

import (
	"errors"
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// lock waits until this process alone has the lock that a file stands for. Two
// commands may start at once on a fresh node, and what one of them finds missing
// the other may be mounting.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			// Closing is what unlocks; that nothing was written makes it safe to ignore.
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
	}
}

// readMounts returns the mounts below the process's root.
func readMounts() ([]*mountinfo.Info, error) { return mountinfo.GetMounts(nil) }
