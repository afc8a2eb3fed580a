package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// filesystem is a mount that containers need and that a bare ramdisk may lack.
type filesystem struct {
	dir, fstype, data string
	flags             uintptr
	mode              fs.FileMode
	// required: no container runs without it.
	required bool
	// present reports whether nothing has to be mounted.
	present func(dir string) bool
}

// nodeFilesystems returns the mounts in order: /proc first, because the other checks read
// it, and a directory before its subdirectories.
func nodeFilesystems() []filesystem {
	const nosuid, nodev, noexec = unix.MS_NOSUID, unix.MS_NODEV, unix.MS_NOEXEC
	return []filesystem{
		{dir: "/proc", fstype: "proc", flags: nosuid | nodev | noexec, mode: 0o555, required: true, present: hasType(unix.PROC_SUPER_MAGIC)},
		{dir: "/sys", fstype: "sysfs", flags: nosuid | nodev | noexec, mode: 0o555, required: true, present: hasType(unix.SYSFS_MAGIC)},
		{dir: "/dev", fstype: "devtmpfs", data: "mode=0755", flags: nosuid, mode: 0o755, required: true, present: HasDevices},
		{dir: "/dev/pts", fstype: "devpts", data: "gid=5,mode=0620,ptmxmode=0666", flags: nosuid | noexec, mode: 0o755, present: hasType(unix.DEVPTS_SUPER_MAGIC)},
		{dir: "/dev/shm", fstype: "tmpfs", data: "mode=1777", flags: nosuid | nodev, mode: 0o1777, present: IsMounted},
		{dir: "/dev/mqueue", fstype: "mqueue", flags: nosuid | nodev | noexec, mode: 0o1777, present: IsMounted},
		{dir: "/run", fstype: "tmpfs", data: "mode=0755", flags: nosuid | nodev, mode: 0o755, required: true, present: usable},
		{dir: "/tmp", fstype: "tmpfs", data: "mode=1777", flags: nosuid | nodev, mode: 0o1777, present: usable},
	}
}

// mountMissing mounts the missing file systems and makes the run directory.
func mountMissing(ctx context.Context, opts PrepareOptions, done *actions) error {
	for _, f := range nodeFilesystems() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.present(f.dir) {
			continue
		}
		if err := done.add("mount", f.dir, strings.TrimSuffix(f.fstype+" "+f.data, " "), f.mount()); err != nil && f.required {
			return nodeError("mount", f.dir, err, "Run careen as root, on a kernel that has "+f.fstype)
		}
	}
	linkDevices(done)
	if err := os.MkdirAll(opts.RunDir, 0o700); err != nil {
		return nodeError("make", opts.RunDir, err, "Make /run writable or give another directory with --run-dir")
	}
	return nil
}

// Mount is a file system that [Prepare] mounts where it is missing.
type Mount struct {
	// Dir is the mount point, and Type the type of file system.
	Dir, Type string
	// Required says that no container runs without it.
	Required bool
}

// MissingMounts returns what [Prepare] would mount now, in order.
func MissingMounts() []Mount {
	var missing []Mount
	for _, f := range nodeFilesystems() {
		if !f.present(f.dir) {
			missing = append(missing, Mount{Dir: f.dir, Type: f.fstype, Required: f.required})
		}
	}
	return missing
}

func (f filesystem) mount() error {
	if err := os.MkdirAll(f.dir, f.mode.Perm()); err != nil {
		return err
	}
	if err := unix.Mount(f.fstype, f.dir, f.fstype, f.flags, f.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", f.fstype, f.dir, err)
	}
	return nil
}

// linkDevices makes the links in /dev that programs expect and devtmpfs lacks.
func linkDevices(done *actions) {
	for _, l := range [][2]string{
		{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"},
	} {
		if _, err := os.Lstat(l[0]); errors.Is(err, fs.ErrNotExist) {
			// Few scripts need them, so a failure is reported only as an action.
			_ = done.add("create", l[0], "link to "+l[1], os.Symlink(l[1], l[0]))
		}
	}
}

func statfsType(path string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0
	}
	return s.Type
}

// ProcMounted reports whether /proc is mounted.
func ProcMounted() bool { return statfsType("/proc") == unix.PROC_SUPER_MAGIC }

func hasType(magic int64) func(string) bool {
	return func(dir string) bool { return statfsType(dir) == magic }
}

// HasDevices reports whether dir has the usual device nodes. What is mounted there does
// not count: a container's /dev, or one that mdev filled, is as good as devtmpfs, and a
// /dev with only console is not.
func HasDevices(dir string) bool {
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "urandom": 9} {
		var s unix.Stat_t
		if unix.Stat(filepath.Join(dir, name), &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFCHR || s.Rdev != unix.Mkdev(1, minor) {
			return false
		}
	}
	return true
}

// IsMounted reports whether something is mounted on dir. A directory that cannot be
// examined counts as not mounted.
func IsMounted(dir string) bool {
	mounted, err := isMountPoint(dir)
	return err == nil && mounted
}

// usable reports whether dir can be used without a mount. An empty directory of a root in
// memory cannot, because its size would have no limit. A directory with files can: a
// mount over it would hide files of other programs.
func usable(dir string) bool {
	if IsMounted(dir) {
		return unix.Access(dir, unix.W_OK) == nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil || unix.Access(dir, unix.W_OK) != nil {
		return false
	}
	return len(entries) > 0 || !inMemory(statfsType(dir))
}

func inMemory(magic int64) bool { return magic == unix.TMPFS_MAGIC || magic == unix.RAMFS_MAGIC }

// isMountPoint reports whether something is mounted on dir.
func isMountPoint(dir string) (bool, error) {
	var x unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &x)
	switch {
	case err == nil && x.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return x.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	case err != nil && !errors.Is(err, unix.ENOSYS):
		return false, &fs.PathError{Op: "statx", Path: dir, Err: err}
	}
	mounts, err := readMounts()
	if err != nil {
		return false, err
	}
	for _, m := range mounts {
		if m.Mountpoint == filepath.Clean(dir) {
			return true, nil
		}
	}
	return false, nil
}
