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
	"strings"
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
	// Log receives messages for the operator (default: logrus's standard logger).
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

// Serve answers requests on ln until ctx ends. Then it ends long polls and streams, gives
// other answers up to five seconds to finish, and closes ln. Errors are those of ln.
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
	// End streams and long polls, which would otherwise keep the server open.
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

// handler answers one request. Its error becomes a problem document.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one endpoint. query lists the query parameters that it accepts.
type route struct {
	method, path string
	query        []string
	handle       handler
}

// routes lists all endpoints. A test compares them with openapi.yaml.
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

// Handler returns the API without a socket, for tests. It refuses a request whose context
// has no peer; see [WithPeer].
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{} // by path
	for _, rt := range s.routes() {
		mux.Handle(rt.method+" "+rt.path, s.serve(rt))
		methods[rt.path] = append(methods[rt.path], rt.method)
		if rt.method == http.MethodGet {
			methods[rt.path] = append(methods[rt.path], http.MethodHead)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		// A path without a wildcard takes its own methods only: an image cannot be deleted
		// as /v1/images/pull.
		takes, fixed := methods[r.URL.Path]
		// The mux redirects to a cleaner path with a handler of another type.
		if _, ours := h.(http.HandlerFunc); ours && pattern != "" && (!fixed || slices.Contains(takes, r.Method)) {
			mux.ServeHTTP(w, r)
			return
		}
		abandonBody(w, r)
		allow := strings.Join(slices.Sorted(slices.Values(takes)), ", ")
		if !fixed {
			rec := &statusRecorder{header: http.Header{}}
			h.ServeHTTP(rec, r)
			allow = rec.header.Get("Allow")
		}
		if allow != "" {
			w.Header().Set("Allow", allow)
			writeProblem(w, r, &fault.Error{Code: fault.BadRequest, Op: r.Method, Subject: r.URL.Path,
				Reason: "the resource takes only " + allow, Attrs: map[string]any{fault.AttrStatus: http.StatusMethodNotAllowed}})
			return
		}
		writeProblem(w, r, &fault.Error{Code: fault.NotFound, Op: r.Method, Subject: r.URL.Path,
			Reason: "no such resource", Remedy: "See /v1/openapi.yaml for the resources"})
	})
}

// statusRecorder keeps the header of the mux's answer and drops the rest.
type statusRecorder struct{ header http.Header }

func (r *statusRecorder) Header() http.Header         { return r.header }
func (r *statusRecorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *statusRecorder) WriteHeader(int)             {}

// serve wraps an endpoint with what all endpoints share: panics, checks, deadlines, problems.
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
		// A deadline for the body, so that half-sent requests do not hold connections. Without
		// a body the deadline would end long polls.
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		}
		if err := rt.handle(w, r); err != nil && !errors.Is(err, errAnswered) {
			writeProblem(w, r, err)
		}
		// For the rest of the answer, which the server still has in its buffer.
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

// abandonBody makes the server close the connection after the answer, without reading the
// rest of the body first. Call it before writing the answer.
func abandonBody(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}
}

// errAnswered says that part of the answer is sent, so that it cannot become a problem
// document.
var errAnswered = errors.New("part of the answer is sent")

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

// allows reports whether a user may use the API.
func (s *Server) allows(uid uint32) bool {
	return own(uid) || slices.Contains(s.cfg.AllowedUIDs, uid)
}

// permit checks that the peer may use the API.
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

// withPeer puts the peer of a connection into its context.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if c := c.(*conn); c.known {
		return WithPeer(ctx, c.peer)
	}
	return ctx
}

// WithPeer returns a context with the peer of a request. Tests of [Server.Handler] need it.
func WithPeer(ctx context.Context, peer api.Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, peer)
}

// checkQuery refuses unknown, repeated and empty query parameters.
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
			return fault.BadField(fault.OneLine(name, 100), "unknown parameter")
		}
		if len(v) > 1 {
			return fault.BadField(name, "it is given more than once")
		}
		if v[0] == "" && name != "reserved" { // no names are reserved: an empty list
			return fault.BadField(name, "it is empty")
		}
	}
	return nil
}
