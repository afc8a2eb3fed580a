package agent

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/logs"
)

// checkEvery is how often a run's limits, silence and critical section are looked
// at; limits that come sooner are kept to the moment.
const checkEvery = 500 * time.Millisecond

// waited is what the Runner says about a container's end.
type waited struct {
	exit Exit
	err  error
}

// await watches over a container that runs until it has ended and its end is on
// record. The error is errDetached, or with code stuck or lost.
func (a *Agent) await(r *run) error {
	ended := a.waitFor(r)
	if r.gone || r.found != nil && r.found.State == ContainerStopped {
		// It ended while there was no agent: limits that passed since do not count.
		select {
		case got := <-ended:
			return a.tookEnd(r, got)
		case <-a.ctx.Done():
			return errDetached
		case <-time.After(a.cfg.LostAfter):
		}
	}
	w := &watch{silentSince: a.cfg.Clock()}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case got := <-ended:
			return a.tookEnd(r, got)
		case <-a.ctx.Done():
			return errDetached
		case <-r.wake:
		case <-timer.C:
		}
		// An end that is there already comes before anything that is to bring it about.
		select {
		case got := <-ended:
			return a.tookEnd(r, got)
		default:
		}
		wait, err := a.check(r, w)
		if err != nil {
			r.ended = ended
			return err
		}
		timer.Reset(max(wait, time.Millisecond))
	}
}

// waitFor asks the Runner for the container's end in a goroutine. When the Runner
// cannot tell it is asked again for a while: a containerd that is being restarted
// does not know, and the container runs on.
func (a *Agent) waitFor(r *run) <-chan waited {
	ended := make(chan waited, 1)
	a.mu.Lock()
	c, once := r.rec.container(a.cfg), r.gone
	a.mu.Unlock()
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		var failing time.Duration
		for {
			exit, err := a.cfg.Runner.Wait(a.ctx, c)
			now := a.cfg.Clock()
			switch {
			case err == nil:
				ended <- waited{exit: exit}
				return
			case a.ctx.Err() != nil:
				return
			case once, fault.CodeOf(err) == fault.Lost: // the Runner is sure
				ended <- waited{err: err}
				return
			case failing == 0:
				failing = now
				a.cfg.Log.WithField("run", c.Run).WithError(err).Warn("cannot tell how the container is; asking again")
			case now-failing >= a.cfg.LostAfter:
				ended <- waited{err: err}
				return
			}
			select {
			case <-time.After(min(time.Second, a.cfg.LostAfter/4)):
			case <-a.ctx.Done():
				return
			}
		}
	}()
	return ended
}

// tookEnd notes that the container has ended. From here on it is too late to abort.
func (a *Agent) tookEnd(r *run, got waited) error {
	a.mu.Lock()
	r.claimed = true
	a.change(func() { r.critical = nil })
	rec := r.rec
	a.mu.Unlock()
	forgetClaim(a.cfg.runDir(rec.Run.ID))
	if got.err != nil {
		return &fault.Error{Code: fault.Lost, Op: "learn how the container of run", Subject: rec.Run.ID + " ended",
			Err: got.err, Remedy: "Look at the node before you run the step again: nobody can know what was done"}
	}
	end := a.readEnd(rec)
	a.cfg.Failpoint("agent.before-exit")
	a.mu.Lock()
	defer a.mu.Unlock()
	r.events.add(api.Event{Type: "exit", Message: got.exit.String()})
	if end.Result != nil {
		r.events.add(api.Event{Type: "result"})
	}
	for _, w := range end.Warnings {
		r.events.add(api.Event{Type: "warning", Message: w})
	}
	return a.update(r, false, func(rec *record) {
		rec.Exit, rec.End = &got.exit, end
		rec.Run.Pid = 0
		rec.warn(end.Warnings...)
	})
}

// watch is what await remembers from one look to the next.
type watch struct {
	silentSince time.Duration
	output      logs.Cursor
	// The ladder: what was done, and when the next step is due.
	signalled, killed bool
	due               time.Duration
	began             time.Duration
}

// check looks at a running container: its claim, its limits, its ladder. It
// returns when to look again, or why it has to be left behind.
func (a *Agent) check(r *run, w *watch) (time.Duration, error) {
	a.mu.Lock()
	rec, had := r.rec, r.critical
	a.mu.Unlock()
	critical := a.readCritical(a.cfg.runDir(rec.Run.ID), had)
	silent := a.silence(rec, w)

	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Clock()
	a.noteCritical(r, critical, now)
	wait := checkEvery
	if r.rec.Stop == nil {
		s, due := a.passedLimit(r, now)
		if limit := r.rec.PartSilence; s == nil && limit > 0 {
			if silent >= limit {
				s = &stop{Cause: causeSilence, Limit: limit}
			}
			due = min(due, limit-silent)
		}
		if s != nil {
			a.requestStop(r, s)
		}
		wait = min(wait, due)
	}
	a.applyStop(r, now)
	if r.rec.Stop == nil || !r.rec.Stop.Applied {
		return wait, nil
	}
	return a.ladder(r, w, now)
}

// silence returns for how long the container has written nothing.
func (a *Agent) silence(rec *record, w *watch) time.Duration {
	if rec.PartSilence <= 0 {
		return 0
	}
	now := a.cfg.Clock()
	end, err := logs.End(a.logDir(rec.Run.ID))
	if err != nil || end != w.output {
		w.output, w.silentSince = end, now
	}
	return now - w.silentSince
}

// passedLimit returns the limit of r that has passed, or how long the next has.
// The lock is held.
func (a *Agent) passedLimit(r *run, now time.Duration) (*stop, time.Duration) {
	due := time.Hour
	for _, l := range []struct {
		cause stopCause
		limit time.Duration
		since time.Duration
	}{
		{causeTimeout, r.rec.Timeout, r.rec.Began},
		{causeTimeout, r.rec.PartTimeout, r.rec.PartBegan},
		{causeProcess, r.rec.ProcessTimeout, r.rec.ProcessBegan},
	} {
		if l.limit <= 0 || l.since == 0 {
			continue
		}
		left := l.limit - (now - l.since)
		if left <= 0 {
			return &stop{Cause: l.cause, Limit: l.limit}, 0
		}
		due = min(due, left)
	}
	return nil, due
}

// noteCritical takes note of a claim's begin, end and limit. The lock is held.
func (a *Agent) noteCritical(r *run, c *criticalSection, now time.Duration) {
	had := r.critical
	switch {
	case had == nil && c != nil:
		r.events.add(api.Event{Type: "critical", Message: fmt.Sprintf("critical section for at most %v", c.until-c.since)})
	case had != nil && c == nil:
		r.events.add(api.Event{Type: "critical", Message: "critical section over"})
	case c != nil && c.until <= now && r.rec.Stop != nil && !r.rec.Stop.Applied:
		r.events.add(api.Event{Type: "warning", Message: "the critical section passed its limit"})
	}
	a.change(func() { r.critical = c })
}

// held says whether the container may not be stopped now, though somebody or
// something wants it. The lock is held.
func (a *Agent) held(r *run, now time.Duration) bool {
	return now < a.wholePart(r.rec) || r.critical != nil && now < r.critical.until
}

// wholePart returns until when a container that is critical as a whole holds off its
// end, by the clock: no longer than any claim may, or one that hangs would never end.
func (a *Agent) wholePart(rec *record) time.Duration {
	if !rec.CriticalPart || rec.Stop == nil || rec.Stop.Applied || a.cfg.CriticalMax < 0 {
		return 0
	}
	return rec.Stop.At + a.cfg.CriticalMax
}

// applyStop begins to end a running container that somebody wants ended, unless
// it holds that off. The lock is held.
func (a *Agent) applyStop(r *run, now time.Duration) {
	if r.rec.Stop == nil || r.rec.Stop.Applied || r.claimed {
		return
	}
	if r.state() == api.Running && a.held(r, now) {
		return
	}
	_ = a.transition(r, api.Stopping, func(rec *record) {
		rec.Stop.Applied = true
		rec.Run.StopReason = rec.Stop.words()
	})
	r.nudge()
}

// ladder takes the next step that is due to end a container: stop signal, grace,
// SIGKILL to all, bounded wait, stuck. The lock is held, and given up for calls.
func (a *Agent) ladder(r *run, w *watch, now time.Duration) (time.Duration, error) {
	rec := r.rec
	switch {
	case !w.signalled:
		w.signalled, w.began = true, now
		if rec.Stop.Cause == causeProcess {
			break // podman's --timeout kills
		}
		a.signal(r, rec.stopSignal(), false)
	case w.killed && now >= w.due:
		return 0, &fault.Error{Code: fault.Stuck, Op: "end the container of run", Subject: rec.Run.ID,
			Reason: "it survived SIGKILL" + survivors(rec.Run.Pid), Remedy: "Power-cycle the node"}
	case w.killed:
		return w.due - now, nil
	}
	if grace := rec.grace(a.cfg); now-w.began < grace {
		return grace - (now - w.began), nil
	}
	w.killed, w.due = true, now+a.cfg.StuckAfter
	a.signal(r, syscall.SIGKILL, true)
	return a.cfg.StuckAfter, nil
}

// signal sends a signal without the lock. One that cannot be sent is no reason to
// stop: the next step of the ladder follows.
func (a *Agent) signal(r *run, sig syscall.Signal, all bool) {
	c := r.rec.container(a.cfg)
	to := "the container's first process"
	if all {
		to = "all processes of the container"
	}
	r.events.add(api.Event{Type: "signal", Message: signalName(int(sig)) + " to " + to})
	a.mu.Unlock()
	defer a.mu.Lock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), min(a.cfg.CallTimeout, a.cfg.StuckAfter))
	defer cancel()
	if err := a.cfg.Runner.Signal(ctx, c, sig, all); err != nil {
		a.cfg.Log.WithFields(map[string]any{"run": c.Run, "signal": sig}).WithError(err).Warn("cannot signal the container")
	}
}

func (r *record) stopSignal() syscall.Signal {
	if r.StopSignal == 0 {
		return syscall.SIGTERM
	}
	return r.StopSignal
}

// grace returns the time between stop signal and SIGKILL.
func (r *record) grace(cfg Config) time.Duration {
	switch {
	case r.Stop.Cause == causeProcess:
		return 0
	case r.Stop.Grace > 0:
		return r.Stop.Grace
	case r.StopTimeout != nil:
		return *r.StopTimeout
	default:
		return cfg.Grace
	}
}
