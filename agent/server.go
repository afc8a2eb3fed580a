package agent

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

	"github.com/careen-project/careen/agent/fault"
)

const (
	maxHeader   = 16 << 10
	maxBody     = 1 << 20
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	bodyTime    = 30 * time.Second
	writeTime   = 30 * time.Second
	closingTime = 5 * time.Second
)

// Serve answers on ln until ctx ends, and then for as long as answers that have
// begun take, but not long. It closes ln.
func (a *Agent) Serve(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler: a.Handler(), ConnContext: withPeer, BaseContext: func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: nil,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
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
func (a *Agent) routes() []route {
	return []route{
		{"GET", "/v1/version", nil, a.getVersion},
		{"GET", "/v1/health", nil, a.getHealth},
		{"GET", "/v1/openapi.yaml", nil, a.getOpenAPI},
		{"GET", "/v1/config", nil, a.getConfig},
		{"PATCH", "/v1/config", nil, a.patchConfig},
		{"GET", "/v1/steps", []string{"phase", "reserved"}, a.getSteps},
		{"POST", "/v1/runs", nil, a.postRun},
		{"GET", "/v1/runs", []string{"state", "limit"}, a.getRuns},
		{"GET", "/v1/runs/{id}", nil, a.getRun},
		{"DELETE", "/v1/runs/{id}", nil, a.deleteRun},
		{"GET", "/v1/runs/{id}/wait", []string{"timeout"}, a.getWait},
		{"GET", "/v1/runs/{id}/logs", []string{"follow", "tail", "stream", "since", "after"}, a.getLogs},
		{"GET", "/v1/runs/{id}/events", nil, a.getEvents},
		{"POST", "/v1/runs/{id}/abort", nil, a.postAbort},
		{"POST", "/v1/runs/{id}/stdin", []string{"close"}, a.postStdin},
		{"POST", "/v1/runs/{id}/resize", nil, a.postResize},
		{"GET", "/v1/runs/{id}/spec", nil, a.getSpec},
		{"GET", "/v1/runs/{id}/bundle", nil, a.getBundle},
		{"GET", "/v1/audit", nil, a.getAudit},
		{"GET", "/v1/images", nil, a.getImages},
		{"POST", "/v1/images/pull", nil, a.postPull},
		{"DELETE", "/v1/images/{ref...}", nil, a.deleteImage},
		{"GET", "/v1/pulls/{id}", []string{"timeout"}, a.getPull},
		{"DELETE", "/v1/pulls/{id}", nil, a.deletePull},
		{"GET", "/metrics", nil, a.getMetrics},
	}
}

// Handler returns the API without a socket, for tests and for other listeners. A
// request whose context has no peer is refused.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range a.routes() {
		mux.Handle(rt.method+" "+rt.path, a.serve(rt))
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
			writeProblem(w, r, &fault.Error{Code: fault.BadRequest, Op: r.Method, Subject: r.URL.Path,
				Reason: "the resource takes only " + allow, Attrs: map[string]any{attrStatus: http.StatusMethodNotAllowed}})
			return
		}
		writeProblem(w, r, &fault.Error{Code: fault.NotFound, Op: r.Method, Subject: r.URL.Path,
			Reason: "the API has no such resource", Remedy: "See /v1/openapi.yaml for what there is"})
	})
}

// statusRecorder takes what the mux would answer.
type statusRecorder struct{ header http.Header }

func (s *statusRecorder) Header() http.Header         { return s.header }
func (s *statusRecorder) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusRecorder) WriteHeader(int)             {}

// serve wraps an endpoint in what all have in common.
func (a *Agent) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				a.cfg.Log.WithField("path", r.URL.Path).Errorf("panic while answering: %v\n%s", p, debug.Stack())
				writeProblem(w, r, &fault.Error{Code: fault.Internal, Op: "answer", Subject: r.URL.Path,
					Reason: "a defect in careen; see the agent's log"})
			}
		}()
		ctl := http.NewResponseController(w)
		// Who does not send or take a body for so long is given up, so that connections
		// do not pile up; streams move the deadline with each piece.
		if r.Method == http.MethodPost || r.Method == http.MethodPatch {
			_ = ctl.SetReadDeadline(time.Now().Add(bodyTime))
		}
		err := a.permit(r)
		if err == nil {
			err = checkQuery(r, rt.query)
		}
		if err == nil {
			err = rt.handle(w, r)
		}
		if err != nil && !errors.Is(err, errAnswered) {
			writeProblem(w, r, err)
		}
	})
}

// errAnswered says that an answer was begun and cannot become a problem any more.
var errAnswered = errors.New("the answer was begun")

// permit checks who asks.
func (a *Agent) permit(r *http.Request) error {
	peer, ok := r.Context().Value(peerKey{}).(Peer)
	if ok && (peer.UID == 0 || peer.UID == uint32(os.Geteuid()) || slices.Contains(a.cfg.AllowedUIDs, peer.UID)) {
		return nil
	}
	reason := errNoPeer.Error()
	if ok {
		reason = fmt.Sprintf("user %d may not use the agent", peer.UID)
	}
	return &fault.Error{Code: fault.Forbidden, Op: r.Method, Subject: r.URL.Path, Reason: reason,
		Remedy: "Ask as root, or start the agent with --allow-uid for that user"}
}

// WithPeer returns ctx as one in which peer asks. Tests of [Agent.Handler] need it.
func WithPeer(ctx context.Context, peer Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, peer)
}

// checkQuery refuses parameters that the endpoint does not take, and repeated ones.
func checkQuery(r *http.Request, known []string) error {
	if len(r.URL.RawQuery) > maxHeader {
		return badField("query", "it is too long")
	}
	values, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return badField("query", err.Error())
	}
	for name, v := range values {
		if !slices.Contains(known, name) {
			return badField(cut(name, 100), "there is no such parameter here")
		}
		if len(v) > 1 {
			return badField(name, "it is given more than once")
		}
	}
	return nil
}
