package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/careen-project/careen/runtime/image/failure"
)

// minProgress is the number of bytes after which a connection counts as working, so that
// the retries start over. A server that sends one byte per connection uses them up.
const minProgress = 64 << 10

// Options say how a blob is fetched. All fields are needed.
type Options struct {
	// Name is the blob's digest, for errors.
	Name string
	// Size is the blob's size in bytes by its descriptor.
	Size int64
	// Hosts is the number of hosts that may have the blob. They are tried in order.
	Hosts int
	// Get requests the blob from a host, with a header that may have a Range. It returns
	// an answer with a status below 300; the body is closed by the Blob.
	Get func(ctx context.Context, host int, header http.Header) (*http.Response, error)
	// Failed is called when all hosts have failed, with the error of the last one, or when
	// ctx has ended. It waits until the hosts may be tried again and returns nil, or
	// returns the error that ends the download.
	Failed func(ctx context.Context, host int, err error) error
	// Progress is called when a connection has brought some data.
	Progress func()
	// Stall is how long a connection may bring no byte; Connect is added to it for the
	// time until the answer begins.
	Stall, Connect time.Duration
}

// Blob reads a blob as one stream. A connection that breaks or stalls is replaced by one
// that goes on at the same byte, at the next host if there is one.
type Blob struct {
	opts    Options
	ctx     context.Context //nolint:containedctx // the reader is the call
	at      int64
	started int64 // offset at which this connection began
	host    int   // index of the host in use
	tried   int   // hosts that failed in this round
	body    io.ReadCloser
	guard   *StallGuard
}

// Open opens a blob for streaming. Nothing is verified here: the caller hashes. Errors are
// those of Options.Failed.
func Open(ctx context.Context, opts Options) (*Blob, error) {
	b := &Blob{opts: opts, ctx: ctx}
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

// Host is the index of the host that the last byte came from.
func (b *Blob) Host() int { return b.host }

// Read returns io.EOF only after Options.Size bytes. Other errors are those of
// Options.Failed.
func (b *Blob) Read(p []byte) (int, error) {
	for {
		if b.at >= b.opts.Size {
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
		n, err := b.guard.read(b.body, p[:min(int64(len(p)), b.opts.Size-b.at)])
		b.at += int64(n)
		if b.at-b.started >= minProgress {
			b.opts.Progress()
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

// cause prefers the reason for which a request was cancelled to the error that followed.
func (b *Blob) cause(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if b.guard != nil && b.guard.Stalled() {
		return fmt.Errorf("%w of %s at byte %d of %d", failure.ErrStalled, b.guard.limit, b.at, b.opts.Size)
	}
	return err
}

// failed chooses what comes after a failure: the next host at once, or the first one
// after Options.Failed agreed. It returns the error that ends the download.
func (b *Blob) failed(err error) error {
	failed := b.host
	if b.ctx.Err() != nil {
		return b.opts.Failed(b.ctx, failed, err)
	}
	b.tried++
	b.host = (b.host + 1) % b.opts.Hosts
	if b.tried < b.opts.Hosts {
		return nil
	}
	b.tried, b.host = 0, 0
	return b.opts.Failed(b.ctx, failed, err)
}

func (b *Blob) connect() error {
	ctx, guard := NewStallGuard(b.ctx, b.opts.Stall+b.opts.Connect)
	guard.limit = b.opts.Stall
	b.guard = guard
	header := http.Header{}
	if b.at > 0 {
		header.Set("Range", ByteRange(b.at, -1))
	}
	resp, err := b.opts.Get(ctx, b.host, header)
	if err != nil {
		err = b.cause(err)
		guard.Close()
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

// position makes the body's next byte the one that is wanted. The answer of a server that
// ignored Range is read and dropped up to there.
func (b *Blob) position(resp *http.Response) error {
	total := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent && total >= 0 {
		total += b.at
	}
	if total >= 0 && total != b.opts.Size {
		return failure.BadImage("blob "+b.opts.Name, "it has %d bytes in the registry, and %d by the manifest", total, b.opts.Size)
	}
	if resp.StatusCode == http.StatusPartialContent {
		want := "bytes " + strconv.FormatInt(b.at, 10) + "-"
		if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, want) {
			return &failure.StatusError{Status: resp.StatusCode, Host: resp.Request.URL.Host, Detail: "sent another range than requested"}
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

func (b *Blob) disconnect() {
	if b.body != nil {
		_ = b.body.Close()
		b.body = nil
	}
	if b.guard != nil {
		b.guard.Close()
		b.guard = nil
	}
}

// Close drops the connection. It returns nil.
func (b *Blob) Close() error {
	b.disconnect()
	return nil
}

// ByteRange is the value of a Range header for n bytes at an offset; an n of -1 means
// all bytes from there (RFC 9110, section 14.2).
func ByteRange(at int64, n int) string {
	text := "bytes=" + strconv.FormatInt(at, 10) + "-"
	if n >= 0 {
		text += strconv.FormatInt(at+int64(n)-1, 10)
	}
	return text
}
