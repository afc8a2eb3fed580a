package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/logs"
)

// readEnd reads what the container left for the agent, before it is removed.
func (a *Agent) readEnd(rec *record) *endState {
	id := rec.Run.ID
	end := &endState{}
	result, err := readResult(a.cfg.runDir(id))
	if err != nil {
		end.Warnings = append(end.Warnings, fmt.Sprintf("the container's %s does not count: %v", resultName, err))
	}
	end.Result = result
	end.Tail = tail(a.logDir(id), a.cfg.TailLines)
	return end
}

// tail returns the last lines of output, each cut to a sensible length.
func tail(dir string, n int) []string {
	const most = 1000
	lines, err := logs.Tail(dir, n)
	if err != nil {
		return []string{"the output cannot be read: " + err.Error()}
	}
	var out []string
	open := map[string]bool{}
	for _, l := range lines {
		text := string(l.Text)
		if open[l.Stream] && len(out) > 0 {
			text = out[len(out)-1] + text
			out = out[:len(out)-1]
		}
		open[l.Stream] = l.Partial
		out = append(out, cut(text, most))
	}
	return out
}

// clean removes the container and notes what it left behind.
func (a *Agent) clean(r *run) {
	a.mu.Lock()
	c := r.rec.container(a.cfg)
	a.mu.Unlock()
	if c.ID == "" {
		return
	}
	_ = a.closeStdin(c)
	a.cfg.Failpoint("agent.before-delete")
	began := a.cfg.Clock()
	left, err := a.remove(c)
	a.cfg.Failpoint("agent.after-delete")
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		left.Left = append(left.Left, "the container could not be removed: "+oneLine(err.Error()))
	}
	removed := "the container is removed"
	if n := len(left.Left); n > 0 {
		removed = fmt.Sprintf("what it left that is not careen's: %d", n)
	}
	left.Left = bounded(left.Left)
	r.events.add(api.Event{Type: "cleanup", Message: removed, Took: inWords(a.cfg.Clock() - began)})
	_ = a.update(r, false, func(rec *record) {
		rec.Leftovers.Undone = append(rec.Leftovers.Undone, left.Undone...)
		rec.Leftovers.Left = append(rec.Leftovers.Left, left.Left...)
	})
}

// bounded cuts a list of what a container left, which may have mounted ten thousand
// file systems of long names, to what a record has room for.
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

// remove deletes a container within the time that a call may take, whatever is
// going on with the agent.
func (a *Agent) remove(c Container) (Leftovers, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), a.cfg.CallTimeout)
	defer cancel()
	return a.cfg.Runner.Delete(ctx, c)
}

// finish ends a run and gives its slot to the next.
func (a *Agent) finish(r *run, v verdict) {
	a.keepLog(r)
	a.cfg.Failpoint("agent.log-kept")
	a.mu.Lock()
	a.conclude(r, v)
	a.schedule()
	a.mu.Unlock()
	a.tidy(r)
	a.retain()
}

// finishStuck ends a run whose container did not. The slot stays taken until the
// container goes after all.
func (a *Agent) finishStuck(r *run, v verdict) {
	a.mu.Lock()
	r.stuck = true
	end := &endState{Tail: tail(a.logDir(r.id), a.cfg.TailLines)}
	v.outcome.LogTail = end.Tail
	_ = a.update(r, false, func(rec *record) { rec.End = end })
	a.conclude(r, v)
	a.mu.Unlock()
	select {
	case <-r.ended:
	case <-a.ctx.Done():
		return
	}
	a.cfg.Log.WithField("run", r.id).Warn("the container that survived SIGKILL has ended after all")
	a.clean(r)
	a.keepLog(r)
	a.mu.Lock()
	r.stuck = false
	delete(a.active, r)
	a.schedule()
	a.mu.Unlock()
	a.tidy(r)
}

// conclude moves r to its final state. The lock is held.
func (a *Agent) conclude(r *run, v verdict) {
	a.cfg.Failpoint("agent.before-final")
	err := a.transition(r, v.state, func(rec *record) {
		ended := time.Now().UTC()
		if rec.Exit != nil && !rec.Exit.ExitedAt.IsZero() {
			ended = rec.Exit.ExitedAt.UTC()
		}
		rec.Run.EndedAt, rec.Run.Pid = &ended, 0
		if rec.Run.BootID == a.cfg.BootID {
			rec.durations(&v.outcome)
		}
		rec.Run.Outcome = &v.outcome
		rec.RebootClaim = v.outcome.RebootRequested
		rec.Unpushed = a.cfg.Push != nil
		if rec.Stop != nil && !rec.Stop.Applied {
			rec.Run.StopReason = "" // it ended by itself before it came to that
		}
		// The outcome has it now.
		rec.End, rec.Previous = nil, nil
	})
	a.cfg.Failpoint("agent.after-final")
	if err == nil || r.state().Final() {
		return
	}
	// A defect in careen. Nobody may wait for ever because of it, nor take the run for
	// what it is not.
	a.cfg.Log.WithField("run", r.id).WithError(err).Error("cannot end the run as it ended; it is lost")
	if v.state != api.Lost {
		a.conclude(r, verdict{api.Lost, api.Outcome{Code: string(fault.Internal), Message: oneLine(err.Error()),
			Remedy: "Look at the agent's log, and at the node before you run the step again", Leftovers: v.outcome.Leftovers}})
	}
}

// ended does what belongs to the end of a run once it is on record: the audit
// record, figures, the wish for a reboot, and letting those go who wait. The lock
// is held.
func (a *Agent) ended(r *run) {
	o := r.rec.Run.Outcome
	if !r.stuck {
		delete(a.active, r)
	}
	a.dim(r)
	a.writeAudit(r)
	a.metrics.ended(r.rec)
	if r.rec.RebootClaim {
		a.wishReboot(r)
	}
	entry := a.cfg.Log.WithFields(map[string]any{"run": r.id, "state": r.state(), "code": o.Code,
		"duration": o.Duration})
	if r.state() == api.Succeeded {
		entry.Info("run ended")
	} else {
		entry.Warn("run ended: " + o.Message)
	}
	a.pushLater(r)
	r.req, r.parts = nil, nil
	a.change(func() { r.pull, r.critical = nil, nil })
	close(r.done)
}
