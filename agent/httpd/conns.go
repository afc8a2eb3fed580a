package httpd

import (
	"net"
	"sync"

	"github.com/careen-project/careen/agent/api"
)

// Limits of open connections. Each class of users has its own share, so that one class
// cannot keep the others out. As many more connections of a class wait for a place in its
// share. Further connections are closed at once.
const (
	ownConns     = 256 // root and the agent's own user
	userConns    = 64  // each user of Config.AllowedUIDs
	refusedConns = 16  // all other users together: each request gets a 403
)

// Keys of the shares that do not belong to one allowed user.
const (
	ownShare     int64 = -1
	refusedShare int64 = -2
)

// limiter is a listener that accepts every connection at once and returns from Accept only
// as many of each class as its share allows. When a connection has to wait, the limiter
// closes one of the same class that is idle between two requests.
type limiter struct {
	net.Listener
	class  func(*conn) (key int64, limit int)
	ready  chan *conn // has room for all that may be open
	failed chan error
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	shares map[int64]*share
}

// share is the connections of one class of users.
type share struct {
	limit   int
	open    map[*conn]bool // true while it is idle
	waiting []*conn
}

// conn is a connection with its peer. known is false if the peer is not known.
type conn struct {
	net.Conn
	peer  api.Peer
	known bool
	leave func()
}

// Close frees the connection's place in its share.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// CloseWrite ends the server's side only. net/http calls it after the answer to a request
// that is too large, so that the client can read the answer.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// limit starts to accept connections of ln. most is the sum of the limits of all classes.
func limit(ln net.Listener, most int, class func(*conn) (int64, int)) *limiter {
	l := &limiter{Listener: ln, class: class, ready: make(chan *conn, most), failed: make(chan error),
		closed: make(chan struct{}), shares: map[int64]*share{}}
	go l.acceptAll()
	return l
}

func (l *limiter) acceptAll() {
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			l.admit(newConn(c))
			continue
		}
		select {
		case l.failed <- err: // the server pauses before it asks again
		case <-l.closed:
			return
		}
	}
}

func newConn(c net.Conn) *conn {
	peer, err := peerOf(c)
	return &conn{Conn: c, peer: peer, known: err == nil}
}

// admit gives c to the server, adds it to those that wait, or closes it.
func (l *limiter) admit(c *conn) {
	key, most := l.class(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shares[key]
	if s == nil {
		s = &share{limit: most, open: map[*conn]bool{}}
		l.shares[key] = s
	}
	c.leave = sync.OnceFunc(func() { l.left(s, c) })
	switch {
	case l.isClosed(), len(s.waiting) == s.limit:
		_ = c.Conn.Close()
	case len(s.open) < s.limit:
		l.handOut(s, c)
	default:
		s.waiting = append(s.waiting, c)
		for other, idle := range s.open {
			if idle {
				_ = other.Conn.Close() // the server then calls conn.Close
				s.open[other] = false
				break
			}
		}
	}
}

// handOut gives c to the server. The lock is held.
func (l *limiter) handOut(s *share, c *conn) {
	s.open[c] = false
	l.ready <- c
}

// left frees the place of c and gives it to the next one that waits.
func (l *limiter) left(s *share, c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(s.open, c)
	if len(s.waiting) > 0 && !l.isClosed() {
		next := s.waiting[0]
		s.waiting = s.waiting[1:]
		l.handOut(s, next)
	}
}

// setIdle records whether a connection is idle between two requests. An idle one gives its
// place to one that waits.
func (l *limiter) setIdle(c *conn, idle bool) {
	key, _ := l.class(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shares[key]
	switch _, open := s.open[c]; {
	case !open:
	case idle && len(s.waiting) > 0:
		_ = c.Conn.Close()
	default:
		s.open[c] = idle
	}
}

func (l *limiter) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// Accept returns the next connection that has a place in its share. Errors are those of
// the listener, or [net.ErrClosed].
func (l *limiter) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case err := <-l.failed:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener and the connections that Accept has not returned.
func (l *limiter) Close() (err error) {
	l.once.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, s := range l.shares {
			for _, c := range s.waiting {
				_ = c.Conn.Close()
			}
			s.waiting = nil
		}
		for len(l.ready) > 0 {
			_ = (<-l.ready).Conn.Close()
		}
	})
	return err
}
