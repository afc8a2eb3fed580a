package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/osthread"
)

// TryOverlay reports why an overlay with layers in dir would not work, nil if it does. It
// mounts one in a new mount namespace, replaces a file of the lower layer and deletes
// another. Many file systems accept the mount and fail later, for lack of extended
// attributes, whiteouts or directory types. The error has no fault code.
func TryOverlay(dir string) (err error) {
	base, err := makeLayers(dir)
	if err != nil {
		return err
	}
	defer func() {
		if rmErr := os.RemoveAll(base); err == nil {
			err = rmErr
		}
	}()
	return osthread.Run(func() error { return tryOverlay(base) })
}

// makeLayers makes the directories of a trial, with two files in the lower layer.
func makeLayers(dir string) (base string, err error) {
	made, err := os.MkdirTemp(dir, ".careen-trial-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(made))
		}
	}()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(made, name), 0o700); err != nil {
			return "", err
		}
	}
	for _, name := range []string{"replaced", "deleted"} {
		if err := os.WriteFile(filepath.Join(made, "lower", name), []byte("x"), 0o600); err != nil {
			return "", err
		}
	}
	return made, nil
}

// TryOverlayOnTmpfs is [TryOverlay] on a tmpfs that it mounts for the trial.
func TryOverlayOnTmpfs() error { return osthread.Run(tryOverlayOnTmpfs) }

// tryOverlayOnTmpfs mounts in a namespace of the calling thread.
func tryOverlayOnTmpfs() error {
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
	if err := unix.Mount("careen-trial", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	base, err := makeLayers(dir)
	if err != nil {
		return err
	}
	return tryOverlay(base)
}

func tryOverlay(base string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	// In a chroot / is no mount and this fails. Then at most the overlay's mount
	// propagates, and it is unmounted below.
	_ = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err := unix.Chdir(base); err != nil {
		return err
	}
	// Relative, since a comma or colon in the path would need quoting.
	if err := unix.Mount("careen-trial", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work"); err != nil {
		return fmt.Errorf("mount an overlay in %s: %w", filepath.Dir(base), err)
	}
	err := changeOverlay()
	if umountErr := unix.Unmount("merged", unix.MNT_DETACH); err == nil && umountErr != nil {
		err = fmt.Errorf("unmount the overlay: %w", umountErr)
	}
	return err
}

// changeOverlay uses system calls with relative paths, for the thread's own
// working directory.
func changeOverlay() error {
	fd, err := unix.Open("merged/replaced", unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("change a file in an overlay: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("change a file in an overlay: %w", err)
	}
	if err := unix.Unlink("merged/deleted"); err != nil {
		return fmt.Errorf("delete a file in an overlay: %w", err)
	}
	var s unix.Stat_t
	if err := unix.Stat("upper/deleted", &s); err != nil || s.Mode&unix.S_IFMT != unix.S_IFCHR {
		return fmt.Errorf("delete a file in an overlay: no whiteout in the upper layer")
	}
	return nil
}
