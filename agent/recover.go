package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Recover finds the runs of the agents before this one: it adopts the containers
// that run, learns the end of those that ended, calls lost what nobody can know,
// and goes on with what had not been started. No run is accepted before it has
// returned. An error means that the Runner could not be asked.
func (a *Agent) Recover(ctx context.Context) error {
	existing, err := a.cfg.Runner.Existing(ctx)
	if err != nil {
		return fmt.Errorf("cannot look for containers of an earlier agent: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.recovered {
		return nil
	}
	if err := a.load(); err != nil {
		return err
	}
	found := a.claim(existing)
	for _, r := range a.order {
		if !r.state().Final() {
			a.resume(r, found[r.rec.ContainerID])
		}
	}
	a.findBeacon()
	a.sweep()
	a.recovered = true
	if a.cfg.Push != nil {
		a.work.Go(a.deliver)
	}
	a.schedule()
	return nil
}

// load makes the runs of the journal. The lock is held.
func (a *Agent) load() error {
	err := a.records.load(func(rec *record) {
		r := a.newRun(rec)
		a.remember(r)
		a.know(r)
	})
	if err != nil {
		return err
	}
	// The journal's order is that of acceptance; the wall clock's need not be.
	for _, r := range a.order {
		if !r.state().Final() {
			continue
		}
		close(r.done)
		a.tidyLater(r)
		if r.rec.RebootClaim && r.rec.Run.BootID == a.cfg.BootID {
			a.wishReboot(r)
		}
		if !r.rec.Audited {
			a.writeAudit(r)
		}
		a.pushLater(r)
	}
	return nil
}

// tidyLater finishes for an agent that crashed what it does after a run's end.
func (a *Agent) tidyLater(r *run) {
	if r.rec.Kept || r.rec.Dropped {
		r.events.end()
		close(r.tidied)
		return
	}
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		a.keepLog(r)
		a.tidy(r)
	}()
}

// claim sorts the containers that exist: those that a run still goes on with are
// returned by their id; the others are removed, unless they run and nobody knows
// why. The lock is held.
func (a *Agent) claim(existing []Existing) map[string]*Existing {
	found := map[string]*Existing{}
	for _, e := range existing {
		r := a.runs[e.Run]
		switch {
		case r != nil && !r.state().Final() && r.rec.ContainerID == e.ID && r.rec.Starting:
			found[e.ID] = &e
		case r == nil && e.State == ContainerRunning:
			a.adoptUnknown(e)
			found[e.ID] = &e
		case r != nil && !r.state().Final() && !r.rec.Starting && r.rec.Part == 0 && e.WasStarted():
			a.adoptUnrecorded(r, e)
			found[e.ID] = &e
		default:
			a.removeLeft(e.Container)
		}
	}
	return found
}

// removeLeft removes what is left of a container. One that does not go, such as
// one that survived SIGKILL under the agent before, keeps new runs from starting
// for as long as it is there. The lock is held.
func (a *Agent) removeLeft(c Container) {
	// Nobody is answered before this is over.
	ctx, cancel := context.WithTimeout(a.ctx, min(removeFirst, a.cfg.CallTimeout))
	defer cancel()
	_, err := a.cfg.Runner.Delete(ctx, c)
	if err == nil {
		return
	}
	a.cfg.Log.WithField("run", c.Run).WithError(err).Error("cannot remove what is left of a container; trying on")
	a.unremoved[c.ID] = c.Run
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		for err != nil {
			select {
			case <-time.After(removeEvery):
			case <-a.ctx.Done():
				return
			}
			_, err = a.remove(c)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.unremoved, c.ID)
		a.schedule()
	}()
}

// removeFirst is how long an agent that starts waits for a container to go, and
// removeEvery how often one that does not go is tried to be removed after that.
const (
	removeFirst = 15 * time.Second
	removeEvery = 10 * time.Second
)

// adoptUnknown makes a record for a container that runs and has none: the state
// directory was lost, and what it does may not be interrupted for that.
func (a *Agent) adoptUnknown(e Existing) {
	now := a.cfg.Clock()
	rec := &record{
		Run: api.Run{ID: e.Run, State: api.Creating, Abortable: true, CreatedAt: time.Now().UTC(), BootID: a.cfg.BootID,
			Image: "unknown"},
		ContainerID: e.ID, Starting: true, Route: "found", Accepted: now, Began: now, PhaseBegan: now,
	}
	rec.audit().Image, rec.audit().Started = "unknown", true
	rec.warn("the container was found running without a record of its run")
	r := a.newRun(rec)
	a.remember(r)
	a.know(r)
}

// adoptUnrecorded corrects the record of a run that says that nothing was started,
// although its container was: the disk has lost what was written to it. Believing
// the record would end the container and do its work once more. The lock is held.
func (a *Agent) adoptUnrecorded(r *run, e Existing) {
	a.cfg.Log.WithField("run", r.id).Error("the record of this run's start is gone; its container is adopted")
	_ = a.update(r, false, func(rec *record) {
		if rec.Began == 0 {
			rec.Began = a.cfg.Clock()
		}
		rec.ContainerID, rec.Starting = e.ID, true
		rec.audit().Image, rec.audit().Started = rec.Run.Image, true
		rec.warn("the container was found started, which is not on record: the state directory has lost records")
	})
	for r.state() != api.Creating {
		next := api.Pulling
		if r.state() == api.Pulling {
			next = api.Creating
		}
		if err := a.transition(r, next, nil); err != nil {
			return
		}
	}
}

// resume goes on with a run that had not ended. The lock is held.
func (a *Agent) resume(r *run, found *Existing) {
	if r.rec.ContainerID != "" && !r.rec.Starting {
		// It may be half made, so that nobody lists it.
		a.removeLeft(r.rec.container(a.cfg))
	}
	switch {
	case r.rec.Run.BootID != a.cfg.BootID:
		a.lostInReboot(r)
	case r.rec.Starting:
		a.adopt(r, found)
	case r.rec.Stop != nil:
		a.endUnstarted(r)
	default:
		a.requeue(r)
	}
}

// endUnstarted ends a run that was to be ended and whose container never started. The
// agent before may have come to put the wish on record, and no further.
func (a *Agent) endUnstarted(r *run) {
	apply := func(rec *record) { rec.Stop.Applied = true }
	if s := r.state(); s == api.Pulling || s == api.Creating {
		_ = a.transition(r, api.Stopping, apply)
	} else {
		_ = a.update(r, false, apply)
	}
	a.concludeNow(r, judge(r.rec, nil))
}

// lostInReboot ends a run that was under way when the node went down.
func (a *Agent) lostInReboot(r *run) {
	rec := r.rec
	if rec.Exit != nil {
		// It ended before the reboot and its end is on record: nothing is lost.
		a.concludeNow(r, judge(rec, nil))
		return
	}
	a.concludeNow(r, judge(rec, a.interrupted(rec)))
}

// concludeNow ends a run without a driver, and puts its files in order.
func (a *Agent) concludeNow(r *run, v verdict) {
	if v.outcome.LogTail == nil {
		v.outcome.LogTail = tail(a.logDir(r.id), a.cfg.TailLines)
	}
	a.conclude(r, v)
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		a.keepLog(r)
		a.tidy(r)
	}()
}

// adopt goes on with a container that may have been started.
func (a *Agent) adopt(r *run, found *Existing) {
	r.found, r.gone = found, found == nil || found.State == ContainerStopped && found.Exit == nil
	if r.rec.Run.Parts > 1 {
		// The parts after this one need their options again.
		if err := a.reresolve(r); err != nil {
			a.cfg.Log.WithField("run", r.id).WithError(err).Warn("cannot go on with the sequence")
		}
	}
	if r.state() == api.Creating && r.rec.Exit == nil {
		pid := 0
		if found != nil {
			pid = found.Pid
		}
		if err := a.transition(r, api.Running, func(rec *record) { rec.Run.Pid = pid }); err != nil {
			_ = a.forceRunning(r, pid)
		}
	}
	a.cfg.Log.WithFields(map[string]any{"run": r.id, "found": found != nil}).Info("run adopted")
	a.begin(r)
}

// reresolve reads the request again and asks the policy again.
func (a *Agent) reresolve(r *run) error {
	req, err := a.restoreRequest(r.id)
	if err != nil {
		return &fault.Error{Code: fault.Lost, Op: "go on with run", Subject: r.id, Err: err,
			Reason: "the agent was restarted before it began, and its request is gone",
			Remedy: "Ask for it again under another id; its container was never started",
			Attrs:  map[string]any{"started": false}}
	}
	resolved, err := a.cfg.Resolver.Resolve(req, r.rec.Peer.UID == 0)
	if err != nil {
		return err
	}
	limits, err := checkRequest(req)
	if err != nil {
		return err
	}
	limits.apply(resolved, req)
	r.req, r.parts = req, resolved.Parts
	return nil
}

// requeue has a run whose container was never started wait again, first in line
// as it was.
func (a *Agent) requeue(r *run) {
	err := a.reresolve(r)
	if err == nil && r.rec.Part >= len(r.parts) {
		err = &fault.Error{Code: fault.Conflict, Op: "go on with run", Subject: r.id,
			Reason: "its steps file has changed while the agent was away"}
	}
	if err == nil && r.state() != api.Queued {
		err = a.transition(r, api.Queued, func(rec *record) { rec.ContainerID = "" })
	}
	if err != nil {
		a.concludeNow(r, judge(r.rec, err))
		return
	}
	a.change(func() { a.queue = append(a.queue, r) })
}

// sweep removes what a killed agent was about to remove: requests, which hold
// secrets, and directories of runs that have ended, or never were.
func (a *Agent) sweep() {
	for _, path := range list(filepath.Join(a.cfg.RunDir, "requests")) {
		r := a.runs[strings.TrimSuffix(filepath.Base(path), ".json")]
		if r == nil || r.state().Final() {
			_ = os.Remove(path)
		}
	}
	for _, path := range list(filepath.Join(a.cfg.RunDir, "events")) {
		r := a.runs[strings.TrimSuffix(filepath.Base(path), ".jsonl")]
		if r == nil || r.rec.Kept || r.rec.Dropped {
			_ = os.Remove(path)
		}
	}
	for _, path := range list(filepath.Join(a.cfg.RunDir, "runs")) {
		r := a.runs[filepath.Base(path)]
		switch {
		case r == nil:
			if err := removeRunDir(path); err != nil {
				a.cfg.Log.WithField("dir", path).WithError(err).Warn("cannot remove a run's directory")
			}
		case r.rec.Kept || r.rec.Dropped:
			a.dropRunDir(r)
		}
	}
}

// list returns the paths of what is in dir.
func list(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	paths := make([]string, len(entries))
	for i, e := range entries {
		paths[i] = filepath.Join(dir, e.Name())
	}
	return paths
}

// Delete forgets a run that has ended, with all it wrote. Deleting the run that
// asked for a reboot lets new runs start without one.
func (a *Agent) Delete(_ context.Context, id string) error {
	a.mu.Lock()
	r, err := a.find(id)
	if err == nil && r.state().Final() && !r.stuck {
		a.mu.Unlock()
		<-r.tidied // else its files would come back
		a.mu.Lock()
		r, err = a.find(id)
	}
	if err == nil && (!r.state().Final() || r.stuck) {
		err = &fault.Error{Code: fault.Conflict, Op: "delete run", Subject: id,
			Reason: fmt.Sprintf("it is %s", r.state()), Remedy: "Abort it first, or wait for its end",
			Attrs: map[string]any{"state": string(r.state())}}
	}
	if err != nil {
		a.mu.Unlock()
		return err
	}
	if a.rebootBy == id {
		a.rebootBy = ""
	}
	a.forget(r)
	a.schedule()
	a.mu.Unlock()
	return nil
}

// signalName returns a signal's name, such as SIGSEGV.
func signalName(n int) string {
	if name := unix.SignalName(syscall.Signal(n)); name != "" {
		return name
	}
	return "unknown"
}
