package untar

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// lower is what the layers below show together, as overlayfs will merge them.
type lower struct {
	fds []int // the topmost first
}

func openLower(directories []string) (*lower, error) {
	w := &lower{}
	for _, d := range directories {
		fd, err := unix.Open(d, unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("open layer below: %w", err)
		}
		w.fds = append(w.fds, fd)
	}
	return w, nil
}

func (w *lower) close() {
	for _, fd := range w.fds {
		_ = unix.Close(fd)
	}
}

// find returns the descriptor of the layer that shows name, and its attributes.
// No symbolic link is followed; -1 means that nothing is shown.
func (w *lower) find(name string) (int, unix.Stat_t, error) {
	var st unix.Stat_t
	for _, fd := range w.fds {
		found, last, err := lookInLayer(fd, name, &st)
		if err != nil {
			return -1, st, err
		}
		if found {
			return fd, st, nil
		}
		if last {
			break
		}
	}
	return -1, st, nil
}

// lookInLayer looks for name in one layer. last says that no layer below this
// one can show it: this layer deletes it or hides it.
func lookInLayer(fd int, name string, st *unix.Stat_t) (found, last bool, err error) {
	for end := 0; end < len(name); {
		next := strings.IndexByte(name[end:], '/')
		if next < 0 {
			next = len(name)
		} else {
			next += end
		}
		part := name[:next]
		// Every earlier part is a directory of this layer.
		err := unix.Fstatat(fd, part, st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			return false, last, nil
		}
		if err != nil {
			return false, true, pathError("stat", part, err)
		}
		if isWhiteout(st) {
			return false, true, nil
		}
		if next == len(name) {
			return true, true, nil
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return false, true, nil
		}
		if !last {
			last = isOpaque(fd, part)
		}
		end = next + 1
	}
	return false, last, nil
}

func isOpaque(fd int, name string) bool {
	var value [1]byte
	n, err := unix.Lgetxattr(procPath(fd)+"/"+name, opaqueAttr, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// follow is find for a file that a hard link names: symbolic links of parent
// directories are followed inside the merged layers.
func (w *lower) follow(name string) (canonical string, fd int, st unix.Stat_t, err error) {
	rest, at := name, ""
	for links := 0; ; {
		base, more, deeper := strings.Cut(rest, "/")
		at = path.Join(at, base)
		fd, st, err = w.find(at)
		if err != nil || fd < 0 || !deeper {
			return at, fd, st, err
		}
		rest = more
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			continue
		}
		if links++; links > maxSymlinks {
			return at, -1, st, fmt.Errorf("%w: too many symbolic links", ErrHostile)
		}
		target, err := readlink(fd, at)
		if err != nil {
			return at, -1, st, pathError("readlink", at, err)
		}
		if !strings.HasPrefix(target, "/") {
			target = "/" + path.Dir(at) + "/" + target
		}
		// Clean of a rooted path cannot climb above the root.
		rest, at = strings.TrimPrefix(path.Clean(target+"/"+rest), "/"), ""
	}
}

// copyUp copies a file of the layers below into this one, with all of its attributes,
// and returns its new place.
func (l *Layer) copyUp(ctx context.Context, target string) (*dir, string, error) {
	absent := fmt.Errorf("%w: a hard link to %q, which does not exist", ErrMalformed, clip(target))
	if l.opts.Lower == nil {
		return nil, "", absent
	}
	directories, err := l.opts.Lower(ctx)
	if err != nil {
		return nil, "", err
	}
	w, err := openLower(directories)
	if err != nil {
		return nil, "", err
	}
	defer w.close()
	// The layers below do not show names that this layer deletes or makes opaque.
	if l.hides(target) {
		return nil, "", absent
	}
	name, fd, st, err := w.follow(target)
	if err != nil {
		return nil, "", err
	}
	if fd < 0 || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil, "", absent
	}
	parentName, base := split(name)
	parent, err := l.directory(parentName)
	if err != nil {
		return nil, "", err
	}
	if err := l.opts.Charge(1, 0, 0); err != nil {
		return nil, "", err
	}
	return parent, base, l.copyFile(ctx, fd, name, &st, parent, base)
}

// hides reports whether this layer keeps name of the layers below from view.
func (l *Layer) hides(name string) bool {
	for at := name; at != ""; at, _ = split(at) {
		if _, ok := l.whiteouts[at]; ok {
			return true
		}
		if d := l.dirs[at]; d != nil && d.opaque {
			return true
		}
	}
	return l.dirs[""].opaque
}

func (l *Layer) copyFile(ctx context.Context, from int, name string, st *unix.Stat_t, parent *dir, base string) error {
	h := headerOf(st)
	if err := readXattrs(procPath(from)+"/"+name, h); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return pathError("open", name, err)
		}
		defer unix.Close(fd)
		h.Size = st.Size
		return l.regular(ctx, parent, base, h, fdReader(fd))
	case unix.S_IFLNK:
		target, err := readlink(from, name)
		if err != nil {
			return pathError("readlink", name, err)
		}
		h.Linkname = target
		return l.symlink(parent, base, h)
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		return l.node(parent, base, st.Mode&unix.S_IFMT, h)
	default:
		return errors.New("a kind of file that layers do not have")
	}
}
