package image

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/careen-project/careen/runtime/image/failure"
)

// maxAnswer bounds every answer that is not a blob, tokens included, in bytes.
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

// boundedTransport limits the body of all answers other than blobs, so that a server cannot
// make a library read without end.
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

type limitedBody struct {
	io.ReadCloser
	left int64
}

func (l *limitedBody) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, failure.ErrAnswerTooLarge
	}
	if int64(len(b)) > l.left {
		b = b[:l.left]
	}
	n, err := l.ReadCloser.Read(b)
	l.left -= int64(n)
	return n, err
}
