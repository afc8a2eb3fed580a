package image

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer bounds every answer that is not a layer, a token answer included.
const maxAnswer = 16 << 20

// tuneTransport replaces the bounds and the proxy that containerd's package
// sets. Its proxy is read once per process from the environment, which a test
// or an agent that is configured later cannot change.
func (p *Puller) tuneTransport(t *http.Transport) {
	limits := p.cfg.Limits
	t.Proxy = func(r *http.Request) (*url.URL, error) { return p.cfg.Proxy(r.URL) }
	t.DialContext = (&net.Dialer{Timeout: limits.Connect, KeepAlive: 15 * time.Second}).DialContext
	t.TLSHandshakeTimeout = limits.Connect
	t.ResponseHeaderTimeout = limits.Stall
	t.MaxResponseHeaderBytes = 1 << 20
	t.MaxIdleConnsPerHost = limits.Parallel + 1
	t.ReadBufferSize = 64 << 10
	t.DisableCompression = true // a layer is what its digest says, as it is sent
	// HTTP/2 puts all layers on one connection with one flow-control window, and
	// costs a copy more; registries serve both.
	t.ForceAttemptHTTP2 = false
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.Time = p.cfg.Now
	}
}

type blobRequest struct{}

// boundedTransport limits the body of all answers but layers, so that no
// library in between can be made to read without end.
type boundedTransport struct{ next http.RoundTripper }

func (b *boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if r.Context().Value(blobRequest{}) == nil {
		resp.Body = &limitedBody{ReadCloser: resp.Body, left: maxAnswer}
	}
	return resp, nil
}

var errAnswerTooLarge = errors.New("the answer is larger than the protocol needs")

type limitedBody struct {
	io.ReadCloser
	left int64
}

func (l *limitedBody) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errAnswerTooLarge
	}
	if int64(len(b)) > l.left {
		b = b[:l.left]
	}
	n, err := l.ReadCloser.Read(b)
	l.left -= int64(n)
	return n, err
}

// errStalled is the cause of a context that a stallGuard has cancelled.
var errStalled = errors.New("no byte arrived for the stall limit")

// stallGuard cancels a request whose body brings nothing for the limit. It
// counts only while a read is waiting: a slow consumer is not a stall.
type stallGuard struct {
	limit  time.Duration
	timer  *time.Timer
	ctx    context.Context //nolint:containedctx // only asked for its cause
	cancel context.CancelCauseFunc
}

func newStallGuard(ctx context.Context, limit time.Duration) (context.Context, *stallGuard) {
	ctx, cancel := context.WithCancelCause(ctx)
	g := &stallGuard{limit: limit, ctx: ctx, cancel: cancel}
	g.timer = time.AfterFunc(limit, func() { cancel(errStalled) })
	return ctx, g
}

func (g *stallGuard) read(r io.Reader, b []byte) (int, error) {
	g.timer.Reset(g.limit)
	n, err := r.Read(b)
	g.timer.Stop()
	return n, err
}

// stalled reports whether the limit has run out.
func (g *stallGuard) stalled() bool { return context.Cause(g.ctx) == errStalled }

// close ends the request. It has to be called.
func (g *stallGuard) close() {
	g.timer.Stop()
	g.cancel(nil)
}
