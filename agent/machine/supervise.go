package machine

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

// checkEvery is how often a running container is observed. Limits that come sooner are
// kept to the moment.
const checkEvery = 500 * time.Millisecond

// supervise watches a started container until it ends.
func (t *turn) supervise(r *Run) {
	r.SilentAt = t.now.Clock
	t.effect(Wait{ID: r.Run.ID, Call: r.call(DoSupervise), Container: r.container(), Once: r.Gone})
	if r.Gone || r.Found != nil && r.Found.State == container.StateStopped {
		// It ended without an agent: limits that passed since then do not count.
		r.Since = t.now.Clock + t.s.Config.LostAfter
	}
	r.ObserveAt = max(r.Since, t.now.Clock)
	if r.Since == 0 {
		t.observe(r)
	}
}

// observe looks at a running container now.
func (t *turn) observe(r *Run) {
	if r.Doing != DoSupervise || r.Ended {
		return
	}
	o := Observe{ID: r.Run.ID, Claim: r.Claim}
	if r.Killed && t.now.Clock >= r.Due {
		o.Survivors = r.Run.Pid
	}
	t.effect(o)
}

// tick applies what time brings to the runs that hold a slot.
func (t *turn) tick() {
	for _, r := range t.s.Runs {
		switch {
		case !r.Active:
		case r.Doing == DoPull, r.Doing == DoCreate:
			t.tickPreparing(r)
		case r.Doing == DoSupervise && !r.Ended && t.now.Clock >= r.ObserveAt:
			t.observe(r)
		}
	}
}

// observed takes what was seen of a running container: its critical section and the end
// of its log. It applies limits and takes the next step of the stop escalation.
func (t *turn) observed(r *Run, e Observed) {
	now := t.now.Clock
	t.noteClaim(r, e.Claim)
	if e.Output != r.Output {
		r.Output, r.SilentAt = e.Output, now
	}
	r.ObserveAt = now + checkEvery
	if r.Stop == nil && now >= r.Since {
		stop, due := t.s.passedLimit(r, now)
		if limit := r.PartSilence; stop == nil && limit > 0 {
			silent := r.SilentAt + limit
			if now >= silent {
				stop = &Stop{Cause: CauseSilence, Limit: limit}
			} else if due == 0 || silent < due {
				due = silent
			}
		}
		if stop != nil {
			t.recordStop(r, stop)
		} else if due > 0 {
			r.ObserveAt = min(r.ObserveAt, due)
		}
	}
	t.applyStop(r)
	if r.stopped() {
		t.escalate(r, e.Survivors)
	}
}

// passedLimit returns the time limit of r that has passed at now, or when the next one
// passes (0 for never).
func (s State) passedLimit(r *Run, now time.Duration) (stop *Stop, due time.Duration) {
	for _, l := range []struct {
		cause        Cause
		limit, since time.Duration
	}{
		{CauseTimeout, r.Timeout, r.Began},
		{CauseTimeout, r.PartTimeout, r.PartBegan},
		{CauseProcess, r.ProcessTimeout, r.ProcessBegan},
	} {
		if l.limit <= 0 || l.since == 0 {
			continue
		}
		at := l.since + l.limit
		if now >= at {
			return &Stop{Cause: l.cause, Limit: l.limit}, 0
		}
		if due == 0 || at < due {
			due = at
		}
	}
	return nil, due
}

// noteClaim notes the begin, end and limit of a critical section.
func (t *turn) noteClaim(r *Run, claim *Claim) {
	had := r.Claim
	switch {
	case had == nil && claim != nil:
		t.entry(r, Entry{Type: "critical", Message: fmt.Sprintf("critical section for at most %v", claim.Until-claim.Since)})
	case had != nil && claim == nil:
		t.entry(r, Entry{Type: "critical", Message: "critical section over"})
	case claim != nil && claim.Until <= t.now.Clock && r.Stop != nil && !r.Stop.Applied:
		t.entry(r, Entry{Type: "warning", Message: "the critical section passed its limit"})
	}
	r.Claim = claim
}

// held reports whether a critical section holds off the end of a running container.
func (t *turn) held(r *Run) bool { return t.now.Clock < t.s.CriticalUntil(r) }

// recordStop records why a run is to be ended.
func (t *turn) recordStop(r *Run, stop *Stop) {
	stop.At = t.now.Clock
	r.Stop, r.Run.StopReason = stop, stop.words()
	t.save(r)
}

// requestStop ends an active run: at once while it is prepared, and by the stop
// escalation, unless a critical section holds it off, while it runs.
func (t *turn) requestStop(r *Run, stop *Stop) {
	if r.Stop != nil || r.over() {
		return
	}
	t.recordStop(r, stop)
	if r.Doing == DoSupervise {
		t.observe(r) // it may just have begun a critical section
		return
	}
	t.applyStop(r)
}

// applyStop begins to end a run, unless its container holds that off.
func (t *turn) applyStop(r *Run) {
	if r.Stop == nil || r.Stop.Applied || r.over() {
		return
	}
	if r.Run.State == Running {
		if r.Doing != DoSupervise {
			return // it is about to be
		}
		if t.held(r) {
			t.holdOff(r)
			return
		}
	}
	t.move(r, Stopping, func() {
		r.Stop.Applied = true
		r.Run.StopReason = r.Stop.words()
	})
	if r.Doing == DoPull || r.Doing == DoCreate {
		r.Due = t.now.Clock + t.s.Config.StuckAfter
		t.effect(Cancel{ID: r.Run.ID})
	}
}

// holdOff says once that a critical section holds off the end.
func (t *turn) holdOff(r *Run) {
	reason := r.Stop.words() + "; waiting for the end of a critical section"
	if r.Run.StopReason != reason {
		r.Run.StopReason = reason
		t.save(r)
		t.entry(r, Entry{Type: "critical", Message: reason})
	}
	if until := t.s.CriticalUntil(r); until > t.now.Clock {
		r.ObserveAt = min(r.ObserveAt, until)
	}
}

// escalate takes the next step that is due to end a container: stop signal, grace,
// SIGKILL to all processes, a bounded wait, and then the outcome stuck.
func (t *turn) escalate(r *Run, survivors string) {
	now := t.now.Clock
	switch {
	case !r.Signalled:
		r.Signalled, r.StopBegan = true, now
		if r.Stop.Cause != CauseProcess { // podman's --timeout kills at once
			t.signal(r, r.stopSignal(), false)
		}
	case r.Killed && now >= r.Due:
		t.stuck(r, survivors)
		return
	case r.Killed:
		r.ObserveAt = r.Due
		return
	}
	if kill := r.StopBegan + r.grace(t.s.Config.Grace); now < kill {
		r.ObserveAt = kill
		return
	}
	r.Killed, r.Due = true, now+t.s.Config.StuckAfter
	r.ObserveAt = r.Due
	t.signal(r, syscall.SIGKILL, true)
}

func (t *turn) signal(r *Run, sig syscall.Signal, all bool) {
	to := "the container's first process"
	if all {
		to = "all processes of the container"
	}
	t.entry(r, Entry{Type: "signal", Message: signalName(int(sig)) + " to " + to})
	t.effect(Signal{ID: r.Run.ID, Container: r.container(), Signal: sig, All: all})
}

// stuck gives up on a container that survived SIGKILL. It keeps its slot until it goes.
func (t *turn) stuck(r *Run, survivors string) {
	r.Stuck = true
	r.Failure = &fault.Error{Code: fault.Stuck, Op: "end the container of run", Subject: r.Run.ID,
		Reason: "it survived SIGKILL" + survivors, Remedy: "Power-cycle the node"}
	r.WaitCall = r.Call
	t.effect(ReadEnd{ID: r.Run.ID, Call: r.call(DoReadEnd)})
}

// signalName returns a signal's name, such as SIGSEGV.
func signalName(n int) string {
	if name := unix.SignalName(syscall.Signal(n)); name != "" {
		return name
	}
	return "unknown"
}

// words say why a run is ended.
func (s *Stop) words() string {
	reason := ""
	if s.Reason != "" {
		reason = ": " + oneLine(s.Reason)
	}
	limit := s.Limit.Round(time.Millisecond)
	switch s.Cause {
	case CauseAbort:
		if reason == "" {
			return "aborted on request"
		}
		return "aborted" + reason
	case CauseClient:
		return "the client that waited for it is gone" + reason
	case CauseDrain, CauseShutdown:
		return "aborted: " + s.Reason
	case CauseTimeout:
		return fmt.Sprintf("the step's time limit of %v has passed", limit)
	case CauseProcess:
		return fmt.Sprintf("the container's --timeout of %v has passed", limit)
	case CauseSilence:
		return fmt.Sprintf("the container wrote nothing for %v", limit)
	default:
		return fmt.Sprintf("the pull got no bytes for %v", limit)
	}
}
