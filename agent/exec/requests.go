package exec

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/agent/store"
)

var validID = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}$`)
})

// Submit asks for a run. isNew is false when the run existed before: the same id with the
// same request is the same run, now and after a restart. The error has code bad_request,
// conflict, busy, stuck, reboot_pending, space, unreachable, or a code of the policy.
func (x *Executor) Submit(ctx context.Context, req *api.RunRequest, peer api.Peer) (v api.Run, isNew bool, err error) {
	limits, err := checkRequest(req)
	if err != nil {
		return v, false, err
	}
	hash, err := x.hash(req)
	if err != nil {
		return v, false, err
	}
	// A repeated request is answered before the policy is asked: it may say no by now.
	s := x.state.Load()
	if r, err := s.Repeated(req.ID, hash); err != nil || r != nil {
		return x.orView(s, r, err)
	}
	if err := x.store.Known(req.ID); err != nil {
		return v, false, err
	}
	resolved, err := x.cfg.resolver.Resolve(req, peer.UID == 0)
	if err != nil {
		x.refused(req, peer, err)
		return v, false, err
	}
	if req.ID == "" {
		req.ID = newID(8)
	}
	req.Env = resolved.Environ // only now: the hash is of what the client sent
	limits.apply(resolved, req)
	submit := machine.Submit{Record: x.newRecord(req, resolved, limits, peer, hash), Plan: newPlan(req, resolved), Known: x.store.Known(req.ID)}
	reply, err := x.askFor(ctx, item{event: submit, request: req})
	if err != nil {
		if code := fault.CodeOf(err); code != fault.Space && code != fault.Node {
			x.refused(req, peer, err)
		}
		return v, false, err
	}
	v, err = x.Run(reply.ID)
	return v, reply.New, err
}

func (x *Executor) orView(s *machine.State, r *machine.Run, err error) (api.Run, bool, error) {
	if err != nil {
		return api.Run{}, false, err
	}
	return x.view(s, r), false, nil
}

// hash returns a keyed hash of all of a request but its id.
func (x *Executor) hash(req *api.RunRequest) (string, error) {
	same := *req
	same.ID = ""
	data, err := json.Marshal(same)
	if err != nil {
		return "", fault.BadField("args", err.Error())
	}
	return x.store.Hash(data), nil
}

func newPlan(req *api.RunRequest, resolved *policy.Resolved) *machine.Plan {
	return &machine.Plan{Parts: resolved.Parts, Stdin: req.Stdin, Terminal: req.TerminalSize, Environ: req.Env}
}

func (x *Executor) newRecord(req *api.RunRequest, res *policy.Resolved, lim limits, peer api.Peer, hash string) machine.Record {
	first := res.Parts[0]
	rec := machine.Record{
		Run: machine.Info{
			ID: req.ID, State: machine.Queued, Step: req.Step, Phase: req.Phase, Node: nodeName(req.Node),
			Image: first.Image, Name: first.Name, Trusted: res.Trusted, RebootRequested: res.RebootRequested,
			Abortable: res.Abortable, CreatedAt: time.Now().UTC(), BootID: x.cfg.BootID,
		},
		Hash: hash, Peer: machine.Peer(peer), Route: req.Route, Timeout: lim.timeout, Accepted: x.cfg.Clock(),
	}
	if rec.Route == "" {
		rec.Route = "socket"
	}
	if n := len(res.Parts); n > 1 {
		rec.Run.Part, rec.Run.Parts = 1, n
	}
	for _, warning := range res.Warnings {
		if !slices.Contains(rec.Run.Warnings, warning) {
			rec.Run.Warnings = append(rec.Run.Warnings, warning)
		}
	}
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

// refused records a request that was refused: who tried what is worth knowing. One that
// will be repeated, perhaps every second, is only counted.
func (x *Executor) refused(req *api.RunRequest, peer api.Peer, why error) {
	code := fault.CodeOf(why)
	x.count(func(f *Figures) { f.refused(code) })
	if code.Transient() {
		return
	}
	image := fault.OneLine(req.Image, 1000)
	line := store.AuditRecord{
		Time: time.Now().UTC(), Event: "refused", Run: req.ID, PeerUID: peer.UID, PeerPID: peer.PID,
		PeerCommand: peer.Command, Route: req.Route, Step: req.Step, Phase: req.Phase, Node: nodeName(req.Node),
		Code: string(code), Message: fault.OneLine(why.Error(), fault.MaxLine), BootID: x.cfg.BootID,
	}
	if image != "" {
		line.Containers = []machine.AuditContainer{{Image: image}}
	}
	if err := x.store.Audit.Append(line); err != nil {
		x.cfg.Log.WithError(err).Error("cannot write the audit record; trying again")
	}
	x.cfg.Log.WithFields(map[string]any{"step": req.Step, "image": image, "peer_uid": peer.UID}).
		Warn("run refused: " + line.Message)
}

// limits are the parsed durations of a request; 0 is none.
type limits struct{ timeout, silence time.Duration }

// apply puts the request's limits over those of the parts. A timeout of the request bounds
// the run as a whole.
func (l limits) apply(res *policy.Resolved, req *api.RunRequest) {
	for i := range res.Parts {
		p := &res.Parts[i]
		if l.timeout > 0 {
			p.Timeout = 0
		}
		if l.silence > 0 {
			p.SilenceTimeout = l.silence
		}
		if req.RebootExitCodes != nil {
			p.RebootExitCodes = req.RebootExitCodes
		}
	}
}

// checkRequest checks what needs no policy.
func checkRequest(req *api.RunRequest) (lim limits, err error) {
	if req.ID != "" && !validID().MatchString(req.ID) {
		return lim, fault.BadField("id", "it is not 1 to 64 of a-z, A-Z, 0-9, _, . and -, starting with neither . nor -")
	}
	if (req.Step == "") == (req.Image == "") {
		return lim, fault.BadField("step", "either step or image is required, and not both")
	}
	if len(req.Route) > 64 {
		return lim, fault.BadField("route", "it is longer than 64 bytes")
	}
	for _, code := range req.RebootExitCodes {
		if code < 0 || code > 255 {
			return lim, fault.BadField("reboot_exit_codes", fmt.Sprintf("%d is no exit code (0 to 255)", code))
		}
	}
	if lim.timeout, err = parseLimit("timeout", req.Timeout); err != nil {
		return lim, err
	}
	lim.silence, err = parseLimit("silence_timeout", req.SilenceTimeout)
	return lim, err
}

func parseLimit(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fault.BadField(field, fmt.Sprintf("%q is not a duration greater than zero, such as 90s or 1h30m", text))
	}
	return d, nil
}

// Abort asks for a run's end and returns the run as it is then. A second request may only
// shorten the grace. The error has code bad_request, not_found or conflict.
func (x *Executor) Abort(ctx context.Context, id string, req api.AbortRequest) (api.Run, error) {
	grace, err := parseLimit("grace", req.Grace)
	if err != nil {
		return api.Run{}, err
	}
	if len(req.Reason) > 1024 {
		return api.Run{}, fault.BadField("reason", "it is longer than 1024 bytes")
	}
	_, err = x.ask(ctx, machine.Abort{ID: id, Reason: req.Reason, Grace: grace, Force: req.Force, ClientGone: req.ClientGone})
	if err != nil {
		return api.Run{}, err
	}
	x.count(func(f *Figures) { f.Aborts++ })
	return x.Run(id)
}

// Delete forgets a run that has ended, with all it wrote, once its files are in order.
// The error has code not_found or conflict.
func (x *Executor) Delete(ctx context.Context, id string) error {
	if _, r, l, err := x.find(id); err == nil && r.Run.State.Final() && !r.Stuck {
		select {
		case <-l.tidied: // else its files would come back
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err := x.ask(ctx, machine.Delete{ID: id})
	return err
}

// Recover finds the runs of earlier agents: it adopts containers that run, ends what
// ended, calls lost what cannot be known, and queues what had not started. No run is
// accepted before it has returned. The error says that the Runner or the journal could not
// be read.
func (x *Executor) Recover(ctx context.Context) error {
	if x.state.Load().Loaded {
		return nil
	}
	existing, err := x.cfg.Runner.Existing(ctx)
	if err != nil {
		return fmt.Errorf("cannot list the containers of an earlier agent: %w", err)
	}
	records, err := x.store.Load()
	if err != nil {
		return err
	}
	load := machine.Load{Records: records, Existing: existing, Mark: x.readMark(),
		Plans: map[string]machine.PlanOrError{}, Tails: map[string][]string{}, LogBytes: map[string]int64{}}
	for _, rec := range records {
		x.restore(rec, &load)
	}
	if !x.inbox.put(item{event: load}) {
		return errStopping
	}
	select {
	case <-x.recovered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restore makes the life of a run of an earlier agent, and reads what recovery needs of it.
func (x *Executor) restore(rec machine.Record, load *machine.Load) {
	id := rec.Run.ID
	l := &life{events: x.store.RestoreEventLog(rec, x.cfg.Clock()), done: make(chan struct{}), tidied: make(chan struct{})}
	x.lives.Store(id, l)
	f := x.store.Files(id)
	if rec.Run.State.Final() {
		close(l.done)
		if rec.Kept || rec.Dropped {
			close(l.tidied)
		}
		if !rec.Dropped {
			load.LogBytes[id] = f.LogBytes()
		}
		return
	}
	load.Tails[id] = tail(f.Log(), x.cfg.TailLines)
	if rec.Run.BootID == x.cfg.BootID && !rec.RequestDone() {
		plan, err := x.resolveAgain(rec)
		load.Plans[id] = machine.PlanOrError{Plan: plan, Err: err}
	}
}

// resolveAgain reads the kept request of a run and asks the policy again.
func (x *Executor) resolveAgain(rec machine.Record) (*machine.Plan, error) {
	id := rec.Run.ID
	data, err := x.store.Files(id).ReadRequest()
	req := new(api.RunRequest)
	if err == nil {
		err = decodeNumbers(data, req)
	}
	if err != nil {
		return nil, &fault.Error{Code: fault.Lost, Op: "go on with run", Subject: id, Err: err,
			Reason: "the agent was restarted before the run began, and its request is gone",
			Remedy: "Ask for it again under another id; its container was never started",
			Attrs:  map[string]any{"started": false}}
	}
	resolved, err := x.cfg.resolver.Resolve(req, rec.Peer.UID == 0)
	if err != nil {
		return nil, err
	}
	lim, err := checkRequest(req)
	if err != nil {
		return nil, err
	}
	lim.apply(resolved, req)
	return newPlan(req, resolved), nil
}
