package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

var validID = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}$`)
})

// Submit takes a request for a run. isNew is false when the run existed already:
// the same id with the same request is the same run, now and after a restart.
func (a *Agent) Submit(_ context.Context, req *api.RunRequest, peer api.Peer) (v api.Run, isNew bool, err error) {
	limits, err := checkRequest(req)
	if err != nil {
		return v, false, err
	}
	hash, err := a.hash.of(req)
	if err != nil {
		return v, false, err
	}
	if v, ok, err := a.repeated(req.ID, hash); ok || err != nil {
		return v, false, err
	}
	resolved, err := a.cfg.Resolver.Resolve(req, peer.UID == 0)
	if err != nil {
		a.refused(req, peer, err)
		return v, false, err
	}
	if req.ID == "" {
		req.ID = newID(8)
	}
	limits.apply(resolved, req)
	rec := a.newRecord(req, resolved, limits, peer, hash)

	a.mu.Lock()
	defer a.mu.Unlock()
	// Another request with the same id may have come in meanwhile.
	if v, ok, err := a.repeatedLocked(req.ID, hash); ok || err != nil {
		return v, false, err
	}
	if err := a.admit(); err != nil {
		a.refused(req, peer, err)
		return v, false, err
	}
	r := a.newRun(rec)
	r.req, r.parts = req, resolved.Parts
	if err := a.accept(r); err != nil {
		return v, false, err
	}
	a.schedule()
	return a.view(r), true, nil
}

// repeated answers a request whose id is known.
func (a *Agent) repeated(id, hash string) (api.Run, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.repeatedLocked(id, hash)
}

func (a *Agent) repeatedLocked(id, hash string) (v api.Run, ok bool, err error) {
	if !a.recovered {
		return v, false, &fault.Error{Code: fault.Unreachable, Op: "take a run",
			Reason: "the agent is still looking for the runs of the one before it", Remedy: "Try again in a moment"}
	}
	r, ok := a.runs[id]
	if !ok || id == "" {
		return v, false, a.gone.check(id)
	}
	if r.rec.Hash != "" && r.rec.Hash != hash {
		return v, false, &fault.Error{Code: fault.Conflict, Op: "take run", Subject: id,
			Reason: "another request has this id", Remedy: "Give each request an id of its own",
			Attrs: map[string]any{fault.AttrHolder: id}}
	}
	return a.view(r), true, nil
}

// admit says whether a new run may come in at all. The lock is held.
func (a *Agent) admit() error {
	op := "take a run"
	switch {
	case a.rebootBy != "":
		return a.rebootPending(op)
	case a.draining:
		return &fault.Error{Code: fault.Unreachable, Op: op, Reason: "the agent is stopping",
			Remedy: "Wait until it has been started again"}
	}
	if id := a.stuckRun(); id != "" {
		return &fault.Error{Code: fault.Stuck, Op: op,
			Reason: fmt.Sprintf("the container of run %s survived SIGKILL and may still be at work", id),
			Remedy: "Power-cycle the node", Attrs: map[string]any{fault.AttrHolder: id}}
	}
	if len(a.active) < a.cfg.Slots {
		return nil
	}
	if len(a.queue) < a.cfg.QueueLimit {
		return nil
	}
	holder := a.holder()
	return &fault.Error{Code: fault.Busy, Op: op,
		Reason: fmt.Sprintf("run %s is at work and %d more wait", holder, len(a.queue)),
		Remedy: "Wait until one has ended, or abort it",
		Attrs:  map[string]any{fault.AttrHolder: holder, fault.AttrQueueFull: a.cfg.QueueLimit > 0}}
}

// stuckRun returns a run whose container does not go, "" for none. The lock is held.
func (a *Agent) stuckRun() string {
	for r := range a.active {
		if r.stuck {
			return r.id
		}
	}
	for _, id := range a.unremoved {
		return id
	}
	return ""
}

// holder returns the id of the oldest run that holds a slot.
func (a *Agent) holder() string {
	for _, r := range a.order {
		if a.active[r] {
			return r.id
		}
	}
	return ""
}

// accept makes r durable and puts it into the queue. The lock is held.
func (a *Agent) accept(r *run) error {
	id := r.id
	if err := a.keepRequest(id, r.req); err != nil {
		return err
	}
	a.cfg.Failpoint("agent.request-kept")
	if err := a.save(r, r.rec, true); err != nil {
		_ = os.Remove(a.cfg.requestPath(id))
		return err
	}
	a.know(r)
	a.change(func() { a.queue = append(a.queue, r) })
	r.events.add(api.Event{Type: "state", State: api.Queued})
	for _, p := range r.parts {
		r.events.add(api.Event{Type: "policy", Message: fmt.Sprintf("%s allows %s", orDefault(p.Entry, "the policy"), p.Image)})
	}
	for _, w := range r.rec.Run.Warnings {
		r.events.add(api.Event{Type: "warning", Message: w})
	}
	a.cfg.Log.WithFields(map[string]any{"run": id, "step": r.rec.Run.Step, "image": r.rec.Run.Image,
		"peer_uid": r.rec.Peer.UID, "peer_pid": r.rec.Peer.PID}).Info("run accepted")
	return nil
}

// keepRequest keeps the request where only this boot sees it, for an agent that
// is restarted before the run has begun: it holds secrets.
func (a *Agent) keepRequest(id string, req *api.RunRequest) error {
	data, err := json.Marshal(req)
	if err != nil {
		return &fault.Error{Code: fault.Internal, Op: "keep the request of run", Subject: id, Err: err}
	}
	if err := writeFile(a.cfg.requestPath(id), data); err != nil {
		return &fault.Error{Code: fault.Node, Op: "keep the request of run", Subject: id, Err: err,
			Remedy: "Make room in " + a.cfg.RunDir}
	}
	return nil
}

// writeFile writes a file for root only, whole or not at all.
func writeFile(path string, data []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return os.Rename(temp, path)
}

func orDefault(text, def string) string {
	if text == "" {
		return def
	}
	return text
}

// newID returns n random bytes in hexadecimal.
func newID(n int) string {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // it never returns an error (crypto/rand)
	return hex.EncodeToString(b)
}

func (a *Agent) newRecord(req *api.RunRequest, res *Resolved, lim requestLimits, peer api.Peer, hash string) *record {
	now := a.cfg.Clock()
	rec := &record{
		Run: api.Run{
			ID: req.ID, State: api.Queued, Step: req.Step, Phase: req.Phase, Node: nodeName(req.Node),
			Image: res.Parts[0].Image, Name: res.Parts[0].Name, Trusted: res.Trusted, RebootRequested: res.RebootRequested,
			Abortable: res.Abortable, CreatedAt: time.Now().UTC(), BootID: a.cfg.BootID,
		},
		Hash: hash, Peer: peer, Route: req.Route,
		Timeout: lim.timeout, Accepted: now, PhaseBegan: now,
	}
	if rec.Route == "" {
		rec.Route = "socket"
	}
	if len(res.Parts) > 1 {
		rec.Run.Part, rec.Run.Parts = 1, len(res.Parts)
	}
	rec.warn(res.Warnings...)
	return rec
}

// nodeName returns what is kept of Ironic's node: its uuid, or its name.
func nodeName(node map[string]any) string {
	for _, key := range []string{"uuid", "name"} {
		if s, ok := node[key].(string); ok && s != "" && len(s) <= 255 {
			return s
		}
	}
	return ""
}

// restoreRequest reads back what keepRequest wrote.
func (a *Agent) restoreRequest(id string) (*api.RunRequest, error) {
	data, err := os.ReadFile(a.cfg.requestPath(id))
	if err != nil {
		return nil, err
	}
	req := new(api.RunRequest)
	if err := decodeNumbers(data, req); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", filepath.Base(a.cfg.requestPath(id)), err)
	}
	return req, nil
}
