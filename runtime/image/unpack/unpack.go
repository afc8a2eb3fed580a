package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	gunzip "github.com/careen-project/careen/runtime/image/unpack/inflate"
	"github.com/careen-project/careen/runtime/image/unpack/untar"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Layer is what a layer has to be, by the image's manifest and configuration.
type Layer struct {
	// Image is the image's reference, for errors.
	Image string
	// Digest and Size, in bytes, are those of the blob.
	Digest digest.Digest
	Size   int64
	// DiffID is the digest of the unpacked tar stream.
	DiffID digest.Digest
}

// Extract streams one layer into target:
//
//	blob ─► [digest]
//	     └► inflate ─► [diff-ID]
//	                └► untar
//
// Each part is a goroutine, so that an image of one layer uses more than one processor.
// Nothing is trusted before all of them are done: the caller commits the directory after
// Extract returned nil.
//
// open opens the blob; its context ends with the pipeline, so that the rest of a layer
// that cannot be stored is not downloaded. plain may wrap the reader of the unpacked
// stream.
//
// Errors of open and of untar.Options.Charge are returned as they are. Wrong content is
// [fault.BadImage] or [fault.Digest], a full store [fault.Space] or [fault.Memory], a
// broken one [fault.Node]; see package failure for the others.
func Extract(ctx context.Context, want Layer, target *untar.Layer, open func(context.Context) (io.ReadCloser, error),
	plain func(context.Context, io.Reader) io.Reader,
) error {
	group, ctx := errgroup.WithContext(ctx)
	blob, err := open(ctx)
	if err != nil {
		return err
	}
	defer blob.Close()
	wire := newStream(2)
	group.Go(func() error { return wire.pump(ctx, blob) })
	group.Go(func() error { return verifyLayer(wire.outs[0], want.Digest, want.Size, "layer") })
	var content error
	group.Go(func() error {
		content = extractStream(ctx, wire.outs[1], want.DiffID, target, plain)
		if content != nil && !aboutContent(content) {
			return content
		}
		// Wrong content may come from the registry or from the builder. Only the digest of
		// the whole layer tells which, so the layer is read to its end.
		return wire.outs[1].each(func([]byte) {})
	})
	if err := group.Wait(); err != nil {
		return LayerError(err, want.Image, want.Digest)
	}
	return LayerError(content, want.Image, want.Digest)
}

// extractStream is the part of the pipeline behind the blob.
func extractStream(ctx context.Context, in *reader, diffID digest.Digest, target *untar.Layer,
	plain func(context.Context, io.Reader) io.Reader,
) error {
	group, ctx := errgroup.WithContext(ctx)
	out := newStream(2)
	group.Go(func() error { return inflate(ctx, in, out) })
	group.Go(func() error { return verifyLayer(out.outs[0], diffID, -1, "unpacked layer") })
	group.Go(func() error { return target.Extract(ctx, plain(ctx, out.outs[1])) })
	return group.Wait()
}

// aboutContent reports whether err says that the layer is wrong, and not that it
// could not be downloaded or stored.
func aboutContent(err error) bool {
	return errors.Is(err, untar.ErrHostile) || errors.Is(err, untar.ErrMalformed) || errors.Is(err, ErrCorrupt) ||
		fault.CodeOf(err) == fault.Digest
}

// verifyLayer hashes a stream and compares the digest and the size. A size of -1 is not compared.
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
		return failure.DigestMismatch(subject, want, got)
	}
	return nil
}

// The first bytes of a compressed layer (RFC 1952, RFC 8878).
var (
	GzipMagic = []byte{0x1f, 0x8b}
	ZstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	// A zstd stream may begin with a frame to skip, 0x184D2A50 to 5F.
	zstdSkip = []byte{0x2a, 0x4d, 0x18}
)

// inflate chooses the decompressor by the first bytes, as every engine does. A stream
// that is not compressed passes unchanged.
func inflate(ctx context.Context, in *reader, out *stream) error {
	head, err := in.Next()
	if err != nil && err != io.EOF {
		return out.pump(ctx, failing{err})
	}
	var r io.Reader = in
	switch {
	case bytes.HasPrefix(head, GzipMagic):
		r = gunzip.NewReader(in)
	case bytes.HasPrefix(head, ZstdMagic), len(head) >= 4 && bytes.Equal(head[1:4], zstdSkip) && head[0]&0xf0 == 0x50:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return out.pump(ctx, failing{Corrupt(err)})
		}
		defer z.Close()
		r = z
	}
	return out.pump(ctx, corruptReader{r})
}

// maxZstdWindow bounds the memory that a frame may make the decoder allocate, in bytes.
// "zstd --ultra --long=27" needs this much, and no layer needs more.
const maxZstdWindow = 128 << 20

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// ErrCorrupt is wrapped by errors of a decompressor about its input.
var ErrCorrupt = errors.New("corrupt compressed data")

// Corrupt marks an error as one of a decompressor about its input.
func Corrupt(err error) error { return fmt.Errorf("%w: %w", ErrCorrupt, err) }

// corruptReader marks the errors of a decompressor. Errors of the stream before it pass
// unchanged, since they have another cause.
type corruptReader struct{ r io.Reader }

func (c corruptReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF && isDecodeError(err) {
		err = Corrupt(err)
	}
	return n, err
}

func isDecodeError(err error) bool {
	var known *fault.Error
	return !errors.As(err, &known) && !errors.Is(err, context.Canceled) && !errors.Is(err, failure.ErrTotal)
}

// LayerError turns an error of unpacking one layer of an image into a *fault.Error:
// [fault.BadImage] for wrong content, else as [failure.Classify]. nil stays nil.
func LayerError(err error, image string, of digest.Digest) error {
	if err == nil {
		return nil
	}
	var known *fault.Error
	switch name := "layer " + of.String(); {
	case errors.As(err, &known):
		return err
	case aboutContent(err):
		return &fault.Error{Code: fault.BadImage, Op: "unpack", Subject: name, Err: err, Reason: fault.OneLine(err.Error(), 400),
			Remedy: "Build the image again, and check where it comes from", Attrs: map[string]any{"image": image}}
	default:
		return failure.Classify(err, "unpack", name)
	}
}
