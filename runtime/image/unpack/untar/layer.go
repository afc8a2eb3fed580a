package untar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrHostile is wrapped by errors about streams that only an attacker makes.
var ErrHostile = errors.New("hostile layer")

// ErrMalformed is wrapped by errors about streams that are not a layer.
var ErrMalformed = errors.New("malformed layer")

const (
	maxName      = 4096 // bytes of a path, as PATH_MAX
	maxSymlinks  = 40   // links followed for one name, as the kernel's limit
	opaqueMarker = ".wh..wh..opq"
	metaPrefix   = ".wh..wh."
	prefix       = ".wh."
	opaqueAttr   = "trusted.overlay.opaque"
	copySize     = 256 << 10
)

// Options are the functions that a layer calls.
type Options struct {
	// Charge is called before space is used: stored is the number of bytes that will be
	// written, logical the size of files with their holes, entries the number of inodes. Its
	// error ends the unpacking. It may be nil.
	Charge func(entries, stored, logical int64) error
	// Lower returns the directories of the layers below, the topmost first, once
	// they are complete. It is called only for a hard link that needs them.
	Lower func(context.Context) ([]string, error)
}

// Layer is a layer being unpacked. It is for one goroutine at a time.
type Layer struct {
	opts Options
	root int // descriptor of the directory
	buf  []byte

	dirs      map[string]*dir     // by canonical path, "" is the root
	aliases   map[string]*dir     // names that lead to them, over symbolic links too
	open      []*dir              // directories with a descriptor, oldest first
	whiteouts map[string]struct{} // paths of whiteouts made by this layer
	fifo      int
}

// dir is a directory of this layer. Its attributes are set at the end: before,
// every file made in it would change its time, and a set-group-id bit or a
// default ACL would change the file.
type dir struct {
	path   string
	fd     int
	header *tar.Header // nil while it is only passed through
	// opaque hides what layers below have in it. fresh says that it is not the
	// directory that they have there, so that it takes nothing of its attributes.
	opaque, fresh bool
}

// New starts a layer in a directory, which has to be empty.
func New(directory string, opts Options) (*Layer, error) {
	fd, err := unix.Open(directory, unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: directory, Err: err}
	}
	if opts.Charge == nil {
		opts.Charge = func(_, _, _ int64) error { return nil }
	}
	l := &Layer{opts: opts, root: fd, buf: make([]byte, copySize), dirs: map[string]*dir{}, aliases: map[string]*dir{},
		whiteouts: map[string]struct{}{}}
	l.dirs[""] = &dir{fd: fd}
	return l, nil
}

// Close releases the descriptors. It does not remove anything.
func (l *Layer) Close() error {
	for _, d := range l.open {
		_ = unix.Close(d.fd)
	}
	l.open = nil
	return unix.Close(l.root)
}

// Extract unpacks the whole stream up to its end, padding included.
func (l *Layer) Extract(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return streamError(err)
		}
		if err := l.entry(ctx, h, tr); err != nil {
			return fmt.Errorf("entry %q: %w", clip(h.Name), err)
		}
	}
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, l.buf)
	return err
}

// streamError distinguishes a malformed tar stream from one that broke off.
func streamError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return err
}

func clip(name string) string {
	if len(name) > 200 {
		return name[:200] + "..."
	}
	return name
}

// cleanName makes a name relative to the root of the layer, "" for the root
// itself. Leading slashes are dropped, as tar does.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("%w: the name has a zero byte", ErrHostile)
	}
	if len(name) > maxName {
		return "", fmt.Errorf("%w: the name has %d bytes", ErrHostile, len(name))
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("%w: the name climbs out of the image", ErrHostile)
	}
	if clean == "." {
		return "", nil
	}
	return clean, nil
}

func split(name string) (parent, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

func (l *Layer) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= 1<<32-1 || int64(h.Gid) >= 1<<32-1 {
		return fmt.Errorf("%w: owner %d:%d", ErrMalformed, h.Uid, h.Gid)
	}
	if name == "" {
		if h.Typeflag == tar.TypeDir {
			l.dirs[""].header = h
			return nil
		}
		return fmt.Errorf("%w: the root is not a directory", ErrHostile)
	}
	// The length of the name is charged as well: names are kept in memory.
	if err := l.opts.Charge(1, int64(len(name)), 0); err != nil {
		return err
	}
	parentName, base := split(name)
	parent, err := l.directory(parentName)
	if err != nil {
		return err
	}
	switch {
	case base == opaqueMarker:
		parent.opaque = true
		return nil
	case strings.HasPrefix(base, metaPrefix):
		return nil // aufs's own metadata
	case strings.HasPrefix(base, prefix):
		return l.whiteout(parent, base[len(prefix):])
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return l.makeDir(parent, base, h)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, 0:
		return l.regular(ctx, parent, base, h, r)
	case tar.TypeSymlink:
		return l.symlink(parent, base, h)
	case tar.TypeLink:
		return l.hardLink(ctx, parent, base, h)
	case tar.TypeChar:
		if h.Devmajor == 0 && h.Devminor == 0 {
			return l.whiteout(parent, base) // overlay has no other use of this device
		}
		return l.node(parent, base, unix.S_IFCHR, h)
	case tar.TypeBlock:
		return l.node(parent, base, unix.S_IFBLK, h)
	case tar.TypeFifo:
		return l.node(parent, base, unix.S_IFIFO, h)
	default:
		return fmt.Errorf("%w: unknown kind of entry %q", ErrMalformed, h.Typeflag)
	}
}
