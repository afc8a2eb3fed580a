package machine

import (
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

// load takes over what earlier agents left. It removes containers that no run goes on
// with, and only then resumes the runs: a record that forgets a container before it is
// removed would leave it on the node for ever.
func (t *turn) load(e Load) {
	if t.s.Loaded {
		return
	}
	t.s.Loaded = true
	for _, rec := range e.Records {
		t.known(t.add(&Run{Record: rec.clone(), LogBytes: e.LogBytes[rec.Run.ID]}))
	}
	t.s.recovery = &recovery{e, t.claim(e.Existing)}
	for _, r := range t.s.Runs {
		if !r.Run.State.Final() && r.ContainerID != "" && !r.Starting {
			t.removeLeft(r.container()) // half made, so that it is not listed
		}
	}
	t.removedAll()
}

// recovery is what resuming needs of [Load].
type recovery struct {
	Load
	found map[string]*container.Existing
}

// resumeAll ends recovery: it adopts containers that run, ends what ended, calls lost what
// cannot be known, and queues what had not started.
func (t *turn) resumeAll() {
	rec := t.s.recovery
	t.s.recovery = nil
	for _, r := range t.s.Runs {
		if !r.Run.State.Final() {
			t.resume(t.edit(r.Run.ID), rec.found[r.ContainerID], rec.Load)
		}
	}
	t.loadMark(rec.Mark)
	t.s.Recovered = true
	t.effect(Sweep{})
	t.effect(Recovered{})
	t.then(Schedule{})
	t.then(Retain{})
}

// known goes on with what follows the end of a run that ended under an earlier agent.
func (t *turn) known(r *Run) {
	if !r.Run.State.Final() {
		return
	}
	if r.RebootClaim && r.Run.BootID == t.s.Config.BootID {
		t.requestReboot(r)
	}
	if !r.Audited {
		t.effect(Audit{ID: r.Run.ID, Check: true})
	}
	if r.Tidied = r.Kept || r.Dropped; !r.Tidied {
		t.effect(Tidy{ID: r.Run.ID})
	}
}

// claim sorts the containers that exist. It returns those that a run goes on with, by
// id. The others are removed, but not one that runs without a record: it may be a flash.
func (t *turn) claim(existing []container.Existing) map[string]*container.Existing {
	found := map[string]*container.Existing{}
	for _, e := range existing {
		r := t.s.Find(e.Run)
		switch {
		case r == nil && e.State == container.StateRunning:
			t.adoptUnknown(e)
			found[e.ID] = &e
		case r == nil || r.Run.State.Final():
			t.removeLeft(e.Container)
		case r.Starting && r.ContainerID == e.ID:
			found[e.ID] = &e
		case !r.Starting && r.Part == 0 && e.WasStarted():
			t.adoptUnrecorded(t.edit(e.Run), e)
			found[e.ID] = &e
		default:
			t.removeLeft(e.Container)
		}
	}
	return found
}

// removeLeft removes what is left of a container. Runs do not start while it is there.
func (t *turn) removeLeft(c container.Container) {
	if _, known := t.s.Removing[c.ID]; known {
		return
	}
	t.s.Removing = set(t.s.Removing, c.ID, c.Run)
	t.effect(RemoveLeft{Container: c})
}

// removed notes whether a container of an earlier agent is gone. One that is not, such
// as one that survived SIGKILL, keeps new runs from starting until it goes.
func (t *turn) removed(e Removed) {
	run, first := t.s.Removing[e.ID]
	t.s.Removing = without(t.s.Removing, e.ID)
	if e.Err != nil {
		t.s.Unremoved = set(t.s.Unremoved, e.ID, run)
		t.out.Logs = append(t.out.Logs, LogLine{Level: LevelError, Run: run, Err: e.Err,
			Text: "cannot remove a container of an earlier agent; trying again"})
		t.effect(RemoveLeft{Container: container.Container{Run: run, ID: e.ID}, Retry: true})
	} else if !first {
		t.s.Unremoved = without(t.s.Unremoved, e.ID)
		t.then(Schedule{})
	}
	t.removedAll()
}

// removedAll goes on with recovery when nothing is being removed any more.
func (t *turn) removedAll() {
	if t.s.recovery != nil && len(t.s.Removing) == 0 {
		t.then(Resume{})
	}
}

// adoptUnknown makes a record for a container that runs and has none: the state
// directory was lost, and what the container does may not be interrupted for that.
func (t *turn) adoptUnknown(e container.Existing) {
	now := t.now.Clock
	r := t.add(&Run{Record: Record{
		Run: Info{ID: e.Run, State: Creating, Abortable: true, CreatedAt: t.now.Wall, BootID: t.s.Config.BootID,
			Image: "unknown"},
		ContainerID: e.ID, Starting: true, Route: "found", Accepted: now, Began: now, PhaseBegan: now,
	}})
	r.audit().Image, r.audit().Started = "unknown", true
	r.warn("the container was found running without a record of its run")
	t.entry(r, Entry{Type: "state", State: Creating})
	t.save(r)
}

// adoptUnrecorded corrects the record of a run that says that nothing was started,
// although its container was: the disk lost what was written. Believing the record would
// end the container and do its work again.
func (t *turn) adoptUnrecorded(r *Run, e container.Existing) {
	t.log(LevelError, r, "the record of this run's start is gone; its container is adopted", nil)
	if r.Began == 0 {
		r.Began = t.now.Clock
	}
	r.ContainerID, r.Starting = e.ID, true
	r.audit().Image, r.audit().Started = r.Run.Image, true
	r.warn("the container was found started, which is not on record: the state directory has lost records")
	t.save(r)
	if r.Run.State == Queued {
		t.move(r, Pulling, nil)
	}
	if r.Run.State == Pulling {
		t.move(r, Creating, nil)
	}
}

// resume goes on with a run that had not ended.
func (t *turn) resume(r *Run, found *container.Existing, e Load) {
	tail := e.Tails[r.Run.ID]
	switch {
	case r.Run.BootID != t.s.Config.BootID:
		t.lostInReboot(r, tail)
	case r.Starting:
		t.adopt(r, found, e.Plans[r.Run.ID])
	case r.Stop != nil:
		t.endUnstarted(r, tail)
	default:
		t.requeue(r, e.Plans[r.Run.ID], tail)
	}
}

// lostInReboot ends a run that was under way when the node went down. One whose end is
// on record ends so.
func (t *turn) lostInReboot(r *Run, tail []string) {
	if r.Exit != nil {
		t.conclude(r, verdictOf(r, nil), tail)
		return
	}
	reason := "the node was rebooted while the container was at work"
	if !r.Starting {
		reason = "the node was rebooted before the container was started"
	}
	t.conclude(r, verdictOf(r, &fault.Error{Code: fault.Lost, Op: "complete " + r.subject(), Reason: reason,
		Remedy: "Look at the node before you run the step again: what was done is unknown",
		Attrs: map[string]any{"reason": "interrupted_by_reboot", "boot_id_then": r.Run.BootID,
			"boot_id_now": t.s.Config.BootID, "started": r.Starting}}), tail)
}

// endUnstarted ends a run that was to be ended and whose container never started. The
// earlier agent may have recorded the wish and no more.
func (t *turn) endUnstarted(r *Run, tail []string) {
	r.Stop.Applied = true
	t.save(r)
	if r.Run.State == Pulling || r.Run.State == Creating {
		t.move(r, Stopping, nil)
	}
	t.conclude(r, verdictOf(r, nil), tail)
}

// adopt goes on with a container that may have been started.
func (t *turn) adopt(r *Run, found *container.Existing, plan PlanOrError) {
	r.Found = found
	r.Gone = found == nil || found.State == container.StateStopped && found.Exit == nil
	r.Active, r.Plan = true, plan.Plan
	t.dropRequest(r)
	if r.Run.Parts > 1 && plan.Err != nil {
		t.log(LevelWarning, r, "cannot go on with the sequence", plan.Err)
	}
	t.out.Logs = append(t.out.Logs, LogLine{Level: LevelInfo, Run: r.Run.ID, Text: "run adopted",
		Fields: map[string]any{"found": found != nil}})
	if r.Exit != nil {
		r.Ended = true
		t.remove(r)
		return
	}
	if r.Run.State == Creating {
		t.move(r, Running, func() {
			if found != nil {
				r.Run.Pid = found.Pid
			}
		})
	}
	if found != nil && found.State == container.StateCreated {
		// The start is on record and did not happen, or is happening: a container starts
		// once at most, so asking again is safe.
		t.effect(Start{ID: r.Run.ID, Call: r.call(DoStart), Container: r.container(), Mark: t.mark(r)})
		return
	}
	t.supervise(r)
}

// requeue has a run whose container never started wait again, in its place.
func (t *turn) requeue(r *Run, plan PlanOrError, tail []string) {
	err := plan.Err
	if err == nil && (plan.Plan == nil || r.Part >= len(plan.Plan.Parts)) {
		err = &fault.Error{Code: fault.Conflict, Op: "go on with run", Subject: r.Run.ID,
			Reason: "its steps file has changed while the agent was away"}
	}
	if err != nil {
		t.conclude(r, verdictOf(r, err), tail)
		return
	}
	r.Plan = plan.Plan
	if r.Run.State != Queued {
		t.move(r, Queued, func() { r.ContainerID = "" })
	}
	t.enqueue(r.Run.ID)
}

// loadMark makes a lost run of what the reboot marker says and the journal does not know.
func (t *turn) loadMark(mark *Mark) {
	if mark == nil {
		return
	}
	t.s.Marked = mark.Run
	r := t.s.Find(mark.Run)
	if r != nil && !r.Run.State.Final() {
		return // adopted: its end clears the marker
	}
	if r == nil && mark.BootID != t.s.Config.BootID {
		r = t.add(&Run{Record: Record{
			Run: Info{ID: mark.Run, State: Creating, Step: mark.Step, Phase: mark.Phase, Node: mark.Node,
				Image: mark.Image, CreatedAt: mark.At, StartedAt: &mark.At, BootID: mark.BootID, Abortable: true},
			Route: "marker", Starting: true,
		}})
		r.audit().Image, r.audit().Started = mark.Image, true
		r.warn("only the reboot marker knows of this run: the state directory did not survive the reboot")
		t.lostInReboot(r, nil)
		return
	}
	t.effect(ClearMark{ID: mark.Run})
}
