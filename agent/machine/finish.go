package machine

import (
	"fmt"
	"slices"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// exited notes the end of a container. From here on it is too late to abort.
func (t *turn) exited(e Exited) {
	r := t.s.Find(e.ID)
	switch {
	case r == nil:
		return
	case r.Stuck && r.WaitCall == e.Call:
		r = t.edit(e.ID)
		t.log(LevelWarning, r, "the container that survived SIGKILL has ended after all", nil)
		r.Gone = true
		t.unstick(r)
		return
	case r.Doing != DoSupervise || r.Call != e.Call:
		return
	}
	r = t.edit(e.ID)
	r.Ended, r.Claim = true, nil
	if e.Err != nil {
		t.partFailed(r, &fault.Error{Code: fault.Lost, Op: "learn how the container of run", Subject: r.Run.ID + " ended",
			Err: e.Err, Remedy: "Look at the node before you run the step again: what was done is unknown"})
		return
	}
	r.ExitSeen = &e.Exit
	t.effect(ReadEnd{ID: r.Run.ID, Call: r.call(DoReadEnd)})
}

// unstick removes a stuck container that has gone after all, once its end is on record.
func (t *turn) unstick(r *Run) {
	if r.Gone && r.Run.State.Final() && r.Doing == Idle {
		t.remove(r)
	}
}

// endRead records how a container ended and what it left, and removes the container.
func (t *turn) endRead(r *Run, end End) {
	if r.Stuck {
		r.Doing, r.Record.End = Idle, &End{Tail: end.Tail}
		t.conclude(r, verdictOf(r, r.Failure), nil)
		t.unstick(r)
		return
	}
	t.entry(r, Entry{Type: "exit", Message: r.ExitSeen.String()})
	if end.Result != nil {
		t.entry(r, Entry{Type: "result"})
	}
	for _, warning := range end.Warnings {
		t.entry(r, Entry{Type: "warning", Message: warning})
	}
	r.Exit, r.ExitSeen, r.Record.End = r.ExitSeen, nil, &end
	r.Run.Pid = 0
	r.warn(end.Warnings...)
	t.save(r)
	t.remove(r)
}

// remove deletes the present container.
func (t *turn) remove(r *Run) {
	t.effect(Remove{ID: r.Run.ID, Call: r.call(DoDelete), Container: r.container()})
}

// deleted notes what a container left on the node, and goes on.
func (t *turn) deleted(r *Run, e Deleted) {
	left := e.Leftovers
	if e.Err != nil {
		left.Left = append(slices.Clone(left.Left), "the container could not be removed: "+oneLine(e.Err.Error()))
	}
	removed := "the container is removed"
	if n := len(left.Left); n > 0 {
		removed = fmt.Sprintf("leftovers that are not careen's: %d", n)
	}
	t.entry(r, Entry{Type: "cleanup", Message: removed, Took: inWords(e.Took)})
	if len(left.Undone)+len(left.Left) > 0 {
		r.Leftovers.Undone = append(r.Leftovers.Undone, left.Undone...)
		r.Leftovers.Left = append(r.Leftovers.Left, bounded(left.Left)...)
		t.save(r)
	}
	r.Doing = Idle
	if r.Stuck {
		t.keepLog(r)
		return
	}
	t.then(Next{ID: r.Run.ID})
}

// bounded cuts a list of leftovers to what a record has room for: a container may mount
// ten thousand file systems with long names.
func bounded(lines []string) []string {
	const most, longest = 200, 500
	more := len(lines) - most
	lines = slices.Clone(lines[:min(most, len(lines))])
	for i := range lines {
		lines[i] = cut(lines[i], longest)
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

// next begins the next part of a sequence, or ends the run.
func (t *turn) next(r *Run) {
	v := verdictOf(r, r.Failure)
	if v.State != Succeeded || r.Part+1 >= max(1, r.Run.Parts) {
		t.endRun(r, v)
		return
	}
	if t.s.Detached {
		return
	}
	if r.Stop != nil {
		// A critical section held off the end of a part that ended by itself.
		t.move(r, Stopping, func() { r.Stop.Applied = true })
		t.endRun(r, verdictOf(r, nil))
		return
	}
	if r.Plan == nil || r.Part+1 >= len(r.Plan.Parts) {
		t.endRun(r, verdictOf(r, &fault.Error{Code: fault.Lost, Op: "go on with run", Subject: r.Run.ID,
			Reason: fmt.Sprintf("the agent was restarted, and the request for part %d is gone", r.Part+2),
			Remedy: "Run the remaining parts again"}))
		return
	}
	reason, _ := rebootWish(&r.Record)
	t.move(r, Pulling, func() {
		if reason != "" {
			r.Reboot = reason
		}
		r.partOver(v)
		r.Part++
		t.beginPart(r)
	})
	t.saveFirst(r)
	t.pull(r)
}

// partOver adds what the present container said to the inputs of the next ones.
func (rec *Record) partOver(v Verdict) {
	// Each record has the results of all parts before it.
	const most = 256 << 10
	in := Input{Part: rec.Part + 1, Image: rec.Run.Image, Digest: rec.Run.Digest, State: v.State,
		ExitCode: v.Outcome.ExitCode, Result: v.Outcome.Result}
	size := len(in.Result)
	for _, before := range rec.Previous {
		size += len(before.Result)
	}
	if size > most {
		in.Result, in.ResultOmitted = nil, true
	}
	rec.Previous = append(rec.Previous, in)
}

// endRun ends a run with a verdict, once its output is kept.
func (t *turn) endRun(r *Run, v Verdict) {
	r.Verdict = &v
	t.keepLog(r)
}

func (t *turn) keepLog(r *Run) {
	r.Doing = DoKeepLog
	t.effect(KeepLog{ID: r.Run.ID})
}

// logKept goes on when the output of a run is in its last place.
func (t *turn) logKept(r *Run) {
	r.Doing = Idle
	if r.Verdict != nil {
		v := *r.Verdict
		r.Verdict = nil
		t.conclude(r, v, nil)
		return
	}
	// It was stuck, and has ended before.
	r.Stuck, r.Active = false, false
	t.clearMark(r)
	t.effect(Tidy{ID: r.Run.ID})
	t.then(Schedule{})
}

// conclude moves a run to its final state. tail are the last lines of its output, for a
// verdict that has none.
func (t *turn) conclude(r *Run, v Verdict, tail []string) {
	if v.Outcome.LogTail == nil {
		v.Outcome.LogTail = tail
	}
	end := func() { t.finalRecord(r, &v) }
	if !t.move(r, v.State, end) {
		// A defect in careen. Finalize it as lost, so that waiters return.
		err := t.impossible(r, v.State)
		v = Verdict{Lost, Outcome{Code: string(fault.Internal), Message: oneLine(err.Error()),
			Remedy:    "Look at the agent's log, and at the node before you run the step again",
			Leftovers: v.Outcome.Leftovers}}
		t.force(r, Lost, end)
	}
	r.Plan, r.Pull, r.Claim = nil, nil, nil
	if !r.Stuck {
		t.clearMark(r)
	}
	t.effect(Audit{ID: r.Run.ID})
	t.effect(Conclude{ID: r.Run.ID})
	if r.RebootClaim {
		t.requestReboot(r)
	}
	t.logEnd(r)
	t.limitPushes()
	if r.Stuck {
		return
	}
	r.Active = false
	t.effect(Tidy{ID: r.Run.ID})
	t.then(Schedule{})
}

// finalRecord writes what a run in a final state has on record.
func (t *turn) finalRecord(r *Run, v *Verdict) {
	ended := t.now.Wall
	if r.Exit != nil && !r.Exit.ExitedAt.IsZero() {
		ended = r.Exit.ExitedAt.UTC()
	}
	r.Run.EndedAt, r.Run.Pid = &ended, 0
	if r.Run.BootID == t.s.Config.BootID {
		r.durations(&v.Outcome)
	}
	r.Run.Outcome = &v.Outcome
	r.RebootClaim = v.Outcome.RebootRequested
	r.Unpushed = t.s.Config.Push
	if r.Stop != nil && !r.Stop.Applied {
		r.Run.StopReason = "" // it ended by itself before
	}
	r.Record.End, r.Previous = nil, nil // the outcome has them now
}

func (t *turn) logEnd(r *Run) {
	o := r.Run.Outcome
	line := LogLine{Level: LevelInfo, Run: r.Run.ID, Text: "run ended",
		Fields: map[string]any{"state": string(r.Run.State), "code": o.Code, "duration": o.Duration}}
	if r.Run.State != Succeeded {
		line.Level, line.Text = LevelWarning, "run ended: "+o.Message
	}
	t.out.Logs = append(t.out.Logs, line)
}

// requestReboot keeps new runs from starting until the node is rebooted or r is deleted.
func (t *turn) requestReboot(r *Run) {
	t.s.RebootBy = r.Run.ID
	t.effect(RequestReboot{ID: r.Run.ID, Reason: r.Run.Outcome.RebootReason})
}

func (t *turn) clearMark(r *Run) {
	if t.s.Marked == r.Run.ID {
		t.effect(ClearMark{ID: r.Run.ID})
	}
}

// maxUnpushed bounds the runs that wait to be pushed.
const maxUnpushed = 64

// Unpushed returns the runs whose bundles are still to be pushed, oldest first.
func (s State) Unpushed() (runs []*Run) {
	for _, r := range s.Runs {
		if r.Unpushed && r.Run.State.Final() {
			runs = append(runs, r)
		}
	}
	return runs
}

// limitPushes gives up the second oldest bundle when too many wait; the oldest may be
// under way.
func (t *turn) limitPushes() {
	if waiting := t.s.Unpushed(); len(waiting) > maxUnpushed {
		r := t.edit(waiting[1].Run.ID)
		r.Unpushed = false
		t.effect(GivenUp{ID: r.Run.ID})
		t.notPushed(r, fmt.Sprintf("the run's bundle was not pushed: more than %d runs wait for it", maxUnpushed))
	}
}

func (t *turn) notPushed(r *Run, warning string) {
	r.warn(warning)
	t.save(r)
	t.log(LevelWarning, r, warning, nil)
}

// afterEnd takes answers to effects that follow a run's end.
func (t *turn) afterEnd(e Event) {
	switch e := e.(type) {
	case Tidied:
		if r := t.edit(e.ID); r != nil {
			r.Tidied, r.Kept, r.LogBytes = true, true, e.LogBytes
			t.save(r)
			t.effect(DropFiles{ID: e.ID})
			t.then(Retain{})
		}
	case Audited:
		if r := t.edit(e.ID); r != nil && !r.Audited {
			r.Audited = true // on record with the next change; see [Audit.Check]
		}
	case Pushed:
		r := t.edit(e.ID)
		if r == nil || !r.Unpushed {
			return // deleted or given up meanwhile
		}
		r.Unpushed = false
		t.save(r)
		if e.Warning != "" {
			t.notPushed(r, e.Warning)
		}
	case OutputRemoved:
		if r := t.edit(e.ID); r != nil {
			t.outputRemoved(r)
		}
	}
}

// retain applies the limits of retention: first the output of the oldest runs goes,
// much later the runs themselves.
func (t *turn) retain() {
	var size int64
	logs, known := 0, 0
	for _, r := range slices.Backward(t.s.Runs) {
		if !r.Run.State.Final() || r.Stuck {
			continue
		}
		known++
		switch {
		case !r.Tidied:
		case known > t.s.Config.KeepRuns && t.s.RebootBy != r.Run.ID:
			t.effect(Forget{ID: r.Run.ID, Tombstone: true})
		case r.Dropped:
		default:
			if logs++; logs > t.s.Config.KeepLogs || size+r.LogBytes > t.s.Config.KeepBytes {
				t.effect(RemoveOutput{ID: r.Run.ID})
			} else {
				size += r.LogBytes
			}
		}
	}
}

// outputRemoved records that only how the run ended is kept.
func (t *turn) outputRemoved(r *Run) {
	// A result of this size is kept with the record.
	const small = 4 << 10
	r.Dropped = true
	if r.Run.Outcome != nil {
		o := *r.Run.Outcome
		o.LogTail = nil
		if len(o.Result) > small {
			o.Result = nil
		}
		r.Run.Outcome = &o
	}
	t.save(r)
}

// durations adds the time that each state took to the outcome.
func (rec *Record) durations(o *Outcome) {
	if rec.Exit != nil && rec.Exit.Ran > 0 && rec.Run.Parts == 0 && rec.Stop == nil {
		// The shim measured it; the agent may not have been there.
		rec.Phases[string(Running)] = rec.Exit.Ran
	}
	var total time.Duration
	o.Phases = map[string]string{}
	for phase, d := range rec.Phases {
		o.Phases[phase] = d.Round(time.Millisecond).String()
		if phase != string(Queued) {
			total += d
		}
	}
	o.Duration = total.Round(time.Millisecond).String()
}
