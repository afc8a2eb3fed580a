package machine

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/careen-project/careen/runtime/container"
)

// errStopped is the failure of a part whose run was stopped before it started.
var errStopped = errors.New("the run was stopped")

// pullEvery is the shortest time between two entries about one pull.
const pullEvery = 200 * time.Millisecond

// pull begins the current part with the pull of its image.
func (t *turn) pull(r *Run) {
	r.Pull, r.PullAt, r.PullEventAt, r.Failure = nil, t.now.Clock, 0, nil
	r.Ended, r.Claim, r.Found, r.Gone = false, nil, nil, false
	r.Signalled, r.Killed = false, false
	t.effect(Pull{ID: r.Run.ID, Call: r.call(DoPull), Part: r.Plan.Parts[r.Part]})
}

// progress handles a progress report of the pull.
func (t *turn) progress(r *Run, p Progress) {
	had := r.Pull
	if had == nil {
		had = &Progress{}
	}
	// A pull that unpacks gets no bytes but is not stalled.
	if r.Pull == nil || had.Done != p.Done || had.Status != p.Status || p.Status == "unpacking" {
		r.PullAt = t.now.Clock
	}
	for _, warning := range p.Warnings[min(len(had.Warnings), len(p.Warnings)):] {
		t.entry(r, Entry{Type: "warning", Message: warning})
		t.log(LevelWarning, r, warning, nil)
		r.warn(warning)
		t.save(r)
	}
	if p.Message != "" && had.Message != p.Message {
		t.log(LevelInfo, r, "pull: "+p.Message, nil)
	}
	first := r.Pull == nil || had.Status != p.Status
	r.Pull = &p
	if first || t.now.Clock-r.PullEventAt >= pullEvery {
		r.PullEventAt = t.now.Clock
		t.entry(r, Entry{Type: "pull", Pull: &p})
	}
}

// pulled records that a container is about to be created, and creates it.
func (t *turn) pulled(r *Run, e Pulled) {
	if t.givesUp(r, e.Err) {
		return
	}
	t.move(r, Creating, func() {
		r.ContainerID, r.Run.Digest = e.ContainerID, e.Image.Digest
		r.audit().Digest, r.audit().SignedBy = e.Image.Digest, e.SignedBy
		r.warn(e.Image.Warnings...)
	})
	t.saveFirst(r)
	for _, warning := range e.Image.Warnings {
		t.entry(r, Entry{Type: "warning", Message: warning})
	}
	part := r.Plan.Parts[r.Part]
	t.effect(Create{ID: r.Run.ID, Call: r.call(DoCreate), Inputs: t.inputs(r, part.Inputs), Spec: container.CreateSpec{
		Container: r.container(), Run: part.Run, Image: e.Image, Stdin: r.Plan.Stdin, TerminalSize: r.Plan.Terminal,
		Environ: r.Plan.Environ,
	}})
}

// givesUp ends the present part if the run is being ended or its call failed with err.
func (t *turn) givesUp(r *Run, err error) bool {
	if r.stopped() {
		err = errStopped
	}
	if err != nil {
		t.partFailed(r, err)
	}
	return err != nil
}

// stopped reports whether the run is being stopped.
func (r *Run) stopped() bool { return r.Stop != nil && r.Stop.Applied }

// inputs lists the earlier results that the current container reads: the earlier parts
// of its sequence, then the last runs in this boot of the steps that its definition names.
func (t *turn) inputs(r *Run, steps []string) []Input {
	list := slices.Clone(r.Previous)
	for _, step := range steps {
		for _, other := range slices.Backward(t.s.Runs) {
			run := other.Run
			if run.Step != step || !run.State.Final() || run.BootID != t.s.Config.BootID {
				continue
			}
			list = append(list, Input{Step: step, Run: run.ID, Image: run.Image, Digest: run.Digest, State: run.State,
				ExitCode: run.Outcome.ExitCode, Result: run.Outcome.Result})
			break
		}
	}
	return list
}

// created records the created container and its imminent start, and starts it.
func (t *turn) created(r *Run, e Created) {
	if t.givesUp(r, e.Err) {
		return
	}
	r.StopSignal, r.StopTimeout, r.ProcessTimeout = e.StopSignal, e.StopTimeout, e.Timeout
	if e.Digest != "" {
		r.Run.Digest = e.Digest
	}
	r.audit().Digest, r.audit().SpecSHA256 = r.Run.Digest, e.SpecSHA256
	r.warn(e.Warnings...)
	if e.Warning != "" {
		r.warn(e.Warning)
	}
	for _, warning := range e.Warnings {
		t.entry(r, Entry{Type: "warning", Message: warning})
	}
	// From here on the container may run, and is never created again.
	r.Starting, r.audit().Started = true, true
	r.ProcessBegan = t.now.Clock
	t.saveFirst(r)
	t.dropRequest(r)
	t.effect(Start{ID: r.Run.ID, Call: r.call(DoStart), Container: r.container(), Mark: t.mark(r)})
}

// RequestDone reports whether no agent needs the request any more: the start of the last
// container is on record.
func (rec *Record) RequestDone() bool { return rec.Starting && rec.Run.Part >= rec.Run.Parts }

// dropRequest removes a request that the run does not need any more, before the
// container can read it.
func (t *turn) dropRequest(r *Run) {
	if r.RequestDone() {
		t.effect(DropRequest{ID: r.Run.ID})
	}
}

// mark returns the content of the reboot marker for a run.
func (t *turn) mark(r *Run) *Mark {
	return &Mark{Run: r.Run.ID, Step: cut(r.Run.Step, 100), Phase: cut(r.Run.Phase, 20), Node: cut(r.Run.Node, 100),
		Image: cut(r.Run.Image, 300), BootID: t.s.Config.BootID, At: t.now.Wall}
}

// started notes that the container runs.
func (t *turn) started(r *Run, e Started) {
	t.marked(r, e)
	if e.Err != nil {
		if r.Found == nil {
			t.partFailed(r, e.Err)
			return
		}
		// Recovery found it created: the earlier start may have happened.
		t.log(LevelWarning, r, "the container was started before", e.Err)
		t.supervise(r)
		return
	}
	if r.Run.State == Creating {
		t.move(r, Running, func() { r.Run.Pid = e.Pid })
		t.saveFirst(r)
	} else {
		r.Run.Pid = e.Pid
		t.save(r)
	}
	t.supervise(r)
}

// marked notes whether the reboot marker names the run.
func (t *turn) marked(r *Run, e Started) {
	if e.Marked {
		t.s.Marked = r.Run.ID
	}
	if e.MarkErr != nil {
		t.log(LevelWarning, r, "cannot write the reboot marker", e.MarkErr)
		r.warn("a reboot would not be noticed: " + oneLine(e.MarkErr.Error()))
		t.save(r)
	}
}

// runsUnrecorded handles a container that runs although its state cannot be written: its
// start is on record, so it continues, and the record follows later.
func (t *turn) runsUnrecorded(r *Run, e Started, err error) {
	t.marked(r, e)
	t.log(LevelWarning, r, "the container runs without a record of it", err)
	t.force(r, Running, func() {
		r.Run.Pid = e.Pid
		r.warn("the state directory could not be written while this run went on")
	})
	t.supervise(r)
}

// partFailed ends the current part before its container ended by itself.
func (t *turn) partFailed(r *Run, err error) {
	r.Failure = err
	if r.ContainerID == "" {
		t.then(Next{ID: r.Run.ID})
		r.Doing = Idle
		return
	}
	t.remove(r)
}

// prepareDue returns the time of the next check of a run that pulls or creates.
func (s State) prepareDue(r *Run) time.Duration {
	if r.stopped() {
		return r.Due
	}
	_, due := s.passedLimit(r, 0)
	if stall := s.stallDue(r); stall > 0 && (due == 0 || stall < due) {
		due = stall
	}
	return due
}

// stallDue returns the time at which the current pull counts as stalled; 0 for never. The
// wait for a network has a separate limit.
func (s State) stallDue(r *Run) time.Duration {
	if r.Run.State != Pulling || s.Config.PullStall <= 0 || r.Pull != nil && r.Pull.Status == "waiting" {
		return 0
	}
	return r.PullAt + s.Config.PullStall
}

// tickPreparing applies limits to a run that pulls or creates.
func (t *turn) tickPreparing(r *Run) {
	now := t.now.Clock
	if due := t.s.prepareDue(r); due == 0 || now < due {
		return
	}
	r = t.edit(r.Run.ID)
	if r.stopped() {
		// The cancelled call does not end: continue without its answer.
		r.Call++
		t.partFailed(r, errStopped)
		return
	}
	if stop, _ := t.s.passedLimit(r, now); stop != nil {
		t.requestStop(r, stop)
		return
	}
	if due := t.s.stallDue(r); due > 0 && now >= due {
		t.requestStop(r, &Stop{Cause: CauseStall, Limit: t.s.Config.PullStall})
	}
}

// cut shortens text to about n bytes without splitting a character.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + " ..."
}
