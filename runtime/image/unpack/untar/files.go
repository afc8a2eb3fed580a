package untar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const xattrRecord = "SCHILY.xattr."

// create makes a file of any type under a name, after removing an existing one.
func (l *Layer) create(parent *dir, base string, mk func() error) error {
	err := mk()
	if err == unix.EEXIST {
		if err = l.remove(parent, base); err != nil {
			return err
		}
		err = mk()
	}
	if err != nil {
		return pathError("create", join(parent.path, base), err)
	}
	return nil
}

func (l *Layer) regular(ctx context.Context, parent *dir, base string, h *tar.Header, r io.Reader) error {
	if err := l.opts.Charge(0, 0, h.Size); err != nil {
		return err
	}
	fd := -1
	err := l.create(parent, base, func() (err error) {
		fd, err = unix.Openat(parent.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = l.fill(ctx, fd, h.Size, r)
	if err == nil {
		err = setFile(fd, h)
	}
	if err1 := unix.Close(fd); err == nil && err1 != nil {
		err = err1
	}
	return err
}

const page = 4096

var zeroPage [page]byte

// fill copies the file's content. It skips whole pages of zeros: the file
// reads the same, and in a store in memory they cost nothing.
func (l *Layer) fill(ctx context.Context, fd int, size int64, r io.Reader) error {
	var at int64
	hole := false // the file's length is behind at
	for at < size {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(r, l.buf[:min(int64(len(l.buf)), size-at)])
		if err != nil {
			return streamError(err)
		}
		b := l.buf[:n]
		for len(b) > 0 {
			data, skip := run(b)
			if skip {
				hole = true
			} else {
				if err := l.opts.Charge(0, int64(len(data)), 0); err != nil {
					return err
				}
				if err := writeAt(fd, data, at, hole); err != nil {
					return err
				}
			}
			at += int64(len(data))
			b = b[len(data):]
		}
		// Positions are absolute after the first hole, relative before.
	}
	if hole {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

// run returns the longest start of b that is all data, or all pages of zeros.
func run(b []byte) (part []byte, zero bool) {
	end := 0
	for end+page <= len(b) && isZero(b[end:end+page]) {
		end += page
	}
	if end > 0 {
		return b[:end], true
	}
	for end < len(b) {
		next := min(end+page, len(b))
		if next-end == page && isZero(b[end:next]) {
			break
		}
		end = next
	}
	return b[:end], false
}

func isZero(b []byte) bool {
	return b[0] == 0 && b[len(b)-1] == 0 && bytes.Equal(b, zeroPage[:])
}

func writeAt(fd int, b []byte, at int64, positioned bool) error {
	for len(b) > 0 {
		var n int
		var err error
		if positioned {
			n, err = unix.Pwrite(fd, b, at)
		} else {
			n, err = unix.Write(fd, b)
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// setFile sets the attributes of a file: the owner first, since a new owner clears
// set-user-id bits and capabilities, and the times last.
func setFile(fd int, h *tar.Header) error {
	if h.Uid != 0 || h.Gid != 0 {
		if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	if err := unix.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	err := eachXattr(h, func(name, value string) error {
		return ignorable(unix.Fsetxattr(fd, name, []byte(value), 0), name, true)
	})
	if err != nil {
		return err
	}
	ts := times(h)
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("set times: %w", errno)
	}
	return nil
}

func times(h *tar.Header) [2]unix.Timespec {
	mtime := h.ModTime
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	atime := h.AccessTime
	if atime.IsZero() {
		atime = mtime
	}
	return [2]unix.Timespec{timespec(atime), timespec(mtime)}
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// eachXattr calls set for the extended attributes that a layer may have. With overlay's own
// attributes, overlayfs would show other directories than those of the layer.
func eachXattr(h *tar.Header, set func(name, value string) error) error {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// ignorable drops errors that mean only that this file system or this type of file has no
// such attribute, as podman and containerd do.
func ignorable(err error, name string, plain bool) error {
	switch {
	case err == nil, err == unix.ENOTSUP:
		return nil
	case err == unix.EPERM && !plain && strings.HasPrefix(name, "user."):
		return nil
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.EINVAL), errors.Is(err, unix.E2BIG):
		return fmt.Errorf("%w: extended attribute %q: %w", ErrMalformed, clip(name), err)
	default:
		return fmt.Errorf("extended attribute %q: %w", clip(name), err)
	}
}

func (l *Layer) symlink(parent *dir, base string, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) >= maxName || strings.IndexByte(h.Linkname, 0) >= 0 {
		return fmt.Errorf("%w: a symbolic link to %q", ErrMalformed, clip(h.Linkname))
	}
	if err := l.create(parent, base, func() error { return unix.Symlinkat(h.Linkname, parent.fd, base) }); err != nil {
		return err
	}
	return l.setSpecial(parent, base, h, false)
}

func (l *Layer) node(parent *dir, base string, kind uint32, h *tar.Header) error {
	dev := uint64(0)
	if kind != unix.S_IFIFO {
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return fmt.Errorf("%w: device %d:%d", ErrMalformed, h.Devmajor, h.Devminor)
		}
		dev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	err := l.create(parent, base, func() error { return unix.Mknodat(parent.fd, base, kind|0o600, int(dev)) })
	if err != nil {
		return err
	}
	return l.setSpecial(parent, base, h, true)
}

// setSpecial is setFile for files that cannot be opened: links, devices, pipes.
func (l *Layer) setSpecial(parent *dir, base string, h *tar.Header, mode bool) error {
	if h.Uid != 0 || h.Gid != 0 {
		if err := unix.Fchownat(parent.fd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	if mode { // the file is not a symbolic link, so chmod follows none
		if err := unix.Fchmodat(parent.fd, base, uint32(h.Mode&0o7777), 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	err := eachXattr(h, func(name, value string) error {
		return ignorable(unix.Lsetxattr(procPath(parent.fd)+"/"+base, name, []byte(value), 0), name, false)
	})
	if err != nil {
		return err
	}
	ts := times(h)
	if err := unix.UtimesNanoAt(parent.fd, base, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// hardLink links to a file of this layer, or to one of a layer below, which is
// copied into this layer first, as the kernel does for a link in an overlay.
func (l *Layer) hardLink(ctx context.Context, parent *dir, base string, h *tar.Header) error {
	target, err := cleanName(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link: %w", err)
	}
	if target == "" {
		return fmt.Errorf("%w: a hard link to the root", ErrHostile)
	}
	if target == join(parent.path, base) {
		return fmt.Errorf("%w: a hard link to itself", ErrMalformed)
	}
	dirName, name := split(target)
	from, err := l.existing(dirName)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if from != nil {
		err = unix.Fstatat(from.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if from == nil || err == unix.ENOENT {
		if from, name, err = l.copyUp(ctx, target); err != nil {
			return err
		}
	} else if err != nil {
		return pathError("stat", target, err)
	} else if isWhiteout(&st) || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("%w: a hard link to %q, which is no file", ErrMalformed, clip(target))
	}
	// Making room for other directories may have closed the parent's descriptor.
	if err := l.ensureOpen(parent); err != nil {
		return err
	}
	if err := l.ensureOpen(from); err != nil {
		return err
	}
	return l.create(parent, base, func() error { return unix.Linkat(from.fd, name, parent.fd, base, 0) })
}

// existing is like directory but makes nothing: nil if there is no directory.
func (l *Layer) existing(name string) (*dir, error) {
	if d := l.dirs[name]; d != nil {
		return d, l.ensureOpen(d)
	}
	if d := l.aliases[name]; d != nil {
		return d, l.ensureOpen(d)
	}
	// Over a symbolic link of this layer: rare, and making the directory that the
	// link leads to would be wrong, so look first.
	var st unix.Stat_t
	at := l.dirs[""]
	for _, base := range strings.Split(name, "/") {
		if d := l.dirs[join(at.path, base)]; d != nil {
			at = d
			continue
		}
		if err := l.ensureOpen(at); err != nil {
			return nil, err
		}
		err := unix.Fstatat(at.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			return nil, nil
		}
		if err != nil {
			return nil, pathError("stat", name, err)
		}
		links := 0
		next, err := l.step(at, base, &links)
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, l.ensureOpen(at)
}
