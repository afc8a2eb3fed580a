package ramdisk

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
)

//go:embed files/careen.service
var systemdUnit string

//go:embed files/careen.openrc
var openrcScript string

// Paths inside the ramdisk.
const (
	// BinaryPath is where the binary goes.
	BinaryPath = "/usr/bin/careen"
	// InitPath is a link to careen. Booted with rdinit=InitPath, careen is the first process.
	InitPath = "/careen-init"
)

// Compression is the compression of the appended archive. It need not be that of the
// base.
type Compression string

// The compressions. Every kernel with initramfs unpacks gzip. zstd needs Linux 5.9; it
// is a tenth smaller and unpacks faster.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
	None Compression = "none"
)

// Unit is what starts the agent in the ramdisk.
type Unit string

// The units. UnitInit adds a link /careen-init: a ramdisk that is booted with
// rdinit=/careen-init has careen as its first process, which then runs the ramdisk's
// own /init if there is one. UnitNone adds nothing that starts the agent.
const (
	UnitSystemd Unit = "systemd"
	UnitOpenRC  Unit = "openrc"
	UnitInit    Unit = "init"
	UnitNone    Unit = "none"
)

// AppendOptions are the options of [Append].
type AppendOptions struct {
	// Base is the image to append to; "" makes an image with careen alone.
	Base string
	// Output is the file to write. It may be Base. It is replaced atomically when the new
	// image is complete.
	Output string
	// Binary is the static binary to add; "" is the running one.
	Binary string
	// Compression of what is added; "" is Gzip.
	Compression Compression
	// Unit starts the agent; "" is UnitSystemd.
	Unit Unit
	// Links are names in /usr/bin that lead to careen, as in {"podman"}.
	Links []string
	// Files are further files, such as a steps file. The key is the path in the ramdisk,
	// the value the path on this machine. All users of the ramdisk may read them; a file
	// that is executable here is executable there.
	Files map[string]string
}

// Result is the size of the parts of the new image, in bytes.
type Result struct {
	// Base is the size of the base, Added the size of the appended archive.
	Base  int64 `json:"base_bytes"`
	Added int64 `json:"added_bytes"`
}

// Append writes Base and then an archive with careen in it. The base is copied
// unchanged: the kernel unpacks one archive after the other, and a file of a later one
// replaces that of an earlier one. The same options give the same bytes.
//
// Errors have the code [fault.BadOption] for invalid options and for a base that is no
// initramfs, and [fault.Space] where the output does not fit. Other errors of the file
// system have no code, which is [fault.Internal].
func Append(ctx context.Context, opts AppendOptions) (Result, error) {
	if err := opts.setDefaults(); err != nil {
		return Result{}, err
	}
	var res Result
	err := file.ReplaceWith(opts.Output, 0o644, file.Whole, func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 1<<20)
		var err error
		if opts.Base != "" {
			if res.Base, err = copyBase(ctx, out, opts.Base); err != nil {
				return err
			}
		}
		added := &counter{w: out, ctx: ctx}
		if err = opts.write(added); err != nil {
			return err
		}
		res.Added = added.n
		return out.Flush()
	})
	if err != nil {
		return Result{}, opts.explain(err)
	}
	return res, nil
}

func (o *AppendOptions) setDefaults() error {
	bad := func(subject, reason, remedy string) error {
		return &fault.Error{Code: fault.BadOption, Op: "append careen to a ramdisk", Subject: subject, Reason: reason, Remedy: remedy}
	}
	if o.Output == "" {
		return bad("", "no output file was given", "Give one with --output-file")
	}
	if o.Binary == "" {
		o.Binary = "/proc/self/exe"
	}
	switch o.Compression {
	case "":
		o.Compression = Gzip
	case Gzip, Zstd, None:
	default:
		return bad(string(o.Compression), "not a compression", "Use gzip, zstd or none")
	}
	switch o.Unit {
	case "":
		o.Unit = UnitSystemd
	case UnitSystemd, UnitOpenRC, UnitInit, UnitNone:
	default:
		return bad(string(o.Unit), "not a way to start the agent", "Use systemd, openrc, init or none")
	}
	for _, name := range o.Links {
		if name == "" || name == "careen" || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
			return bad(name, "not the name of a link", "Use podman or docker")
		}
	}
	return o.checkBinary(bad)
}

// checkBinary refuses a dynamically linked binary, as an ordinary go build makes it: the
// ramdisk may lack the libraries.
func (o *AppendOptions) checkBinary(bad func(subject, reason, remedy string) error) error {
	static, err := isStatic(o.Binary)
	switch {
	case err != nil:
		return bad(o.Binary, err.Error(), "Give careen's binary with --binary")
	case !static:
		return bad(o.Binary, "it needs shared libraries", "Build it with make build, which links it statically")
	}
	return nil
}

func (o *AppendOptions) explain(err error) error {
	if errors.Is(err, errNoSpace) {
		return &fault.Error{
			Code: fault.Space, Op: "write", Subject: o.Output, Err: err, Remedy: "Write to a file system with more room",
		}
	}
	return err
}

// magics are the first bytes of the archives that the kernel unpacks.
var magics = [][]byte{
	[]byte("070701"), []byte("070702"), {0x1f, 0x8b}, {0x28, 0xb5, 0x2f, 0xfd}, {0xfd, '7', 'z', 'X', 'Z', 0},
	{0x02, 0x21, 0x4c, 0x18}, []byte("BZh"), {0x5d, 0, 0}, {0x89, 'L', 'Z', 'O'},
}

// copyBase copies the base, and zeros up to where an archive may begin.
func copyBase(ctx context.Context, w io.Writer, path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	head, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	known := false
	for _, magic := range magics {
		known = known || bytes.HasPrefix(head, magic)
	}
	if !known {
		return 0, &fault.Error{
			Code: fault.BadOption, Op: "append careen to", Subject: path,
			Reason: "it does not begin with an archive that the kernel unpacks",
			Remedy: "Give the ramdisk's image itself, not an ISO image, a kernel or a disk",
		}
	}
	n, err := io.Copy(&counter{w: w, ctx: ctx}, in)
	if err != nil {
		return 0, err
	}
	// Four bytes are what the kernel asks for; 512 is what cpio pads to.
	_, err = w.Write(make([]byte, (512-n%512)%512))
	return n, err
}

// write writes the added archive, compressed.
func (o *AppendOptions) write(w io.Writer) error {
	packed, err := o.compressor(w)
	if err != nil {
		return err
	}
	a := NewWriter(packed)
	if err := o.entries(a); err != nil {
		return err
	}
	if err := a.Close(); err != nil {
		return err
	}
	return packed.Close()
}

func (o *AppendOptions) compressor(w io.Writer) (io.WriteCloser, error) {
	switch o.Compression {
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.BestCompression)
	case Zstd:
		// One goroutine, since more would cut blocks as they come; the window is one
		// that a kernel with little memory can have.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	default:
		return nopCloser{w}, nil
	}
}

// maybeLinks are links in most ramdisks and directories in others.
var maybeLinks = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32", "var/lock", "var/run"}

// entries adds the files. It names only directories that are real directories in every
// ramdisk. Where /usr is merged, /bin and /lib are links, and the kernel would delete
// such a link for a directory entry. So the base has to have them.
func (o *AppendOptions) entries(a *Writer) error {
	if o.Base != "" {
		a.Assume(maybeLinks...)
	}
	if err := addFile(a, BinaryPath, o.Binary, 0o755); err != nil {
		return err
	}
	links := map[string]string{}
	for _, name := range o.Links {
		links["/usr/bin/"+name] = "careen"
	}
	switch o.Unit {
	case UnitSystemd:
		const unit = "/etc/systemd/system/careen.service"
		if err := addText(a, unit, systemdUnit, 0o644); err != nil {
			return err
		}
		links["/etc/systemd/system/multi-user.target.wants/careen.service"] = unit
	case UnitOpenRC:
		if err := addText(a, "/etc/init.d/careen", openrcScript, 0o755); err != nil {
			return err
		}
		links["/etc/runlevels/default/careen"] = "/etc/init.d/careen"
	case UnitInit:
		links[InitPath] = BinaryPath
	}
	for _, path := range sortedKeys(links) {
		if err := a.Add(Entry{Path: path, Mode: TypeLink | 0o777, Target: links[path]}); err != nil {
			return err
		}
	}
	for _, path := range sortedKeys(o.Files) {
		if err := addFile(a, path, o.Files[path], 0o644); err != nil {
			return err
		}
	}
	return nil
}

func addText(a *Writer, path, text string, mode uint32) error {
	return a.Add(Entry{Path: path, Mode: TypeFile | mode, Size: int64(len(text)), Body: strings.NewReader(text)})
}

// addFile adds a file of this machine, executable if it is executable here.
func addFile(a *Writer, path, from string, mode uint32) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("add %s to the ramdisk: not a regular file", from)
	}
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return a.Add(Entry{Path: path, Mode: TypeFile | mode, Size: info.Size(), Body: f})
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// counter counts what is written and stops when the context ends.
type counter struct {
	w   io.Writer
	ctx context.Context //nolint:containedctx // it lives as long as the call that made it
	n   int64
}

func (c *counter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
