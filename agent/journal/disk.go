package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
)

// onDisk reports whether fsync means anything in dir.
func onDisk(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return true // the careful answer
	}
	return st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC
}

func (j *Journal) syncFile(file *os.File) error {
	if !j.sync {
		return nil
	}
	return file.Sync()
}

// syncDir makes the file's name stable.
func (j *Journal) syncDir() error {
	if !j.sync {
		return nil
	}
	return syncDir(j.dir)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Some file systems refuse it, and have nothing to write then.
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// makeDir makes a directory and what is missing above it, each with a stable name: a
// journal is not found again when the directory that it lies in is not.
func makeDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	parent := filepath.Dir(path)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if !onDisk(parent) {
		return nil
	}
	return syncDir(parent)
}

// explain makes what the file system says an operator's error.
func explain(op, dir string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	f := &fault.Error{Code: fault.Node, Op: op, Subject: dir, Err: err,
		Remedy: "Check the directory given with --state, and the disk it is on"}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		f.Code, f.Reason = fault.Space, "no space left"
		f.Remedy = "Make room there, or give a larger place with --state"
	case errors.Is(err, unix.EROFS):
		f.Reason, f.Remedy = "the file system is read-only", "Mount it writable, or give another --state"
	case errors.Is(err, fs.ErrPermission):
		f.Reason = "permission denied"
	}
	return f
}
