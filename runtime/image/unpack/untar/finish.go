package untar

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Finish completes the layer on top of the directories of the layers below, the
// topmost first. Afterwards overlayfs can use the directory as a layer.
func (l *Layer) Finish(directories []string) error {
	w, err := openLower(directories)
	if err != nil {
		return err
	}
	defer w.close()
	if err := l.dropIdleWhiteouts(w); err != nil {
		return err
	}
	if l.dirs[""].opaque {
		if err := l.hideAllBelow(w); err != nil {
			return err
		}
	}
	for _, d := range l.dirs {
		if err := l.finishDir(d, w); err != nil {
			return fmt.Errorf("directory %q: %w", clip(d.path), err)
		}
	}
	return nil
}

// dropIdleWhiteouts removes whiteouts that hide nothing. Overlayfs lists them in
// directories that it does not merge, as names that cannot be looked up.
func (l *Layer) dropIdleWhiteouts(w *lower) error {
	for full := range l.whiteouts {
		parent, base := split(full)
		fd := -1
		if !l.hides(parent) {
			var err error
			if fd, _, err = w.find(full); err != nil {
				return err
			}
		}
		if fd >= 0 {
			continue
		}
		d := l.dirs[parent]
		if err := l.ensureOpen(d); err != nil {
			return err
		}
		if err := unix.Unlinkat(d.fd, base, 0); err != nil {
			return pathError("remove", full, err)
		}
		delete(l.whiteouts, full)
		if err := l.prune(d, w); err != nil {
			return err
		}
	}
	return nil
}

// prune removes a directory that exists only because of a whiteout that hid
// nothing, and the directories above it that exist for the same reason.
func (l *Layer) prune(d *dir, w *lower) error {
	for d.path != "" && d.header == nil && !d.opaque {
		below, _, err := w.find(d.path)
		if err != nil || below >= 0 {
			return err
		}
		parent, base := split(d.path)
		up := l.dirs[parent]
		if err := l.ensureOpen(up); err != nil {
			return err
		}
		if unix.Unlinkat(up.fd, base, unix.AT_REMOVEDIR) != nil {
			return nil // it is not empty
		}
		l.forget(d.path)
		d = up
	}
	return nil
}

// hideAllBelow replaces an opaque root, which overlayfs does not support: it makes a
// whiteout for each name that the layers below have at the top.
func (l *Layer) hideAllBelow(w *lower) error {
	for _, fd := range w.fds {
		dup, err := unix.Openat(fd, ".", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(dup), "layer")
		names, err := f.Readdirnames(-1)
		_ = f.Close()
		if err != nil {
			return err
		}
		for _, name := range names {
			found, _, err := w.find(name)
			if err != nil {
				return err
			}
			if found < 0 {
				continue
			}
			if err := l.whiteout(l.dirs[""], name); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishDir sets a directory's attributes: those of its entry, or those that it has
// below if the layer has no entry for it.
func (l *Layer) finishDir(d *dir, w *lower) error {
	h := d.header
	if h == nil {
		var err error
		if h, err = l.inherited(d, w); err != nil {
			return err
		}
	}
	if err := l.ensureOpen(d); err != nil {
		return err
	}
	if d.opaque && d.path != "" {
		if err := unix.Fsetxattr(d.fd, opaqueAttr, []byte{'y'}, 0); err != nil {
			return fmt.Errorf("make opaque: %w", err)
		}
	}
	return setDir(d.fd, h)
}

// plain are the attributes of a directory without an entry in any layer.
var plain = tar.Header{Mode: 0o755, ModTime: time.Unix(0, 0)}

func (l *Layer) inherited(d *dir, w *lower) (*tar.Header, error) {
	name := d.path
	if parent, _ := split(name); d.fresh || (name != "" && l.hides(parent)) {
		return &plain, nil
	}
	if name == "" {
		name = "."
	}
	fd, st, err := w.find(name)
	if err != nil {
		return nil, err
	}
	if fd < 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &plain, nil
	}
	h := headerOf(&st)
	return h, readXattrs(procPath(fd)+"/"+name, h)
}

func setDir(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	return setFile(fd, h)
}

// headerOf writes a file's attributes as an entry would have them.
func headerOf(st *unix.Stat_t) *tar.Header {
	return &tar.Header{
		Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), AccessTime: time.Unix(st.Atim.Unix()),
		Devmajor: int64(unix.Major(st.Rdev)), Devminor: int64(unix.Minor(st.Rdev)),
		PAXRecords: map[string]string{},
	}
}

// readXattrs adds the attributes of a file to the header, without following it
// if it is a symbolic link.
func readXattrs(file string, h *tar.Header) error {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(file, list)
	if err == unix.ENOTSUP {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	value := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(file, name, value)
		if err == unix.ENODATA || err == unix.ENOTSUP {
			continue
		}
		if err != nil {
			return fmt.Errorf("read extended attribute: %w", err)
		}
		h.PAXRecords[xattrRecord+name] = string(value[:n])
	}
	return nil
}

// fdReader reads a descriptor and does not close it.
type fdReader int

func (f fdReader) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), b)
		if err == unix.EINTR {
			continue
		}
		if n == 0 && err == nil && len(b) > 0 {
			err = io.EOF
		}
		return max(n, 0), err
	}
}
