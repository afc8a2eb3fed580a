package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/procfs"
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

// readWord returns a small file's content without white space around it, "" when
// it cannot be read: for files of /proc and /sys that some kernels do not have.
func readWord(path string) string {
	data, err := file.ReadLimited(path, 1<<16)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// nodeMemory is the node's memory; zero where the kernel does not say.
func nodeMemory() procfs.Memory {
	m, err := procfs.MemInfo()
	if err != nil {
		return procfs.Memory{}
	}
	return m
}
