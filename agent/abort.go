package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Abort asks for a run's end and returns it as it is then; [Agent.Wait] tells
// when it has ended. A second request may only shorten the grace.
func (a *Agent) Abort(_ context.Context, id string, req api.AbortRequest) (api.Run, error) {
	grace, err := parseLimit("grace", req.Grace)
	if err != nil {
		return api.Run{}, err
	}
	if len(req.Reason) > 1024 {
		return api.Run{}, fault.BadField("reason", "it is longer than 1024 bytes")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.find(id)
	if err != nil {
		return api.Run{}, err
	}
	if err := a.abortable(r, req.Force); err != nil {
		return api.Run{}, err
	}
	a.metrics.aborts++
	s := &stop{Cause: causeAbort, Reason: req.Reason, Grace: grace}
	if req.ClientGone {
		s.Cause = causeClient
	}
	switch {
	case r.state() == api.Queued:
		a.endQueued(r, s)
		a.schedule()
	case r.rec.Stop != nil:
		if grace > 0 {
			_ = a.update(r, false, func(rec *record) { rec.Stop.Grace = grace })
		}
		r.nudge()
	default:
		a.requestStop(r, s)
	}
	return a.view(r), nil
}

// abortable says whether r can be aborted at all. The lock is held.
func (a *Agent) abortable(r *run, force bool) error {
	refuse := func(reason, remedy string) error {
		return &fault.Error{Code: fault.Conflict, Op: "abort run", Subject: r.id, Reason: reason, Remedy: remedy,
			Attrs: map[string]any{"state": string(r.state()), "abortable": r.rec.Run.Abortable}}
	}
	switch {
	case r.state().Final():
		return refuse(fmt.Sprintf("it has ended: %s", r.state()), "")
	case r.claimed:
		return refuse("its container has ended", "Wait a moment for its outcome")
	case r.state() != api.Queued && !r.rec.Run.Abortable && !force:
		return refuse("its step is not abortable", "Wait for its end, or force it with \"careen abort --force\"")
	default:
		return nil
	}
}

// requestStop has an active run ended: at once while it is prepared, and by the
// ladder, unless a critical section holds it off, while it runs. The lock is held.
func (a *Agent) requestStop(r *run, s *stop) {
	if r.rec.Stop != nil || r.claimed || r.state().Final() {
		return
	}
	now := a.cfg.Clock()
	s.At = now
	_ = a.update(r, false, func(rec *record) {
		rec.Stop = s
		rec.Run.StopReason = s.words()
	})
	if r.state() == api.Running {
		if c := a.readCritical(a.cfg.runDir(r.id), r.critical); c != nil || r.critical != nil {
			a.noteCritical(r, c, now)
		}
		if a.held(r, now) {
			_ = a.update(r, false, func(rec *record) {
				rec.Run.StopReason = s.words() + "; waiting for the end of a critical section"
			})
			r.events.add(api.Event{Type: "critical", Message: r.rec.Run.StopReason})
		}
	}
	a.applyStop(r, now)
	r.nudge()
}

// words says why a run is ended.
func (s *stop) words() string {
	switch s.Cause {
	case causeAbort:
		if s.Reason != "" {
			return "aborted: " + oneLine(s.Reason)
		}
		return "aborted on request"
	case causeClient:
		if s.Reason != "" {
			return "whoever waited for it is gone: " + oneLine(s.Reason)
		}
		return "whoever waited for it is gone"
	case causeDrain, causeDown:
		return "aborted: " + s.Reason
	case causeTimeout:
		return fmt.Sprintf("the step's time limit of %v has passed", s.Limit.Round(time.Millisecond))
	case causeProcess:
		return fmt.Sprintf("the container's --timeout of %v has passed", s.Limit.Round(time.Millisecond))
	case causeSilence:
		return fmt.Sprintf("the container wrote nothing for %v", s.Limit.Round(time.Millisecond))
	default:
		return fmt.Sprintf("the pull got no bytes for %v", s.Limit.Round(time.Millisecond))
	}
}
