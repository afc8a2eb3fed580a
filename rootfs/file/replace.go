package file

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Durability is what a replacement guarantees after a power cut or a kernel crash.
// The death of the process alone never leaves partial content.
type Durability int

const (
	// Volatile does not wait for the disk. After a power cut the file may be old,
	// new, empty or partial. Use it on tmpfs and for files that can be made again.
	Volatile Durability = iota
	// Whole waits for the content before the rename. After a power cut the file is old
	// or new, never partial.
	Whole
	// Stable waits for the content and for the directory. After a power cut the file
	// is new.
	Stable
)

// Replace makes data the whole content of path, with the permissions mode (the umask
// does not apply). It makes the file if there is none. A symbolic link at path is
// replaced, not followed. On an error the file at path is as it was, except when the
// sync of the directory fails, the last step of [Stable]: the new file is in place then.
// A killed process can leave a temporary file ".NAME.new-RANDOM" in the directory.
// Errors are those of package os; none has a fault code.
func Replace(path string, data []byte, mode fs.FileMode, d Durability) error {
	return ReplaceWith(path, mode, d, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// ReplaceWith is [Replace] for content that write produces. When write fails, its
// error is returned as it is and the file at path stays as it was.
func ReplaceWith(path string, mode fs.FileMode, d Durability, write func(io.Writer) error) error {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "." // not the directory for temporary files, which CreateTemp would take
	}
	temp, err := os.CreateTemp(dir, "."+name+".new-")
	if err != nil {
		return err
	}
	if err := fill(temp, mode, d, write); err != nil {
		_ = os.Remove(temp.Name()) // the first error says more
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		_ = os.Remove(temp.Name())
		return err
	}
	if d < Stable {
		return nil
	}
	return SyncDir(dir)
}

// fill writes the temporary file and closes it.
func fill(temp *os.File, mode fs.FileMode, d Durability, write func(io.Writer) error) error {
	err := write(temp)
	// CreateTemp has made it 0600. vfat refuses a chmod (EPERM), and a state directory may
	// lie on the EFI system partition.
	if err == nil && mode != 0o600 {
		err = temp.Chmod(mode)
	}
	if err == nil && d >= Whole {
		err = temp.Sync()
	}
	return errors.Join(err, temp.Close())
}

// SyncDir waits until the names in a directory are on stable storage. A file system
// that cannot sync a directory (vfat answers EINVAL, and has written it by then) is
// no error. Errors are those of package os; none has a fault code.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = nil
	}
	return errors.Join(err, dir.Close())
}
