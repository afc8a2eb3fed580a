package agent

import (
	"slices"
	"time"

	"github.com/careen-project/careen/agent/api"
)

// run is a run in memory. The agent's lock guards everything in it but events; see
// guards rec, pull and critical for who only looks.
type run struct {
	id  string // never changes; no lock is needed
	rec *record
	// req and parts are there while the run may still have something to start.
	req   *api.RunRequest
	parts []Part

	events *ring
	pull   *api.PullProgress
	// pulled is when the pull last got something, lastPull when an event said so.
	pulled, lastPull time.Duration
	critical         *criticalSection
	// wake has await look again; it never blocks the one who wakes.
	wake chan struct{}
	// claimed says that the container's end has been taken note of: too late to abort.
	claimed bool
	// found is the container that was there when the agent came back, gone that there
	// was none: then the Runner is asked about it once only.
	found *Existing
	gone  bool
	// ended brings the end of a container that is stuck, should it come.
	ended <-chan waited
	// stuck says that the container survived SIGKILL and still holds the slot.
	stuck bool
	// readers are the followers of the log; it is not moved under them.
	readers int
	// done is closed in a final state, tidied once its files are in order too.
	done, tidied chan struct{}
}

func (a *Agent) newRun(rec *record) *run {
	r := &run{id: rec.Run.ID, rec: rec, events: newRing(rec.Run.ID, rec.Seq), wake: make(chan struct{}, 1),
		done: make(chan struct{}), tidied: make(chan struct{})}
	r.events.diary = &diary{path: a.cfg.diaryPath(r.id)}
	return r
}

func (r *run) state() api.State { return r.rec.Run.State }

// nudge wakes await.
func (r *run) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// view returns the run as the API shows it. The lock is held, or see.
func (a *Agent) view(r *run) api.Run {
	v := r.rec.Run
	v.Warnings = slices.Clone(v.Warnings)
	switch v.State {
	case api.Queued:
		v.QueuePosition = slices.Index(a.queue, r) + 1
	case api.Pulling, api.Creating, api.Running, api.Stopping:
		v.Pull = r.pull
		until := a.wholePart(r.rec)
		if r.critical != nil {
			until = max(until, r.critical.until)
		}
		if until > 0 {
			at := time.Now().Add(until - a.cfg.Clock()).UTC()
			v.CriticalUntil = &at
		}
	}
	return v
}
