package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// moves are all that a run's state may do; see the diagram in doc.go. Whatever
// is not final can also be lost, when the node was rebooted.
var moves = map[api.State][]api.State{
	api.Queued:   {api.Pulling, api.Aborted, api.Failed, api.Lost},
	api.Pulling:  {api.Creating, api.Stopping, api.Failed, api.Lost, api.Queued},
	api.Creating: {api.Running, api.Stopping, api.Failed, api.Lost, api.Queued},
	api.Running:  {api.Pulling, api.Stopping, api.Succeeded, api.Failed, api.Lost},
	api.Stopping: {api.Aborted, api.TimedOut, api.Failed, api.Lost},
}

// transition moves r to a state, after change has been applied to its record,
// and only once that is in the journal. The lock is held. An error of the
// journal keeps a run from going on to states in which more happens on the
// node; a run that ends is told to have ended all the same, and written later.
func (a *Agent) transition(r *run, to api.State, change func(*record)) error {
	from := r.rec.Run.State
	if !slices.Contains(moves[from], to) {
		err := &fault.Error{Code: fault.Internal, Op: "move run", Subject: r.id,
			Reason: fmt.Sprintf("it cannot go from %s to %s", from, to)}
		a.cfg.Log.WithField("run", r.id).Error(err)
		return err
	}
	now := a.cfg.Clock()
	took := now - r.rec.PhaseBegan
	next := r.rec.clone()
	next.leavePhase(from, now)
	next.Run.State = to
	if change != nil {
		change(next)
	}
	next.Seq++
	if err := a.save(r, next, mustBeRecorded(to)); err != nil {
		return err
	}
	r.events.add(api.Event{Type: "state", State: to, From: from, Took: inWords(took), Message: r.rec.Run.StopReason,
		Outcome: r.rec.Run.Outcome})
	a.cfg.Log.WithFields(map[string]any{"run": r.id, "from": from, "state": to}).Info("run moved")
	if to.Final() {
		a.ended(r)
	}
	return nil
}

// inWords is a duration as events have it; none where a reboot came between.
func inWords(d time.Duration) string {
	if d < 0 {
		return ""
	}
	return d.Round(time.Microsecond).String()
}

// mustBeRecorded reports whether a run may not enter a state that is not on
// record: those in which something new happens on the node.
func mustBeRecorded(to api.State) bool {
	return to == api.Queued || to == api.Pulling || to == api.Creating || to == api.Running
}

// update changes r's record without a move. The lock is held.
func (a *Agent) update(r *run, must bool, change func(*record)) error {
	next := r.rec.clone()
	change(next)
	return a.save(r, next, must)
}

// save puts next on record and makes it r's. With must, an error leaves r as it is.
func (a *Agent) save(r *run, next *record, must bool) error {
	a.cfg.Failpoint("agent.before-record")
	err := a.records.put(next, must)
	a.cfg.Failpoint("agent.after-record")
	if err != nil {
		a.cfg.Log.WithField("run", next.Run.ID).WithError(err).Error("cannot record the run")
		if must {
			return err
		}
	}
	a.change(func() { r.rec = next })
	return nil
}
