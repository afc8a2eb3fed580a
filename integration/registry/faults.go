package registry

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Faults are what goes wrong between a client and the registry. They sit at the
// level of HTTP, because that is where resuming, retrying and refusing happen;
// the connection itself is cut where a fault says so.
type Faults struct {
	mu      sync.Mutex
	rules   []*rule
	seen    []string
	stalled []chan struct{}
	closed  bool
}

type rule struct {
	match string // part of "METHOD PATH"
	left  int    // how often it still applies; -1 is always
	act   func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

func (f *Faults) add(match string, times int, act func(http.ResponseWriter, *http.Request, http.Handler)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &rule{match: match, left: times, act: act})
}

// Clear forgets all faults.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Seen returns all requests so far as "METHOD PATH [Range]".
func (f *Faults) Seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.seen...)
}

// Count returns how many requests had match in their "METHOD PATH".
func (f *Faults) Count(match string) int {
	n := 0
	for _, line := range f.Seen() {
		if strings.Contains(line, match) {
			n++
		}
	}
	return n
}

// Status answers with a status, and headers in pairs, the first times requests.
func (f *Faults) Status(match string, times, status int, header ...string) {
	f.add(match, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
	})
}

// Cut closes the connection after so many bytes of the body.
func (f *Faults) Cut(match string, times int, after int64) {
	f.add(match, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&limitWriter{ResponseWriter: w, left: after, end: func() { panic(http.ErrAbortHandler) }}, r)
	})
}

// Stall stops sending after so many bytes, and keeps the connection open until
// the client gives up or the test ends.
func (f *Faults) Stall(match string, times int, after int64) {
	f.add(match, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		hold := make(chan struct{})
		f.mu.Lock()
		if f.closed {
			close(hold)
		} else {
			f.stalled = append(f.stalled, hold)
		}
		f.mu.Unlock()
		next.ServeHTTP(&limitWriter{ResponseWriter: w, left: after, end: func() {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		}}, r)
	})
}

// IgnoreRange serves the whole content to requests for a part of it.
func (f *Faults) IgnoreRange(match string) {
	f.add(match, -1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Header.Del("Range")
		next.ServeHTTP(w, r)
	})
}

// Corrupt changes one byte of the body.
func (f *Faults) Corrupt(match string, times int, at int64) {
	f.add(match, times, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&corruptWriter{ResponseWriter: w, at: at}, r)
	})
}

// Body answers with a body of size zero bytes, never held in memory.
func (f *Faults) Body(match string, times int, contentType string, size int64) {
	f.add(match, times, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		block := make([]byte, 64<<10)
		for size > 0 {
			n, err := w.Write(block[:min(int64(len(block)), size)])
			if err != nil {
				return
			}
			size -= int64(n)
		}
	})
}

// Do calls fn in place of the registry; fn may call next.
func (f *Faults) Do(match string, times int, fn func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	f.add(match, times, fn)
}

func (f *Faults) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line := r.Method + " " + r.URL.Path
		f.mu.Lock()
		full := line
		if part := r.Header.Get("Range"); part != "" {
			full += " " + part
		}
		f.seen = append(f.seen, full)
		handler := next
		// The first fault that is added is the outermost.
		for i := len(f.rules) - 1; i >= 0; i-- {
			rule := f.rules[i]
			if !strings.Contains(line, rule.match) || rule.left == 0 {
				continue
			}
			if rule.left > 0 {
				rule.left--
			}
			inner := handler
			handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { rule.act(w, r, inner) })
		}
		f.mu.Unlock()
		handler.ServeHTTP(w, r)
	})
}

func (f *Faults) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, hold := range f.stalled {
		close(hold)
	}
	f.stalled = nil
}

// limitWriter calls end when the body has reached its length.
type limitWriter struct {
	http.ResponseWriter
	left int64
	end  func()
}

func (l *limitWriter) Write(b []byte) (int, error) {
	part := b[:min(int64(len(b)), l.left)]
	n, err := l.ResponseWriter.Write(part)
	l.left -= int64(n)
	if err == nil && len(part) < len(b) {
		if flusher, ok := l.ResponseWriter.(http.Flusher); ok {
			flusher.Flush()
		}
		l.end()
	}
	return n, err
}

type corruptWriter struct {
	http.ResponseWriter
	at int64
}

func (c *corruptWriter) Write(b []byte) (int, error) {
	if c.at >= 0 && c.at < int64(len(b)) {
		b = append([]byte(nil), b...)
		b[c.at] ^= 0x55
	}
	c.at -= int64(len(b))
	return c.ResponseWriter.Write(b)
}
