package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrTooLarge says that there are more bytes than the limit allows.
var ErrTooLarge = errors.New("too large")

// limitError is ErrTooLarge with the limit in bytes.
type limitError int64

func (e limitError) Error() string        { return fmt.Sprintf("larger than %d bytes", int64(e)) }
func (e limitError) Is(target error) bool { return target == ErrTooLarge }

// errNotRegular says that a read could block for ever or never end.
var errNotRegular = errors.New("not a regular file")

// ReadLimited reads a regular file of at most limit bytes. A larger file is an error
// that wraps [ErrTooLarge]. The null device, with which an administrator masks a file
// by a link, reads as empty. A pipe, a terminal or another device is refused instead
// of waited for. Errors are those of package os; none has a fault code.
func ReadLimited(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		if null, err := os.Stat(os.DevNull); err == nil && os.SameFile(info, null) {
			return nil, nil
		}
		return nil, &os.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	data, err := ReadAllLimited(f, limit)
	if errors.Is(err, ErrTooLarge) {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return data, err
}

// ReadWord returns the content of a small file of /proc or /sys without the white
// space around it. It is "" when the file cannot be read: some kernels do not have it.
func ReadWord(path string) string {
	data, err := ReadLimited(path, 64<<10)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// ReadAllLimited reads r to its end, at most limit bytes. More are an error that wraps
// [ErrTooLarge]; other errors are the reader's. None has a fault code.
func ReadAllLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, limitError(limit)
	}
	return data, nil
}
