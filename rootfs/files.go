package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

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

// readLimited reads a file of at most limit bytes that can be read to its end: a
// pipe or a terminal, which might never have one, is refused.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	null := info.Mode()&os.ModeCharDevice != 0 && path == os.DevNull
	if !info.Mode().IsRegular() && !null {
		return nil, &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("not a regular file")}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("more than %d bytes", limit)}
	}
	return data, nil
}

// readWord returns a small file's content without white space around it, "" when
// it cannot be read: for files of /proc and /sys that some kernels do not have.
func readWord(path string) string {
	data, err := readLimited(path, 1<<16)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// memory returns MemTotal, MemAvailable or SwapTotal of /proc/meminfo in bytes.
// Where /proc is not mounted yet the kernel tells less: caches then count as used.
func memory(key string) int64 {
	data, err := readLimited("/proc/meminfo", 1<<16)
	if err != nil {
		var s unix.Sysinfo_t
		if unix.Sysinfo(&s) != nil {
			return 0
		}
		unit := uint64(s.Unit)
		return int64(map[string]uint64{
			"MemTotal": uint64(s.Totalram), "MemAvailable": uint64(s.Freeram) + uint64(s.Bufferram), "SwapTotal": uint64(s.Totalswap),
		}[key] * unit)
	}
	for _, line := range strings.Split(string(data), "\n") {
		name, rest, ok := strings.Cut(line, ":")
		if !ok || name != key {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return 0
		}
		return n << 10
	}
	return 0
}
