package ramdisk

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// File types of an entry's mode, as in stat(2).
const (
	TypeDir     = 0o040000
	TypeFile    = 0o100000
	TypeLink    = 0o120000
	TypeChar    = 0o020000
	TypeBlock   = 0o060000
	typeMask    = 0o170000
	maxNameSize = 4096 // PATH_MAX, past which the kernel ignores an entry
	trailer     = "TRAILER!!!"
)

// Entry is one file of an archive, owned by root.
type Entry struct {
	// Path is the place of the file; a leading slash makes no difference.
	Path string
	// Mode holds a type and permissions, as in TypeFile | 0o755.
	Mode uint32
	// Size is the number of bytes that Body has; both are for files only.
	Size int64
	Body io.Reader
	// Target is where a symbolic link leads.
	Target string
	// Major and Minor are a device's numbers.
	Major, Minor uint32
}

// Writer writes an archive. It makes the directories that lead to a file, with
// mode 0755 or what such a directory has everywhere, when they were not added before.
type Writer struct {
	w     io.Writer
	n     int64
	inode uint32
	dirs  map[string]bool
	err   error
}

// NewWriter returns a writer of an archive to w. Close ends the archive.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, dirs: map[string]bool{}} }

// usualModes are the modes of directories that usually differ from 0755. An entry
// changes the mode of a directory that exists already.
var usualModes = map[string]uint32{"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700}

// Assume says that directories exist already. The writer makes no entries for them.
func (w *Writer) Assume(dirs ...string) {
	for _, dir := range dirs {
		w.dirs[dir] = true
	}
}

// Add writes an entry. After an error the archive is useless, and every later call
// returns that error. Errors have no fault code.
func (w *Writer) Add(e Entry) error {
	if w.err == nil {
		w.err = w.add(e)
	}
	return w.err
}

func (w *Writer) add(e Entry) error {
	name := strings.TrimPrefix(path.Clean("/"+e.Path), "/")
	switch {
	case name == "", len(name) >= maxNameSize, name == trailer:
		return fmt.Errorf("add %q to a cpio archive: not a valid path", e.Path)
	case w.dirs[name] && e.Mode&typeMask == TypeDir:
		return nil
	}
	if err := w.parents(name); err != nil {
		return err
	}
	body, size := e.Body, e.Size
	switch e.Mode & typeMask {
	case TypeDir:
		w.dirs[name] = true
		body, size = nil, 0
	case TypeLink:
		body, size = strings.NewReader(e.Target), int64(len(e.Target))
	case TypeFile:
	case TypeChar, TypeBlock:
		body, size = nil, 0
	default:
		return fmt.Errorf("add %q to a cpio archive: unsupported file type in mode %o", e.Path, e.Mode)
	}
	if size < 0 || size > 0xffffffff {
		return fmt.Errorf("add %q to a cpio archive: %d bytes are too large for the format", e.Path, size)
	}
	w.inode++
	if err := w.header(name, e.Mode, w.inode, uint32(size), e.Major, e.Minor); err != nil {
		return err
	}
	if size > 0 {
		n, err := io.Copy(w, io.LimitReader(body, size))
		if err == nil && n != size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("add %q to a cpio archive: %w", e.Path, err)
		}
	}
	return w.pad(4)
}

func (w *Writer) parents(name string) error {
	for i, c := range name {
		if c != '/' || w.dirs[name[:i]] {
			continue
		}
		mode, usual := usualModes[name[:i]]
		if !usual {
			mode = 0o755
		}
		if err := w.add(Entry{Path: name[:i], Mode: TypeDir | mode}); err != nil {
			return err
		}
	}
	return nil
}

// header writes an entry's header and name. Without owner, time and device there
// are only these figures; two links make a directory what it is.
func (w *Writer) header(name string, mode, inode, size, major, minor uint32) error {
	links := 1
	if mode&typeMask == TypeDir {
		links = 2
	}
	_, err := fmt.Fprintf(w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	if err != nil {
		return err
	}
	return w.pad(4)
}

// Write passes p on and counts its bytes. Only the writer itself calls it.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.n += int64(n)
	return n, err
}

func (w *Writer) pad(to int64) error {
	if rest := w.n % to; rest != 0 {
		_, err := w.Write(make([]byte, to-rest))
		return err
	}
	return nil
}

// Close ends the archive and pads it to 512 bytes, as cpio does. It does not close the
// underlying writer. Errors have no fault code.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	w.err = errors.New("write to a closed cpio archive")
	if err := w.header(trailer, 0, 0, 0, 0, 0); err != nil {
		return err
	}
	return w.pad(512)
}
