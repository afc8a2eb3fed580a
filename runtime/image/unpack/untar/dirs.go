package untar

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openDirs is the number of directories that stay open. Layers are written
// directory by directory, so a few dozen save nearly every lookup.
const openDirs = 64

// maxAliases limits the number of cached names that lead to a directory.
const maxAliases = 1024

func join(parent, base string) string {
	if parent == "" {
		return base
	}
	return parent + "/" + base
}

// directory returns the directory that name leads to, and makes it if it is missing.
// Symbolic links of this layer are followed inside the layer.
func (l *Layer) directory(name string) (*dir, error) {
	if d := l.dirs[name]; d != nil {
		return d, l.ensureOpen(d)
	}
	if d := l.aliases[name]; d != nil {
		return d, l.ensureOpen(d)
	}
	links := 0
	d, err := l.resolve(l.dirs[""], name, &links)
	if err != nil {
		return nil, err
	}
	if d.path != name {
		if len(l.aliases) >= maxAliases {
			clear(l.aliases)
		}
		l.aliases[name] = d
	}
	return d, l.ensureOpen(d)
}

// resolve walks name from a directory, one component at a time.
func (l *Layer) resolve(from *dir, name string, links *int) (*dir, error) {
	at := from
	for name != "" {
		var base string
		base, name, _ = strings.Cut(name, "/")
		switch base {
		case "", ".":
			continue
		case "..":
			// Only the target of a symbolic link can have this; the parent of the root is the root.
			up, _ := split(at.path)
			at = l.dirs[up]
			continue
		}
		next, err := l.step(at, base, links)
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

func (l *Layer) step(at *dir, base string, links *int) (*dir, error) {
	full := join(at.path, base)
	if d := l.dirs[full]; d != nil {
		return d, nil
	}
	if err := l.ensureOpen(at); err != nil {
		return nil, err
	}
	err := unix.Mkdirat(at.fd, base, 0o700)
	if err == nil {
		return l.remember(full), l.opts.Charge(1, int64(len(full)), 0)
	}
	if err != unix.EEXIST {
		return nil, pathError("mkdir", full, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(at.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, pathError("stat", full, err)
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		if *links++; *links > maxSymlinks {
			return nil, fmt.Errorf("%w: too many symbolic links", ErrHostile)
		}
		target, err := readlink(at.fd, base)
		if err != nil {
			return nil, pathError("readlink", full, err)
		}
		if len(target) > maxName {
			return nil, fmt.Errorf("%w: a symbolic link of %d bytes", ErrHostile, len(target))
		}
		if strings.HasPrefix(target, "/") {
			return l.resolve(l.dirs[""], target, links)
		}
		return l.resolve(at, target, links)
	case isWhiteout(&st):
		// The layer deletes the name and then uses it as a directory: the new
		// directory shows nothing of the old one.
		return l.replaceByDir(at, base)
	default:
		return nil, fmt.Errorf("%w: %q is not a directory", ErrMalformed, clip(full))
	}
}

func (l *Layer) remember(full string) *dir {
	d := &dir{path: full, fd: -1}
	l.dirs[full] = d
	return d
}

// ensureOpen opens d. If too many directories are open, it closes the one that was opened
// first.
func (l *Layer) ensureOpen(d *dir) error {
	if d.fd >= 0 {
		return nil
	}
	// Its path has no symbolic link: every part was made here as a directory.
	fd, err := unix.Openat(l.root, d.path, unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return pathError("open", d.path, err)
	}
	d.fd = fd
	if len(l.open) < openDirs {
		l.open = append(l.open, d)
		return nil
	}
	l.fifo = (l.fifo + 1) % openDirs
	old := l.open[l.fifo]
	_ = unix.Close(old.fd)
	old.fd = -1
	l.open[l.fifo] = d
	return nil
}

// makeDir handles an entry for a directory, new or existing.
func (l *Layer) makeDir(parent *dir, base string, h *tar.Header) error {
	full := join(parent.path, base)
	if d := l.dirs[full]; d != nil {
		d.header = h
		return nil
	}
	err := unix.Mkdirat(parent.fd, base, 0o700)
	var d *dir
	switch err {
	case nil:
		d = l.remember(full)
	case unix.EEXIST:
		if d, err = l.replaceByDir(parent, base); err != nil {
			return err
		}
	default:
		return pathError("mkdir", full, err)
	}
	d.header = h
	return nil
}

// replaceByDir replaces another type of file of this layer by a directory. It hides what
// layers below have there, as the replaced file did.
func (l *Layer) replaceByDir(parent *dir, base string) (*dir, error) {
	if err := l.remove(parent, base); err != nil {
		return nil, err
	}
	full := join(parent.path, base)
	if err := unix.Mkdirat(parent.fd, base, 0o700); err != nil {
		return nil, pathError("mkdir", full, err)
	}
	d := l.remember(full)
	d.opaque, d.fresh = true, true
	return d, nil
}

// remove removes the file or directory that this layer has under a name.
func (l *Layer) remove(parent *dir, base string) error {
	full := join(parent.path, base)
	delete(l.whiteouts, full)
	// A symbolic link may have led to directories under other names.
	clear(l.aliases)
	if l.dirs[full] != nil {
		l.forget(full)
		if err := removeTree(parent.fd, base); err != nil {
			return pathError("remove", full, err)
		}
		return nil
	}
	if err := unix.Unlinkat(parent.fd, base, 0); err != nil {
		return pathError("remove", full, err)
	}
	return nil
}

// forget drops the records of a directory and of everything in it.
func (l *Layer) forget(full string) {
	below := full + "/"
	for p, d := range l.dirs {
		if p == full || strings.HasPrefix(p, below) {
			if d.fd >= 0 {
				l.closeDir(d)
			}
			delete(l.dirs, p)
		}
	}
	for p := range l.whiteouts {
		if strings.HasPrefix(p, below) {
			delete(l.whiteouts, p)
		}
	}
}

func (l *Layer) closeDir(d *dir) {
	for i, o := range l.open {
		if o == d {
			l.open = append(l.open[:i], l.open[i+1:]...)
			break
		}
	}
	_ = unix.Close(d.fd)
	d.fd = -1
}

// removeTree removes a name and all below it, without following links.
func removeTree(parent int, base string) error {
	err := unix.Unlinkat(parent, base, 0)
	if err == nil || (err != unix.EISDIR && err != unix.EPERM) {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if err := removeTree(fd, name); err != nil {
				return err
			}
		}
		if err != nil {
			break
		}
		// The names read so far are removed; start over, since positions may have moved.
		if _, err := f.Seek(0, 0); err != nil {
			return err
		}
	}
	return unix.Unlinkat(parent, base, unix.AT_REMOVEDIR)
}

// whiteout hides a name of the layers below. A file of this layer under the name
// stays: by the image specification a whiteout applies to lower layers only.
func (l *Layer) whiteout(parent *dir, base string) error {
	if base == "" || base == "." || base == ".." {
		return fmt.Errorf("%w: a whiteout of %q", ErrHostile, base)
	}
	full := join(parent.path, base)
	if d := l.dirs[full]; d != nil {
		d.opaque, d.fresh = true, true
		return nil
	}
	err := unix.Mknodat(parent.fd, base, unix.S_IFCHR, 0)
	if err == unix.EEXIST {
		return nil
	}
	if err != nil {
		return pathError("mknod", full, err)
	}
	l.whiteouts[full] = struct{}{}
	return nil
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func readlink(fd int, base string) (string, error) {
	buf := make([]byte, maxName+1)
	n, err := unix.Readlinkat(fd, base, buf)
	return string(buf[:max(n, 0)]), err
}

func pathError(op, name string, err error) error {
	if errors.Is(err, unix.ENAMETOOLONG) {
		return fmt.Errorf("%w: a name is too long", ErrHostile)
	}
	return &os.PathError{Op: op, Path: clip(name), Err: err}
}
