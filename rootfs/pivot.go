package rootfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/osthread"
)

// TryPivot reports why a container could not leave the process's root with
// pivot_root(2), nil if it could. It tries it on a new thread in a new mount namespace,
// because no file says it reliably. The kernel requires that the root is a mount with a
// parent; the kernel's rootfs has no parent, and a chroot directory is no mount. The
// error has no fault code.
func TryPivot() error { return osthread.Run(tryPivot) }

// TryEnter reports why a container could not leave a root that [Enter] made, nil if it
// could. No other thread sees the trial. The error has no fault code.
func TryEnter() error {
	return osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := bindRoot(); err != nil {
			return err
		}
		return tryPivot()
	})
}

// RootType names the type of file system of the process's root, or says that the root
// is a plain directory.
func RootType() string {
	if mounts, err := readMounts(); err == nil {
		for _, m := range mounts {
			if m.Mountpoint == "/" {
				return m.FSType
			}
		}
		return "a plain directory"
	}
	return fsName(statfsType("/"))
}

func tryPivot() error {
	dir, err := someDirectory()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Mount("careen-trial", dir, "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return nil
}

// someDirectory returns a directory to mount on in a trial. It need not be empty: no other
// process sees the mount.
func someDirectory() (string, error) {
	for _, dir := range []string{"/proc", "/sys", "/run", "/tmp", "/dev", "/etc"} {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	err := os.Mkdir("/run", 0o755)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return "/run", nil
}
