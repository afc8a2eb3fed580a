package peers

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/careen-project/careen/agent/fault"
)

// Bounds of a server. Who is turned away asks another peer, or the registry.
const (
	maxConns     = 256
	maxTransfers = 16
	maxHeader    = 8 << 10
	headerTime   = 5 * time.Second
	idleTime     = 15 * time.Second
)

// MinRate is the bytes per second below which a transfer is given up, on either side.
const MinRate = 128 << 10

// Serving says how a node gives its layers away.
type Serving struct {
	// Address is "ADDRESS:PORT"; ":PORT" is every address of the node.
	Address string
	// Allow are the networks whose hosts may ask, as in "10.0.0.0/8"; none are those
	// that the interface with Address is connected to, so :PORT needs some.
	Allow []string
	// MaxRate bounds what is sent, in bytes per second; 0 is no bound.
	MaxRate int64
}

// Server gives kept layers to other nodes: GET and HEAD of /v2/NAME/blobs/DIGEST, and
// nothing else. NAME is not looked at: who knows a digest may have the layer.
type Server struct {
	kept  *Kept
	http  *http.Server
	addr  netip.AddrPort
	slots chan struct{}
	rate  limiter
	sent  atomic.Int64
	ended chan struct{}
}

// Check reports what is wrong with s as it is written, before anything listens.
func (s Serving) Check() error {
	addr, err := s.parse()
	if err != nil {
		return err
	}
	allow, err := s.networks()
	if err == nil && len(allow) == 0 && addr.Addr().IsUnspecified() {
		err = errors.New(`serve is on every address of the node, so allow must name the networks that may ask, as in ["10.0.0.0/8"]`)
	}
	return err
}

func (s Serving) parse() (netip.AddrPort, error) {
	text := s.Address
	if strings.HasPrefix(text, ":") {
		text = "[::]" + text
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return addr, errors.New(strconv.Quote(s.Address) + ` is not an address with a port such as "10.0.0.5:5100" or ":5100"`)
	}
	return addr, nil
}

func (s Serving) networks() (allow []netip.Prefix, err error) {
	for _, text := range s.Allow {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, errors.New(strconv.Quote(text) + ` in allow is not a network such as "10.0.0.0/8"`)
		}
		allow = append(allow, network.Masked())
	}
	return allow, nil
}

// connected returns the networks of the interface that has the address.
func connected(addr netip.Addr) (found []netip.Prefix) {
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		network, err := netip.ParsePrefix(a.String())
		if err == nil && network.Addr().Unmap() == addr.WithZone("").Unmap() {
			found = append(found, network.Masked())
		}
	}
	return found
}

// Serve begins to give away what is in kept.
func Serve(s Serving, kept *Kept) (*Server, error) {
	fail := func(err error) (*Server, error) {
		return nil, &fault.Error{Code: fault.Node, Op: "give layers to other nodes on", Subject: s.Address, Err: err,
			Remedy: "Correct serve and allow of [peers], or bring up the address before the agent"}
	}
	addr, err := s.parse()
	if err != nil {
		return fail(err)
	}
	allow, err := s.networks()
	if err != nil {
		return fail(err)
	}
	if len(allow) == 0 {
		if allow = connected(addr.Addr()); len(allow) == 0 {
			return fail(errors.New("no interface has the address, so the networks that may ask are not known"))
		}
	}
	listener, err := net.Listen("tcp", s.Address)
	if err != nil {
		return fail(err)
	}
	server := &Server{kept: kept, addr: listener.Addr().(*net.TCPAddr).AddrPort(), slots: make(chan struct{}, maxTransfers),
		ended: make(chan struct{})}
	server.rate.perSecond = s.MaxRate
	server.http = &http.Server{
		Handler: server, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() {
		defer close(server.ended)
		_ = server.http.Serve(&gate{Listener: listener, allow: allow, slots: make(chan struct{}, maxConns)})
	}()
	return server, nil
}

// Address is where the server listens.
func (s *Server) Address() netip.AddrPort { return s.addr }

// Sent counts the bytes of layers that were given away.
func (s *Server) Sent() int64 { return s.sent.Load() }

// Close ends the server and all transfers.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.ended
	return err
}

// ServeHTTP answers with a layer, with a part of it, or that there is none.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, ok := blobOf(r.URL.Path)
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if r.ContentLength != 0 { // it would be read to its end, at the sender's pace
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	content, ok := s.kept.Open(id)
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	size, _ := content.Seek(0, io.SeekEnd)
	patience := headerTime + time.Duration(size/min(MinRate, s.rate.share()))*time.Second
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", id.String())
	http.ServeContent(w, r, "", time.Time{}, &metered{ReadSeeker: content, s: s, ctx: r.Context()})
}

// blobOf reads /v2/NAME/blobs/DIGEST.
func blobOf(path string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	i := strings.LastIndex(rest, "/blobs/")
	if !ok || i < 0 || len(rest) > 512 {
		return "", false
	}
	if _, err := reference.WithName(rest[:i]); err != nil {
		return "", false
	}
	id, err := digest.Parse(rest[i+len("/blobs/"):])
	return id, err == nil
}

// metered counts what is read, and holds it to the rate.
type metered struct {
	io.ReadSeeker
	s   *Server
	ctx context.Context //nolint:containedctx // of the request
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.ReadSeeker.Read(p)
	m.s.sent.Add(int64(n))
	if waitErr := m.s.rate.wait(m.ctx, n); waitErr != nil {
		return n, waitErr
	}
	return n, err
}

// limiter spreads bytes over time, for all transfers together.
type limiter struct {
	perSecond int64
	mu        sync.Mutex
	next      time.Time
}

// share is what one of all transfers has at the least, in bytes per second.
func (l *limiter) share() int64 {
	if l.perSecond == 0 {
		return MinRate
	}
	return max(1, l.perSecond/maxTransfers)
}

func (l *limiter) wait(ctx context.Context, n int) error {
	if l.perSecond == 0 || n == 0 {
		return nil
	}
	l.mu.Lock()
	if now := time.Now(); l.next.Before(now) {
		l.next = now
	}
	at := l.next
	l.next = at.Add(time.Duration(float64(n) / float64(l.perSecond) * float64(time.Second)))
	l.mu.Unlock()
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// gate lets in whom the operator named, and no more at once than the bound. Others
// are not read from.
type gate struct {
	net.Listener
	allow []netip.Prefix
	slots chan struct{}
}

// Accept returns the next connection that is let in.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g.admits(conn.RemoteAddr()) {
			select {
			case g.slots <- struct{}{}:
				return &guest{Conn: conn, leave: sync.OnceFunc(func() { <-g.slots })}, nil
			default:
			}
		}
		_ = conn.Close()
	}
}

func (g *gate) admits(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	from := tcp.AddrPort().Addr().WithZone("").Unmap()
	for _, network := range g.allow {
		if network.Contains(from) {
			return true
		}
	}
	return false
}

type guest struct {
	net.Conn
	leave func()
}

// Close also makes room for the next one.
func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}
