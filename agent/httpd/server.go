package httpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

const (
	maxHeader   = 16 << 10
	maxBody     = 1 << 20
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	bodyTime    = 10 * time.Second
	writeTime   = 30 * time.Second
	closingTime = 5 * time.Second
)

// Config is what a server is made of. Agent, Images and Policy are required.
type Config struct {
	Agent  Agent
	Images Images
	Policy Policy
	// Version is what GET /v1/version answers.
	Version api.Version
	// AllowedUIDs may use the API, beside root and the agent's own user.
	AllowedUIDs []uint32
	// Started is when the agent was started.
	Started time.Time
	// Gauges are figures for /metrics beside the agent's own. It may be nil.
	Gauges func() []Gauge
	// NodeState are files for a bundle beside the server's own, name to content. It may
	// be nil.
	NodeState func() map[string][]byte
	// Log takes what an operator should see (logrus's standard logger).
	Log logrus.FieldLogger
}

// Server answers the API's requests. Its methods may be called from several goroutines.
type Server struct{ cfg Config }

// New returns a server over cfg.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = logrus.StandardLogger()
	}
	return &Server{cfg: cfg}
}

// Serve answers on ln until ctx ends, and then for as long as answers that have
// begun take, but not long. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	limited := limit(ln, ownConns+refusedConns+userConns*len(s.cfg.AllowedUIDs), s.class)
	srv := &http.Server{
		Handler: s.Handler(), ConnContext: withPeer, BaseContext: func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateIdle || state == http.StateActive {
				limited.setIdle(c.(*conn), state == http.StateIdle)
			}
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(limited) }()
	select {
	case err := <-failed:
		return fmt.Errorf("cannot serve the socket: %w", err)
	case <-ctx.Done():
	}
	// Followers and long polls would go on for ever: they are told to end.
	cancel()
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), closingTime)
	defer done()
	err := srv.Shutdown(stop)
	if err != nil {
		err = srv.Close()
	}
	<-failed
	return err
}

// handler answers one request; an error becomes a problem document.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one endpoint. Query names the parameters that it takes.
type route struct {
	method, path string
	query        []string
	handle       handler
}

// routes are all endpoints; openapi.yaml describes each, which a test checks.
func (s *Server) routes() []route {
	return []route{
		{"GET", "/v1/version", nil, s.getVersion},
		{"GET", "/v1/health", nil, s.getHealth},
		{"GET", "/v1/openapi.yaml", nil, s.getOpenAPI},
		{"GET", "/v1/config", nil, s.getConfig},
		{"PATCH", "/v1/config", nil, s.patchConfig},
		{"GET", "/v1/steps", []string{"phase", "reserved"}, s.getSteps},
		{"POST", "/v1/runs", nil, s.postRun},
		{"GET", "/v1/runs", []string{"state", "limit"}, s.getRuns},
		{"GET", "/v1/runs/{id}", nil, s.getRun},
		{"DELETE", "/v1/runs/{id}", nil, s.deleteRun},
		{"GET", "/v1/runs/{id}/wait", []string{"timeout"}, s.getWait},
		{"GET", "/v1/runs/{id}/logs", []string{"follow", "tail", "stream", "since", "after"}, s.getLogs},
		{"GET", "/v1/runs/{id}/events", nil, s.getEvents},
		{"POST", "/v1/runs/{id}/abort", nil, s.postAbort},
		{"POST", "/v1/runs/{id}/stdin", []string{"close"}, s.postStdin},
		{"POST", "/v1/runs/{id}/resize", nil, s.postResize},
		{"GET", "/v1/runs/{id}/spec", nil, s.getSpec},
		{"GET", "/v1/runs/{id}/bundle", nil, s.getBundle},
		{"GET", "/v1/audit", nil, s.getAudit},
		{"GET", "/v1/images", nil, s.getImages},
		{"POST", "/v1/images/pull", nil, s.postPull},
		{"DELETE", "/v1/images/{ref...}", nil, s.deleteImage},
		{"GET", "/v1/pulls/{id}", []string{"timeout"}, s.getPull},
		{"DELETE", "/v1/pulls/{id}", nil, s.deletePull},
		{"GET", "/metrics", nil, s.getMetrics},
	}
}

// Handler returns the API without a socket, for tests and for other listeners. A
// request whose context has no peer is refused.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range s.routes() {
		mux.Handle(rt.method+" "+rt.path, s.serve(rt))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		// The mux says in plain text which of 404, 405 and 301 it is; say it as the
		// rest of the API does.
		rec := &statusRecorder{header: http.Header{}}
		h.ServeHTTP(rec, r)
		if allow := rec.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			abandonBody(w, r)
			writeProblem(w, r, &fault.Error{Code: fault.BadRequest, Op: r.Method, Subject: r.URL.Path,
				Reason: "the resource takes only " + allow, Attrs: map[string]any{fault.AttrStatus: http.StatusMethodNotAllowed}})
			return
		}
		abandonBody(w, r)
		writeProblem(w, r, &fault.Error{Code: fault.NotFound, Op: r.Method, Subject: r.URL.Path,
			Reason: "the API has no such resource", Remedy: "See /v1/openapi.yaml for what there is"})
	})
}

// statusRecorder takes what the mux would answer.
type statusRecorder struct{ header http.Header }

func (r *statusRecorder) Header() http.Header         { return r.header }
func (r *statusRecorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *statusRecorder) WriteHeader(int)             {}

// serve wraps an endpoint in what all have in common.
func (s *Server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.cfg.Log.WithField("path", r.URL.Path).Errorf("panic while answering: %v\n%s", p, debug.Stack())
				writeProblem(w, r, &fault.Error{Code: fault.Internal, Op: "answer", Subject: r.URL.Path,
					Reason: "a defect in careen; see the agent's log"})
			}
		}()
		if err := s.check(rt, r); err != nil {
			abandonBody(w, r)
			writeProblem(w, r, err)
			return
		}
		// A body that does not arrive in time is given up, so that connections do not pile
		// up. Where there is no body, a deadline would end long polls.
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		}
		if err := rt.handle(w, r); err != nil && !errors.Is(err, errAnswered) {
			writeProblem(w, r, err)
		}
		// The server sends what it has buffered.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	})
}

// check refuses a request before its body is read.
func (s *Server) check(rt route, r *http.Request) error {
	if err := s.permit(r); err != nil {
		return err
	}
	if r.ContentLength != 0 && rt.method != http.MethodPost && rt.method != http.MethodPatch {
		return fault.BadField("body", "the method "+rt.method+" takes none here")
	}
	return checkQuery(r, rt.query)
}

// abandonBody has the server close the connection after its answer, without reading the
// rest of a body first, which may never come. It is called before the answer is written.
func abandonBody(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}
}

// errAnswered says that an answer was begun and cannot become a problem any more.
var errAnswered = errors.New("the answer was begun")

// class returns the share of connections that c counts against, and its size.
func (s *Server) class(c *conn) (key int64, limit int) {
	switch {
	case c.known && own(c.peer.UID):
		return ownShare, ownConns
	case c.known && s.allows(c.peer.UID):
		return int64(c.peer.UID), userConns
	default:
		return refusedShare, refusedConns
	}
}

// own reports whether a user is root or the agent's own.
func own(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }

// allows reports whether a user may ask.
func (s *Server) allows(uid uint32) bool {
	return own(uid) || slices.Contains(s.cfg.AllowedUIDs, uid)
}

// permit checks who asks.
func (s *Server) permit(r *http.Request) error {
	peer, ok := r.Context().Value(peerKey{}).(api.Peer)
	if ok && s.allows(peer.UID) {
		return nil
	}
	reason := errNoPeer.Error()
	if ok {
		reason = fmt.Sprintf("user %d may not use the agent", peer.UID)
	}
	return &fault.Error{Code: fault.Forbidden, Op: r.Method, Subject: r.URL.Path, Reason: reason,
		Remedy: "Ask as root, or start the agent with --allow-uid for that user"}
}

type peerKey struct{}

// withPeer notes in a connection's context who is at its other end.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if c := c.(*conn); c.known {
		return WithPeer(ctx, c.peer)
	}
	return ctx
}

// WithPeer returns ctx as one in which peer asks. Tests of [Agent.Handler] need it.
func WithPeer(ctx context.Context, peer api.Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, peer)
}

// checkQuery refuses parameters that the endpoint does not take, and repeated ones.
func checkQuery(r *http.Request, known []string) error {
	if len(r.URL.RawQuery) > maxHeader {
		return fault.BadField("query", "it is too long")
	}
	values, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return fault.BadField("query", err.Error())
	}
	for name, v := range values {
		if !slices.Contains(known, name) {
			return fault.BadField(fault.OneLine(name, 100), "there is no such parameter here")
		}
		if len(v) > 1 {
			return fault.BadField(name, "it is given more than once")
		}
	}
	return nil
}
