package rootfs

import (
	"errors"
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// lock takes an exclusive lock on a file and waits for it. Two commands can start at the
// same time on a fresh node; without the lock both would mount the same file system.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			// Closing unlocks. Nothing was written, so its error can be ignored.
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
	}
}

// readMounts returns the mounts below the process's root.
func readMounts() ([]*mountinfo.Info, error) { return mountinfo.GetMounts(nil) }
