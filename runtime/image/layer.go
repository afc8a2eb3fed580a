package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/careen-project/careen/agent/fault"
	gunzip "github.com/careen-project/careen/runtime/image/unpack/inflate"
	"github.com/careen-project/careen/runtime/image/unpack/untar"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// extract streams one layer into target:
//
//	connection ─► [digest]
//	           └► inflate ─► [diff-ID]
//	                      └► unpack
//
// Each part is a goroutine of its own, so that an image of one layer uses more
// than one processor. Nothing is believed before all of them are done: the
// caller commits the directory only then.
func (u *unpacker) extract(ctx context.Context, i int, target *untar.Layer, busy busyFunc) error {
	l := u.layers[i]
	// The download ends with the pipeline: a layer that cannot be stored is not
	// read to its end.
	group, ctx := errgroup.WithContext(ctx)
	blob, err := u.src.blob(ctx, l.desc)
	if err != nil {
		return err
	}
	defer blob.Close()
	wire := newStream(2)
	group.Go(func() error { return wire.pump(ctx, u.meter(ctx, i, blob, busy)) })
	group.Go(func() error { return verifyLayer(wire.outs[0], l.desc.Digest, l.desc.Size, "layer") })
	var content error
	group.Go(func() error {
		content = u.unpackStream(ctx, wire.outs[1], l.diffID, target, busy)
		if content != nil && !aboutContent(content) {
			return content
		}
		// Wrong content may be the registry's or the builder's. Only the digest of
		// the whole layer tells, so that is read to its end.
		return wire.outs[1].each(func([]byte) {})
	})
	if err := group.Wait(); err != nil {
		return layerError(err, u.j.req.Original, l.desc)
	}
	return layerError(content, u.j.req.Original, l.desc)
}

// unpackStream is the part of the pipeline behind the connection.
func (u *unpacker) unpackStream(ctx context.Context, in *reader, diffID digest.Digest, target *untar.Layer, busy busyFunc) error {
	group, ctx := errgroup.WithContext(ctx)
	plain := newStream(2)
	group.Go(func() error { return inflate(ctx, in, plain) })
	group.Go(func() error { return verifyLayer(plain.outs[0], diffID, -1, "unpacked layer") })
	group.Go(func() error { return target.Extract(ctx, u.paced(ctx, plain.outs[1], busy)) })
	return group.Wait()
}

// aboutContent reports whether err says that the layer is wrong, and not that it
// could not be had or stored.
func aboutContent(err error) bool {
	return errors.Is(err, untar.ErrHostile) || errors.Is(err, untar.ErrMalformed) || errors.Is(err, errCorrupt) ||
		fault.CodeOf(err) == fault.Digest
}

// meter returns a reader of a layer's blob that counts what arrives and, for a
// background pull, keeps to the limit.
func (u *unpacker) meter(ctx context.Context, i int, blob io.Reader, busy busyFunc) io.Reader {
	u.j.progress.layer(i, "downloading", 0)
	return u.paced(ctx, &meter{blob, &u.j.progress.received[i]}, busy)
}

func (u *unpacker) paced(ctx context.Context, r io.Reader, busy busyFunc) io.Reader {
	if busy == nil {
		return r
	}
	return &paced{r: r, ctx: ctx, limit: u.p.background, busy: busy}
}

type meter struct {
	r    io.Reader
	done *atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.done.Add(int64(n))
	return n, err
}

// verifyLayer hashes a stream and compares. A size of -1 is not checked.
func verifyLayer(r *reader, want digest.Digest, size int64, subject string) error {
	hash := want.Algorithm().Hash()
	var n int64
	if err := r.each(func(b []byte) {
		_, _ = hash.Write(b)
		n += int64(len(b))
	}); err != nil {
		return err
	}
	got := digest.NewDigest(want.Algorithm(), hash)
	if got != want || (size >= 0 && n != size) {
		return digestMismatch(subject, want, got)
	}
	return nil
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	// A zstd stream may begin with a frame to skip, 0x184D2A50 to 5F.
	zstdSkip = []byte{0x2a, 0x4d, 0x18}
)

// inflate decompresses by the first bytes, as every engine does; what is not
// compressed passes as it is.
func inflate(ctx context.Context, in *reader, out *stream) error {
	head, err := in.Next()
	if err != nil && err != io.EOF {
		return out.pump(ctx, failing{err})
	}
	var r io.Reader = in
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		r = gunzip.NewReader(in)
	case bytes.HasPrefix(head, zstdMagic), len(head) >= 4 && bytes.Equal(head[1:4], zstdSkip) && head[0]&0xf0 == 0x50:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return out.pump(ctx, failing{corrupt(err)})
		}
		defer z.Close()
		r = z
	}
	return out.pump(ctx, corruptReader{r})
}

// maxZstdWindow bounds what a frame may make the decoder allocate; "zstd --ultra
// --long=27" needs as much, and no layer more.
const maxZstdWindow = 128 << 20

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

var errCorrupt = errors.New("corrupt compressed data")

func corrupt(err error) error { return fmt.Errorf("%w: %w", errCorrupt, err) }

// corruptReader marks what a decompressor finds wrong. Errors of the stream in
// front of it pass as they are, since they have another cause.
type corruptReader struct{ r io.Reader }

func (c corruptReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF && isDecodeError(err) {
		err = corrupt(err)
	}
	return n, err
}

func isDecodeError(err error) bool {
	var known *fault.Error
	return !errors.As(err, &known) && !errors.Is(err, context.Canceled) && !errors.Is(err, errTotal)
}

// layerError says what the failure of a pipeline means.
func layerError(err error, image string, desc ocispec.Descriptor) error {
	if err == nil {
		return nil
	}
	name := "layer " + desc.Digest.String()
	bad := func(reason string) error {
		return &fault.Error{Code: fault.BadImage, Op: "unpack", Subject: name, Err: err, Reason: reason,
			Remedy: "Build the image again, and check where it comes from", Attrs: map[string]any{"image": image}}
	}
	var known *fault.Error
	switch {
	case errors.As(err, &known):
		return err
	case aboutContent(err):
		return bad(fault.OneLine(err.Error(), 400))
	default:
		return classify(err, "unpack", name)
	}
}
