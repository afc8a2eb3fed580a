package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/careen-project/careen/agent/api"
)

// attend runs one call of the Runner that can be cancelled, and cancels it when
// the run is stopped, passes a limit, or the agent lets go.
func attend[T any](a *Agent, r *run, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		value, err := call(ctx)
		answers <- answer{value, err}
	}()
	var none T
	timer := time.NewTimer(0)
	defer timer.Stop()
	var giveUp <-chan time.Time
	for {
		select {
		case got := <-answers:
			return got.value, a.outcomeOf(r, got.err)
		case <-giveUp:
			return none, a.outcomeOf(r, fmt.Errorf("it does not end: %w", context.Canceled))
		case <-a.ctx.Done():
			got := <-answers
			return got.value, a.outcomeOf(r, got.err)
		case <-r.wake:
		case <-timer.C:
		}
		wait, stopped := a.checkPreparing(r)
		if stopped && giveUp == nil {
			cancel()
			giveUp = time.After(a.cfg.StuckAfter)
		}
		timer.Reset(wait)
	}
}

// outcomeOf explains a call's error by what happened to the run meanwhile.
func (a *Agent) outcomeOf(r *run, err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if stopped := a.goOn(r); stopped != nil {
		return stopped
	}
	return err
}

// checkPreparing looks at the limits of a run that pulls or creates. It returns
// when to look again and whether the run is being stopped.
func (a *Agent) checkPreparing(r *run) (time.Duration, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Clock()
	wait := checkEvery
	if r.rec.Stop == nil {
		if s, due := a.passedLimit(r, now); s != nil {
			a.requestStop(r, s)
		} else {
			wait = min(wait, due)
		}
	}
	if r.rec.Stop == nil && r.state() == api.Pulling && a.cfg.PullStall > 0 {
		// The wait for a node that is not ready has a limit of its own.
		if r.pulled == 0 || r.pull != nil && r.pull.Status == "waiting" {
			r.pulled = now
		}
		if now-r.pulled >= a.cfg.PullStall {
			a.requestStop(r, &stop{Cause: causeStall, Limit: a.cfg.PullStall})
		} else {
			wait = min(wait, a.cfg.PullStall-(now-r.pulled))
		}
	}
	return wait, r.rec.Stop != nil && r.rec.Stop.Applied
}

// progress takes a report of the pull.
func (a *Agent) progress(r *run, p api.PullProgress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.state() != api.Pulling {
		return
	}
	now := a.cfg.Clock()
	// Unpacking gets no bytes, and is no stall.
	if r.pull == nil || r.pull.Done != p.Done || r.pull.Status != p.Status || p.Status == "unpacking" {
		r.pulled = now
	}
	told := 0
	if r.pull != nil {
		told = len(r.pull.Warnings)
	}
	for _, warning := range p.Warnings[min(told, len(p.Warnings)):] {
		r.events.add(api.Event{Type: "warning", Message: warning})
		_ = a.update(r, false, func(rec *record) { rec.warn(warning) })
		a.cfg.Log.WithField("run", r.id).Warn(warning)
	}
	if p.Message != "" && (r.pull == nil || r.pull.Message != p.Message) {
		a.cfg.Log.WithField("run", r.id).Info("pull: " + p.Message)
	}
	first := r.pull == nil || r.pull.Status != p.Status
	a.change(func() { r.pull = &p })
	if first || now-r.lastPull >= pullEvery {
		r.lastPull = now
		r.events.add(api.Event{Type: "pull", Pull: &p})
	}
}
