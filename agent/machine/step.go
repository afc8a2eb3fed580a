package machine

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// Step returns the state after an event and what the executor has to do about it. It
// changes nothing that s refers to.
func Step(s State, e Event, now Now) (State, Output) {
	t := &turn{s: s, now: now}
	t.dispatch(e)
	for _, id := range t.saved {
		t.out.Records = append(t.out.Records, t.edited[id].Record)
	}
	return t.s, t.out
}

// turn is one step under way.
type turn struct {
	s      State
	now    Now
	out    Output
	edited map[string]*Run
	saved  []string
}

func (t *turn) dispatch(e Event) {
	switch e := e.(type) {
	case Submit:
		t.submit(e)
	case Abort:
		t.abort(e)
	case Delete:
		t.delete(e)
	case Drain:
		t.drain(e)
	case PrepareReboot:
		t.prepareReboot()
	case Detach:
		t.s.Draining, t.s.Detached = true, true
	case Load:
		t.load(e)
	case Resume:
		t.resumeAll()
	case Removed:
		t.removed(e)
	case Tick:
		t.tick()
	case Schedule:
		t.schedule()
	case Retain:
		t.retain()
	case Unrecorded:
		t.unrecorded(e)
	case Forgotten:
		t.s.Runs = slices.DeleteFunc(slices.Clone(t.s.Runs), func(r *Run) bool { return r.Run.ID == e.ID })
	case MarkCleared:
		if t.s.Marked == e.ID {
			t.s.Marked = ""
		}
	default:
		t.answered(e)
	}
}

// answered takes the answer to an effect of a run. An answer to an effect that the run
// does not wait for any more is dropped.
func (t *turn) answered(e Event) {
	switch e := e.(type) {
	case PullProgress:
		t.with(e.ID, DoPull, e.Call, func(r *Run) { t.progress(r, e.Progress) })
	case Pulled:
		t.with(e.ID, DoPull, e.Call, func(r *Run) { t.pulled(r, e) })
	case Created:
		t.with(e.ID, DoCreate, e.Call, func(r *Run) { t.created(r, e) })
	case Started:
		t.with(e.ID, DoStart, e.Call, func(r *Run) { t.started(r, e) })
	case Observed:
		if r := t.s.Find(e.ID); r != nil && r.Doing == DoSupervise && !r.Ended {
			t.observed(t.edit(e.ID), e)
		}
	case Exited:
		t.exited(e)
	case EndRead:
		t.with(e.ID, DoReadEnd, e.Call, func(r *Run) { t.endRead(r, e.End) })
	case Deleted:
		t.with(e.ID, DoDelete, e.Call, func(r *Run) { t.deleted(r, e) })
	case Next:
		if r := t.edit(e.ID); r != nil {
			t.next(r)
		}
	case LogKept:
		if r := t.s.Find(e.ID); r != nil && r.Doing == DoKeepLog {
			t.logKept(t.edit(e.ID))
		}
	default:
		t.afterEnd(e)
	}
}

// with calls fn on a run that waits for the effect with this number.
func (t *turn) with(id string, doing Doing, call int, fn func(*Run)) {
	if r := t.s.Find(id); r != nil && r.Doing == doing && r.Call == call {
		fn(t.edit(id))
	}
}

// edit returns a copy of a run that this step may change, nil if there is none.
func (t *turn) edit(id string) *Run {
	if r := t.edited[id]; r != nil {
		return r
	}
	i := slices.IndexFunc(t.s.Runs, func(r *Run) bool { return r.Run.ID == id })
	if i < 0 {
		return nil
	}
	if t.edited == nil {
		t.edited = map[string]*Run{}
		t.s.Runs = slices.Clone(t.s.Runs)
	}
	r := *t.s.Runs[i]
	r.Record = r.Record.clone()
	t.s.Runs[i], t.edited[id] = &r, &r
	return &r
}

// add makes a new run known.
func (t *turn) add(r *Run) *Run {
	if t.edited == nil {
		t.edited = map[string]*Run{}
		t.s.Runs = slices.Clone(t.s.Runs)
	}
	t.s.Runs = append(t.s.Runs, r)
	t.edited[r.Run.ID] = r
	return r
}

// save puts a run's record into the output.
func (t *turn) save(r *Run) {
	if !slices.Contains(t.saved, r.Run.ID) {
		t.saved = append(t.saved, r.Run.ID)
	}
}

// saveFirst is save for a record without which the step has no effect.
func (t *turn) saveFirst(r *Run) {
	t.save(r)
	t.out.Must = true
}

// move changes a run's state, after change was applied to it. A move that the diagram
// does not have is a defect; it is logged and not made.
func (t *turn) move(r *Run, to RunState, change func()) bool {
	from := r.Run.State
	if !slices.Contains(moves[from], to) {
		t.log(LevelError, r, "", t.impossible(r, to))
		return false
	}
	t.force(r, to, change)
	return true
}

// force is move without a look at the diagram.
func (t *turn) force(r *Run, to RunState, change func()) {
	from, took := r.Run.State, t.now.Clock-r.PhaseBegan
	r.leaveState(t.now.Clock)
	r.Run.State = to
	if change != nil {
		change()
	}
	r.Seq++
	t.save(r)
	t.entry(r, Entry{Type: "state", State: to, From: from, Took: inWords(took), Message: r.Run.StopReason, Outcome: r.Run.Outcome})
	t.out.Logs = append(t.out.Logs, LogLine{Level: LevelInfo, Run: r.Run.ID, Text: "run moved",
		Fields: map[string]any{"from": string(from), "state": string(to)}})
}

func (t *turn) impossible(r *Run, to RunState) error {
	return &fault.Error{Code: fault.Internal, Op: "move run", Subject: r.Run.ID,
		Reason: fmt.Sprintf("it cannot go from %s to %s", r.Run.State, to)}
}

func (t *turn) effect(e Effect) { t.out.Effects = append(t.out.Effects, e) }

func (t *turn) then(e Event) { t.out.Then = append(t.out.Then, e) }

func (t *turn) entry(r *Run, e Entry) {
	e.Run = r.Run.ID
	t.out.Entries = append(t.out.Entries, e)
}

func (t *turn) log(level Level, r *Run, text string, err error) {
	t.out.Logs = append(t.out.Logs, LogLine{Level: level, Run: r.Run.ID, Text: text, Err: err})
}

func (t *turn) unqueue(id string) {
	t.s.Queue = slices.DeleteFunc(slices.Clone(t.s.Queue), func(q string) bool { return q == id })
}

func (t *turn) enqueue(id string) { t.s.Queue = append(slices.Clone(t.s.Queue), id) }

// call makes doing what the run waits for and returns the number for the effect.
func (r *Run) call(doing Doing) int {
	r.Doing = doing
	r.Call++
	return r.Call
}

// unrecorded undoes what the event of a must-record would have begun: what cannot be
// made durable does not happen on the node.
func (t *turn) unrecorded(u Unrecorded) {
	switch e := u.Event.(type) {
	case Submit:
		t.out.Reply = &Reply{Err: u.Err}
	case Schedule:
		r := t.edit(t.s.Queue[0])
		t.unqueue(r.Run.ID)
		t.conclude(r, verdictOf(r, u.Err), nil)
	case Pulled:
		t.partFailed(t.edit(e.ID), u.Err)
	case Created:
		t.partFailed(t.edit(e.ID), u.Err)
	case Started:
		t.runsUnrecorded(t.edit(e.ID), e, u.Err)
	case Next:
		r := t.edit(e.ID)
		t.endRun(r, verdictOf(r, u.Err))
	}
}

// set returns a copy of m with one more entry.
func set(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// without returns a copy of m without an entry.
func without(m map[string]string, key string) map[string]string {
	m = maps.Clone(m)
	delete(m, key)
	return m
}

// Wake returns when, by the boot clock, the next [Tick] is due; 0 for never.
func Wake(s State) time.Duration {
	var wake time.Duration
	earlier := func(at time.Duration) {
		if at > 0 && (wake == 0 || at < wake) {
			wake = at
		}
	}
	for _, r := range s.Runs {
		switch {
		case !r.Active:
		case r.Doing == DoPull, r.Doing == DoCreate:
			earlier(s.prepareDue(r))
		case r.Doing == DoSupervise && !r.Ended:
			earlier(r.ObserveAt)
		}
	}
	return wake
}

// oneLine makes foreign text fit for a message.
func oneLine(text string) string { return fault.OneLine(text, fault.MaxLine) }
