package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	cfs "github.com/containerd/continuity/fs"
	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
)

// setUpBundle makes the files, volumes and overlays that a plan's mounts refer to.
// root is where the image is mounted.
func setUpBundle(plan *oci.Plan, root string) error {
	for _, file := range plan.Files {
		if err := writePlanFile(file); err != nil {
			return runtimeError("write", file.Path, err)
		}
	}
	for _, dir := range plan.RootDirs {
		if err := makeRootDir(root, dir, plan.Spec.Process); err != nil {
			return runtimeError("make the working directory", dir, err)
		}
	}
	for _, add := range plan.RootAppends {
		if err := appendInRoot(root, add); err != nil {
			return runtimeError("add a line to", add.Path, err)
		}
	}
	for _, volume := range plan.Volumes {
		if err := makeVolume(volume, root); err != nil {
			return runtimeError("make volume", volume.Path, err)
		}
	}
	for _, overlay := range plan.Overlays {
		if err := mountOverlay(overlay); err != nil {
			return &fault.Error{Code: fault.Node, Op: "mount an overlay over", Subject: overlay.Lower, Err: err,
				Remedy: "Use a plain bind, or a directory on a file system that overlayfs can lie over"}
		}
	}
	for _, chown := range plan.Chowns {
		if err := chownTree(chown); err != nil {
			return runtimeError("change the owner of", chown.Path, err)
		}
	}
	return nil
}

func writePlanFile(file oci.PlanFile) error {
	if err := os.MkdirAll(filepath.Dir(file.Path), 0o711); err != nil {
		return err
	}
	if err := os.WriteFile(file.Path, file.Content, file.Mode.Perm()); err != nil {
		return err
	}
	// WriteFile's mode passes through the umask, and other users have to read
	// resolv.conf whatever the agent's is.
	return errors.Join(os.Chmod(file.Path, file.Mode.Perm()), os.Lchown(file.Path, file.UID, file.GID))
}

// makeRootDir makes a directory of the container's root. One that was not there
// belongs to the container's user.
func makeRootDir(root, dir string, process *specs.Process) error {
	full, err := securejoin.SecureJoin(root, dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(full); err == nil || process == nil {
		return os.MkdirAll(full, 0o755)
	}
	if err := os.MkdirAll(full, 0o755); err != nil {
		return err
	}
	return os.Lchown(full, int(process.User.UID), int(process.User.GID))
}

// appendInRoot adds lines to a file of the container's root, such as an account
// to /etc/passwd.
func appendInRoot(root string, add oci.PlanAppend) error {
	full, err := securejoin.SecureJoin(root, add.Path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	// The image may have a pipe there, which would block for ever.
	if info, err := os.Lstat(full); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file: %w", add.Path, fs.ErrInvalid)
	}
	file, err := os.OpenFile(full, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(add.Content)
	return errors.Join(err, file.Close())
}

// makeVolume makes a scratch directory. A new one starts with what the image has
// at its place, with mode and owner; a named one that exists is left alone.
func makeVolume(volume oci.PlanVolume, root string) error {
	if _, err := os.Stat(volume.Path); err == nil {
		return nil
	}
	if err := os.MkdirAll(volume.Path, 0o755); err != nil {
		return err
	}
	if err := os.Lchown(volume.Path, volume.UID, volume.GID); err != nil {
		return err
	}
	if volume.CopyFrom == "" {
		return nil
	}
	source, err := securejoin.SecureJoin(root, volume.CopyFrom)
	if err != nil {
		return err
	}
	info, err := os.Lstat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !info.IsDir() {
		return err
	}
	// A half-filled volume would pass for a whole one next time.
	if err := cfs.CopyDir(volume.Path, source); err != nil {
		return errors.Join(err, os.RemoveAll(volume.Path))
	}
	return nil
}

func mountOverlay(o oci.PlanOverlay) error {
	for _, dir := range []string{o.Upper, o.Work, o.Target} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The container sees the lower directory's own mode and owner at the top.
	if info, err := os.Stat(o.Lower); err != nil {
		return err
	} else if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := errors.Join(os.Chmod(o.Upper, info.Mode()), os.Lchown(o.Upper, int(st.Uid), int(st.Gid))); err != nil {
			return err
		}
	}
	if o.Target == "" {
		return nil // the container's own spec mounts it
	}
	return mountOverlayFD(o)
}

// mountOverlayFD mounts by descriptors where the kernel takes paths in one
// string: a comma or a colon in a path would otherwise be an option.
func mountOverlayFD(o oci.PlanOverlay) error {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	path := func(dir string) (string, error) {
		f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		files = append(files, f)
		return fmt.Sprintf("/proc/self/fd/%d", f.Fd()), nil
	}
	lower, err1 := path(o.Lower)
	upper, err2 := path(o.Upper)
	work, err3 := path(o.Work)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	return unix.Mount("overlay", o.Target, "overlay", 0, options)
}

func chownTree(chown oci.PlanChown) error {
	return filepath.WalkDir(chown.Path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, chown.UID, chown.GID)
	})
}
