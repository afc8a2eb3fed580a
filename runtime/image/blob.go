package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// byteRange is the value of a Range header for n bytes at an offset; n of -1 is
// all the rest.
func byteRange(at int64, n int) string {
	text := "bytes=" + strconv.FormatInt(at, 10) + "-"
	if n >= 0 {
		text += strconv.FormatInt(at+int64(n)-1, 10)
	}
	return text
}

// minProgress is how many bytes make a connection count as working, so that the
// retries start over. A server that gives one byte per connection runs out.
const minProgress = 64 << 10

// blobReader reads a blob from a registry as one stream. A connection that
// breaks or stalls is replaced by one that goes on at the same byte, on the
// next endpoint if need be; who reads notices nothing.
type blobReader struct {
	r       *registry
	ctx     context.Context //nolint:containedctx // the reader is the call
	desc    ocispec.Descriptor
	retry   *retrier
	at      int64
	started int64 // offset at which this connection began
	host    int   // index of the endpoint in use
	tried   int   // endpoints that failed in this round
	body    io.ReadCloser
	guard   *stallGuard
}

// blob opens a blob for streaming. Nothing is verified here: the caller hashes.
func (r *registry) blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return r.blobAt(ctx, desc, 0)
}

// blobAt is blob from a byte on.
func (r *registry) blobAt(ctx context.Context, desc ocispec.Descriptor, at int64) (io.ReadCloser, error) {
	b := &blobReader{r: r, ctx: context.WithValue(ctx, blobRequest{}, true), desc: desc, at: at, retry: r.p.retrier(r.req, r.onRetry)}
	for {
		err := b.connect()
		if err == nil {
			return b, nil
		}
		if err := b.failed(err); err != nil {
			return nil, err
		}
	}
}

// Read returns io.EOF only after the descriptor's size.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if b.at >= b.desc.Size {
			return 0, io.EOF
		}
		if b.body == nil {
			if err := b.connect(); err != nil {
				if err := b.failed(err); err != nil {
					return 0, err
				}
				continue
			}
		}
		n, err := b.guard.read(b.body, p[:min(int64(len(p)), b.desc.Size-b.at)])
		b.at += int64(n)
		if b.at-b.started >= minProgress {
			b.retry.progress()
			b.tried = 0
		}
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		err = b.cause(err)
		b.disconnect()
		if err := b.failed(err); err != nil {
			return 0, err
		}
	}
}

// cause prefers the reason of a cancelled request to the error it made.
func (b *blobReader) cause(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if b.guard != nil && b.guard.stalled() {
		return fmt.Errorf("%w of %s at byte %d of %d", errStalled, b.guard.limit, b.at, b.desc.Size)
	}
	return err
}

// failed decides what comes after a failure: the next endpoint at once, or the
// first one after a wait. It returns the error that ends the download.
func (b *blobReader) failed(err error) error {
	err = classify(err, "pull image", b.r.req.Original)
	if b.ctx.Err() != nil {
		return err
	}
	b.tried++
	b.host = (b.host + 1) % len(b.r.endpoints)
	if b.tried < len(b.r.endpoints) {
		return nil
	}
	b.tried, b.host = 0, 0
	return b.r.again(b.ctx, b.retry, err)
}

func (b *blobReader) connect() error {
	e := b.r.endpoints[b.host]
	ctx, guard := newStallGuard(b.ctx, b.r.p.cfg.Limits.Stall+b.r.p.cfg.Limits.Connect)
	guard.limit = b.r.p.cfg.Limits.Stall
	b.guard = guard
	header := http.Header{}
	if b.at > 0 {
		header.Set("Range", byteRange(b.at, -1))
	}
	resp, err := b.r.send(ctx, e, http.MethodGet, e.url("blobs", b.desc.Digest.String()), header)
	if err != nil {
		err = b.cause(err)
		guard.close()
		return err
	}
	b.body = resp.Body
	if err := b.position(resp); err != nil {
		err = b.cause(err)
		b.disconnect()
		return err
	}
	b.started = b.at
	return nil
}

// position makes the body's next byte the one that is wanted. A server that
// ignored Range is read from the start up to there.
func (b *blobReader) position(resp *http.Response) error {
	total := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent && total >= 0 {
		total += b.at
	}
	if total >= 0 && total != b.desc.Size {
		return badImage("blob "+b.desc.Digest.String(), "it has %d bytes in the registry, and %d by the manifest", total, b.desc.Size)
	}
	if resp.StatusCode == http.StatusPartialContent {
		want := "bytes " + strconv.FormatInt(b.at, 10) + "-"
		if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, want) {
			return &statusError{status: resp.StatusCode, host: resp.Request.URL.Host, detail: "sent another range than asked for"}
		}
		return nil
	}
	buf := make([]byte, 64<<10)
	for skip := b.at; skip > 0; {
		n, err := b.guard.read(resp.Body, buf[:min(int64(len(buf)), skip)])
		skip -= int64(n)
		if err != nil && skip > 0 {
			return fmt.Errorf("skip to byte %d: %w", b.at, err)
		}
	}
	return nil
}

func (b *blobReader) disconnect() {
	if b.body != nil {
		_ = b.body.Close()
		b.body = nil
	}
	if b.guard != nil {
		b.guard.close()
		b.guard = nil
	}
}

// Close drops the connection.
func (b *blobReader) Close() error {
	b.disconnect()
	return nil
}
