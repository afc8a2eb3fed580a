package peers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Bounds of asking. A peer that is not there costs connectTime once in deadTime, and
// all peers together askTime for one layer.
const (
	connectTime = 300 * time.Millisecond
	answerTime  = 2 * time.Second
	lookupTime  = time.Second
	askTime     = 2 * time.Second
	deadTime    = time.Minute
	freshTime   = time.Minute
	maxAsked    = 32
	maxPeers    = 4096
	maxEntries  = 256
)

// Patience is how long a peer may send nothing, or be slower than 128 KiB/s, before
// the layer comes from elsewhere.
const Patience = 5 * time.Second

// Group are the nodes that may have layers. Its methods may be called at once.
type Group struct {
	entries []*entry
	own     netip.AddrPort
	now     func() time.Time
	roots   func() *x509.CertPool

	mu    sync.Mutex
	until map[string]time.Time // peers that did not answer, and when they are asked again
	liars map[string]bool
}

// entry is one URL, which is as many peers as its name has addresses.
type entry struct {
	scheme, host, port string
	client             *http.Client

	mu    sync.Mutex
	addrs []netip.Addr
	at    time.Time // of the last look-up
}

// NewGroup reads where peers are: "http://10.0.0.5:5100", or a name of which every
// address is a peer.
func NewGroup(from []string) (*Group, error) {
	if len(from) > maxEntries {
		return nil, fmt.Errorf("from has %d entries, and may have %d: use a name with many addresses", len(from), maxEntries)
	}
	g := &Group{until: map[string]time.Time{}, liars: map[string]bool{}}
	for _, text := range from {
		e, err := g.newEntry(text)
		if err != nil {
			return nil, err
		}
		g.entries = append(g.entries, e)
	}
	return g, nil
}

func (g *Group) newEntry(text string) (*entry, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil ||
		(u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New(strconv.Quote(text) + ` in from is not a URL such as "http://10.0.0.5:5100"`)
	}
	e := &entry{scheme: u.Scheme, host: u.Hostname(), port: u.Port()}
	if e.port == "" {
		e.port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if addr, err := netip.ParseAddr(e.host); err == nil {
		e.addrs = []netip.Addr{addr.Unmap()}
	}
	// No proxy, no redirect, no cookie: a peer is asked directly or not at all.
	e.client = &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: connectTime}).DialContext,
			DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return g.dialTLS(ctx, network, addr, e.host)
			},
			ResponseHeaderTimeout: answerTime, IdleConnTimeout: idleTime / 2, MaxResponseHeaderBytes: maxHeader,
			ReadBufferSize: 64 << 10, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e, nil
}

// Verify sets by what clock and with which authorities the certificates of https are
// judged; without it, and where roots returns nil, with the system's.
func (g *Group) Verify(now func() time.Time, roots func() *x509.CertPool) {
	if g != nil {
		g.now, g.roots = now, roots
	}
}

func (g *Group) dialTLS(ctx context.Context, network, addr, name string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: connectTime}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{ServerName: name, Time: g.now}
	if g.roots != nil {
		config.RootCAs = g.roots()
	}
	secure := tls.Client(conn, config)
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// SetOwn names this node's own server, which is not asked.
func (g *Group) SetOwn(addr netip.AddrPort) { g.own = addr }

// peers returns the addresses of an entry. A name that does not resolve has those
// that it had.
func (e *entry) peers(ctx context.Context) []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := netip.ParseAddr(e.host); err == nil || !e.at.IsZero() && time.Since(e.at) < freshTime {
		return e.addrs
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", e.host)
	if err == nil {
		e.addrs = found[:min(len(found), maxPeers)]
	}
	e.at = time.Now()
	return e.addrs
}

// Peer is one node.
type Peer struct {
	g    *Group
	e    *entry
	addr string
}

// String is the peer's address and port.
func (p *Peer) String() string { return p.addr }

// Ask is a search for one layer among the peers.
type Ask struct {
	left  []*Peer
	until time.Time
}

// Ask returns the peers that are worth asking, in random order. A nil Group has none.
func (g *Group) Ask(ctx context.Context) *Ask {
	if g == nil {
		return &Ask{}
	}
	var all []*Peer
	for _, e := range g.entries {
		for _, addr := range e.peers(ctx) {
			if addr = addr.Unmap(); !g.isOwn(addr, e.port) {
				all = append(all, &Peer{g: g, e: e, addr: net.JoinHostPort(addr.String(), e.port)})
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	alive := all[:0]
	now := time.Now()
	for _, p := range all {
		if !g.liars[p.addr] && !now.Before(g.until[p.addr]) {
			alive = append(alive, p)
		}
	}
	rand.Shuffle(len(alive), func(i, j int) { alive[i], alive[j] = alive[j], alive[i] }) //nolint:gosec // spreads load
	return &Ask{left: alive[:min(len(alive), maxAsked)], until: now.Add(askTime)}
}

// Next is the next peer, nil when the registry should be asked instead.
func (a *Ask) Next() *Peer {
	if len(a.left) == 0 || time.Now().After(a.until) {
		return nil
	}
	p := a.left[0]
	a.left = a.left[1:]
	return p
}

// Renew begins the time for asking anew, after a peer that gave a part.
func (a *Ask) Renew() { a.until = time.Now().Add(askTime) }

// isOwn reports whether this node's own server is at the address.
func (g *Group) isOwn(addr netip.Addr, port string) bool {
	if !g.own.IsValid() || port != strconv.Itoa(int(g.own.Port())) {
		return false
	}
	return addr == g.own.Addr().Unmap() || g.own.Addr().IsUnspecified() && len(connected(addr)) > 0
}

// Get asks for a layer from the byte at on. The caller closes the body; an answer
// other than 200 and 206 is an error.
func (p *Peer) Get(ctx context.Context, repository string, id digest.Digest, at int64) (*http.Response, error) {
	target := p.e.scheme + "://" + p.addr + "/v2/" + repository + "/blobs/" + id.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Host = net.JoinHostPort(p.e.host, p.e.port)
	req.Header.Set("User-Agent", "careen")
	if at > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(at, 10)+"-")
	}
	resp, err := p.e.client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			p.Failed()
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	_ = resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusServiceUnavailable, http.StatusTooManyRequests:
	default:
		p.Failed()
	}
	return nil, fmt.Errorf("%s answered %d", p.addr, resp.StatusCode)
}

// Failed has the peer left alone for a minute.
func (p *Peer) Failed() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.g.until[p.addr] = time.Now().Add(deadTime)
}

// Lied has the peer left alone for as long as the process lives. It reports whether
// that is new.
func (p *Peer) Lied() bool {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	known := p.g.liars[p.addr]
	p.g.liars[p.addr] = true
	return !known
}

// CloseIdle closes the connections that no layer comes over.
func (g *Group) CloseIdle() {
	if g == nil {
		return
	}
	for _, e := range g.entries {
		e.client.CloseIdleConnections()
	}
}
