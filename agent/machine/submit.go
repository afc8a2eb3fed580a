package machine

import (
	"fmt"
	"slices"

	"github.com/careen-project/careen/agent/fault"
)

// submit accepts a run, or returns the existing run with the id.
func (t *turn) submit(e Submit) {
	id := e.Record.Run.ID
	known, err := t.s.Repeated(id, e.Record.Hash)
	if err == nil && known == nil {
		err = e.Known
	}
	if err == nil && known == nil {
		err = t.admit()
	}
	if err != nil || known != nil {
		t.out.Reply = &Reply{ID: id, Err: err}
		return
	}
	r := t.add(&Run{Record: e.Record, Plan: e.Plan})
	r.Run.State, r.PhaseBegan = Queued, r.Accepted
	t.enqueue(id)
	t.out.KeepRequest = id
	t.saveFirst(r)
	t.entry(r, Entry{Type: "state", State: Queued})
	for _, p := range e.Plan.Parts {
		entry := p.Entry
		if entry == "" {
			entry = "the policy"
		}
		t.entry(r, Entry{Type: "policy", Message: fmt.Sprintf("%s allows %s", entry, p.Image)})
	}
	for _, warning := range r.Run.Warnings {
		t.entry(r, Entry{Type: "warning", Message: warning})
	}
	t.out.Logs = append(t.out.Logs, LogLine{Level: LevelInfo, Run: id, Text: "run accepted", Fields: map[string]any{
		"step": r.Run.Step, "image": r.Run.Image, "peer_uid": r.Peer.UID, "peer_pid": r.Peer.PID}})
	t.then(Schedule{})
	t.out.Reply = &Reply{ID: id, New: true}
}

// Repeated returns the run of an earlier request with this id and hash, nil
// for none. The error has code unreachable before recovery is over, and conflict when
// another request has the id.
func (s State) Repeated(id, hash string) (*Run, error) {
	if !s.Recovered {
		return nil, &fault.Error{Code: fault.Unreachable, Op: "take a run",
			Reason: "the agent still recovers the runs of the agent before it", Remedy: "Try again in a moment"}
	}
	r := s.Find(id)
	if r == nil || id == "" {
		return nil, nil // no such run: not an error
	}
	if r.Hash != "" && r.Hash != hash {
		return nil, &fault.Error{Code: fault.Conflict, Op: "take run", Subject: id,
			Reason: "another request has this id", Remedy: "Give each request its own id",
			Attrs: map[string]any{fault.AttrHolder: id}}
	}
	return r, nil
}

// admit returns the reason why no new run is accepted now, nil if runs are accepted.
func (t *turn) admit() error {
	const op = "take a run"
	s := t.s
	switch {
	case s.RebootBy != "":
		return s.rebootPending(op)
	case s.Draining:
		return &fault.Error{Code: fault.Unreachable, Op: op, Reason: "the agent is stopping",
			Remedy: "Wait until it has been started again"}
	}
	if id := s.StuckRun(); id != "" {
		return &fault.Error{Code: fault.Stuck, Op: op,
			Reason: fmt.Sprintf("the container of run %s survived SIGKILL and may still be at work", id),
			Remedy: "Power-cycle the node", Attrs: map[string]any{fault.AttrHolder: id}}
	}
	if s.Active() < s.Config.Slots || len(s.Queue) < s.Config.QueueLimit {
		return nil
	}
	holder := s.Holder()
	return &fault.Error{Code: fault.Busy, Op: op,
		Reason: fmt.Sprintf("run %s is at work and %d more wait", holder, len(s.Queue)),
		Remedy: "Wait until one has ended, or abort it",
		Attrs:  map[string]any{fault.AttrHolder: holder, fault.AttrQueueFull: s.Config.QueueLimit > 0}}
}

func (s State) rebootPending(op string) error {
	return &fault.Error{Code: fault.RebootPending, Op: op,
		Reason: fmt.Sprintf("run %s asked for a reboot of the node, which has not happened yet", s.RebootBy),
		Remedy: "Reboot the node, or delete that run to go on without",
		Attrs:  map[string]any{fault.AttrHolder: s.RebootBy}}
}

// schedule gives a free slot to the run that waits first.
func (t *turn) schedule() {
	s := t.s
	if !s.Recovered || s.Draining || len(s.Unremoved) > 0 || len(s.Queue) == 0 || s.Active() >= s.Config.Slots {
		return
	}
	t.then(Schedule{}) // for the next slot
	r := t.edit(s.Queue[0])
	t.unqueue(r.Run.ID)
	if s.RebootBy != "" {
		t.conclude(r, verdictOf(r, s.rebootPending("start run")), nil)
		return
	}
	r.Active = true
	t.move(r, Pulling, func() {
		if r.Began == 0 { // not after a recovery
			wall := t.now.Wall
			r.Began, r.Run.StartedAt = t.now.Clock, &wall
		}
		t.beginPart(r)
	})
	t.saveFirst(r)
	t.pull(r)
}

// beginPart sets the identity and the limits of the current container.
func (t *turn) beginPart(r *Run) {
	p := r.Plan.Parts[r.Part]
	r.PartBegan = t.now.Clock
	r.PartTimeout, r.PartSilence = p.Timeout, p.SilenceTimeout
	r.RebootExitCodes, r.CriticalPart = p.RebootExitCodes, p.Critical
	r.ContainerID, r.Starting, r.Exit, r.Record.End = "", false, nil, nil
	r.Run.Image, r.Run.Name, r.Run.Trusted = p.Image, p.Name, p.Trusted
	r.Run.Digest, r.Run.Pid = "", 0
	if r.Run.Parts > 0 {
		r.Run.Part = r.Part + 1
	}
	*r.audit() = AuditContainer{Image: p.Image, Decision: p.Entry, Trusted: p.Trusted,
		RunOptions: p.RunOptions, PullOptions: p.PullOptions}
}

// abort requests the end of a run. A second request can only shorten the grace.
func (t *turn) abort(e Abort) {
	t.out.Reply = &Reply{ID: e.ID}
	r := t.edit(e.ID)
	if r == nil {
		t.out.Reply.Err = NotFound(e.ID)
		return
	}
	if err := r.abortable(e.Force); err != nil {
		t.out.Reply.Err = err
		return
	}
	stop := &Stop{Cause: CauseAbort, Reason: e.Reason, Grace: e.Grace}
	if e.ClientGone {
		stop.Cause = CauseClient
	}
	switch {
	case r.Run.State == Queued:
		t.endQueued(r, stop)
		t.then(Schedule{})
	case r.Stop == nil:
		t.requestStop(r, stop)
	case e.Grace > 0:
		r.Stop.Grace = e.Grace
		t.save(r)
		t.observe(r)
	}
}

// abortable returns the reason why a run cannot be aborted, nil if it can.
func (r *Run) abortable(force bool) error {
	refuse := func(reason, remedy string) error {
		return &fault.Error{Code: fault.Conflict, Op: "abort run", Subject: r.Run.ID, Reason: reason, Remedy: remedy,
			Attrs: map[string]any{"state": string(r.Run.State), "abortable": r.Run.Abortable}}
	}
	switch {
	case r.Run.State.Final():
		return refuse(fmt.Sprintf("it has ended: %s", r.Run.State), "")
	case r.over():
		return refuse("its container has ended", "Wait a moment for its outcome")
	case r.Run.State != Queued && !r.Run.Abortable && !force:
		return refuse("its step is not abortable", "Wait for its end, or force it with \"careen abort --force\"")
	default:
		return nil
	}
}

// over reports whether the run's end is decided, though not yet on record.
func (r *Run) over() bool { return r.Ended || r.Doing == DoKeepLog || r.Run.State.Final() }

// NotFound is the error for an id that no run has, with code not_found.
func NotFound(id string) error {
	return &fault.Error{Code: fault.NotFound, Op: "find run", Subject: id, Reason: "there is none",
		Remedy: "List the runs there are with \"careen ps --all\""}
}

// endQueued ends a queued run on request.
func (t *turn) endQueued(r *Run, stop *Stop) {
	stop.Applied, stop.At = true, t.now.Clock
	r.Stop = stop
	t.unqueue(r.Run.ID)
	t.conclude(r, verdictOf(r, nil), nil)
}

// delete forgets a run that has ended. Deleting the run that asked for a reboot lets
// new runs start without one.
func (t *turn) delete(e Delete) {
	t.out.Reply = &Reply{ID: e.ID}
	r := t.s.Find(e.ID)
	switch {
	case r == nil:
		t.out.Reply.Err = NotFound(e.ID)
		return
	case !r.Run.State.Final() || r.Stuck:
		t.out.Reply.Err = &fault.Error{Code: fault.Conflict, Op: "delete run", Subject: e.ID,
			Reason: fmt.Sprintf("it is %s", r.Run.State), Remedy: "Abort it first, or wait for its end",
			Attrs: map[string]any{"state": string(r.Run.State)}}
		return
	}
	if t.s.RebootBy == e.ID {
		t.s.RebootBy = ""
	}
	t.effect(Forget{ID: e.ID})
	t.then(Schedule{})
}

// drain stops accepting runs, and also ends the runs if requested. Otherwise queued runs
// stay on record for the next agent.
func (t *turn) drain(e Drain) {
	t.s.Draining = true
	t.out.Reply = &Reply{}
	if !e.Stop && !e.Shutdown {
		return
	}
	stop := Stop{Cause: CauseDrain, Reason: "the agent is stopping"}
	if e.Shutdown {
		stop = Stop{Cause: CauseShutdown, Reason: "the node is shutting down"}
	}
	for _, id := range t.s.Queue {
		s := stop
		t.endQueued(t.edit(id), &s)
	}
	for _, r := range slices.Clone(t.s.Runs) {
		if r.Active && !r.Stuck {
			s := stop
			t.requestStop(t.edit(r.Run.ID), &s)
			t.out.Reply.Runs = append(t.out.Reply.Runs, r.Run.ID)
		}
	}
}

// prepareReboot stops accepting runs, ends the queue, and returns the runs to wait for:
// one of them may be a flash, and each has a time limit.
func (t *turn) prepareReboot() {
	t.s.Draining = true
	for _, id := range t.s.Queue {
		r := t.edit(id)
		t.unqueue(id)
		t.conclude(r, verdictOf(r, t.s.rebootPending("start run")), nil)
	}
	t.out.Reply = &Reply{}
	for _, r := range t.s.Runs {
		if r.Active && !r.Stuck {
			t.out.Reply.Runs = append(t.out.Reply.Runs, r.Run.ID)
			t.log(LevelInfo, r, "the reboot waits for this run's end", nil)
		}
	}
}
