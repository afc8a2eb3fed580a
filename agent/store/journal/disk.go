package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
)

// Disk is the file system that a journal lies on.
type Disk interface {
	// OpenFile is os.OpenFile.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename is os.Rename.
	Rename(from, to string) error
}

// File is an open file of a [Disk].
type File interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
	Fd() uintptr
}

// OS is the operating system's file system.
type OS struct{}

// OpenFile opens a file.
func (OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	return os.OpenFile(name, flag, perm)
}

// Rename renames a file.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Faulty is a disk that calls Failpoint with a name before and after what it does, and
// in the middle of a write: a crash there leaves what a crash of the node can leave.
type Faulty struct {
	Disk
	Failpoint func(name string)
}

// OpenFile opens a faulty file.
func (d Faulty) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return faultyFile{f, d.Failpoint}, nil
}

// Rename renames a file between two failpoints.
func (d Faulty) Rename(from, to string) error {
	d.Failpoint("journal.compact-before-rename")
	err := d.Disk.Rename(from, to)
	d.Failpoint("journal.compact-after-rename")
	return err
}

type faultyFile struct {
	File
	failpoint func(string)
}

func (f faultyFile) Write(p []byte) (int, error) {
	f.failpoint("journal.before-write")
	half := len(p) / 2
	n, err := f.File.Write(p[:half])
	if err != nil {
		return n, err
	}
	f.failpoint("journal.torn")
	m, err := f.File.Write(p[half:])
	f.failpoint("journal.before-sync")
	return n + m, err
}

// onDisk reports whether fsync means anything in dir.
func onDisk(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return true // the careful answer
	}
	return st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC
}

func (j *Journal) syncFile(f File) error {
	if !j.sync {
		return nil
	}
	return f.Sync()
}

// syncDir makes the file's name stable.
func (j *Journal) syncDir() error {
	if !j.sync {
		return nil
	}
	return file.SyncDir(j.dir)
}

// makeDir makes a directory and its missing parents, each with a stable name: a journal
// is not found again when its directory is not.
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
	return file.SyncDir(parent)
}

// Explain makes an error of the file system an operator's error: code space where there
// is no room, node otherwise. op and dir say what was being done and where.
func Explain(op, dir string, err error) error {
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
