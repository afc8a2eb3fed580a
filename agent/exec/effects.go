package exec

import (
	"time"

	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/store"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/logs"
)

// effects carries out what a step asks for. It returns the answers of effects that are
// carried out at once; the others send theirs to the inbox.
func (o *owner) effects(list []machine.Effect) (answers []machine.Event) {
	for _, e := range list {
		if answer := o.effect(e); answer != nil {
			answers = append(answers, answer)
		}
	}
	return answers
}

func (o *owner) effect(e machine.Effect) machine.Event {
	switch e := e.(type) {
	case machine.Pull:
		o.pull(e)
	case machine.Create:
		o.create(e)
	case machine.Cancel:
		o.life(e.ID).cancel()
	case machine.Start:
		o.call(func() machine.Event { return o.start(e) })
	case machine.Wait:
		o.call(func() machine.Event { return o.wait(e) })
	case machine.Observe:
		return o.observe(e)
	case machine.Signal:
		o.call(func() machine.Event { o.signal(e); return nil })
	case machine.ReadEnd:
		o.call(func() machine.Event { return o.readEnd(e) })
	case machine.Remove:
		o.call(func() machine.Event { return o.remove(e) })
	case machine.RemoveLeft:
		o.call(func() machine.Event { return o.removeLeft(e) })
	case machine.ClearMark:
		return o.clearMark(e.ID)
	default:
		return o.afterEnd(e)
	}
	return nil
}

// afterEnd carries out the effects that follow a run's end.
func (o *owner) afterEnd(e machine.Effect) machine.Event {
	switch e := e.(type) {
	case machine.KeepLog:
		o.call(func() machine.Event { return o.keepLog(e.ID) })
	case machine.Conclude:
		o.conclude(e.ID)
	case machine.Audit:
		return o.audit(e)
	case machine.DropRequest:
		o.dropRequest(e.ID)
	case machine.Tidy:
		o.call(func() machine.Event { return o.tidy(e.ID) })
	case machine.DropFiles:
		o.dropFiles(e.ID)
	case machine.RemoveOutput:
		if o.life(e.ID).readers.Load() > 0 {
			return nil // the next retention does it
		}
		if err := o.store.Files(e.ID).DropOutput(); err != nil {
			o.cfg.Log.WithField("run", e.ID).WithError(err).Warn("cannot remove the run's output; trying again with the next run")
			return nil
		}
		return machine.OutputRemoved{ID: e.ID}
	case machine.Forget:
		return o.forget(e)
	case machine.RequestReboot:
		select {
		case o.reboots <- Reboot{Run: e.ID, Reason: e.Reason}:
		default:
		}
	case machine.GivenUp:
		o.count(func(f *Figures) { f.Pushes = add(f.Pushes, "failed") })
	case machine.Sweep:
		o.sweep()
	case machine.Recovered:
		o.justRecovered = true
	}
	return nil
}

// call runs fn in a goroutine and takes its answer into the inbox. nil is no answer.
func (o *owner) call(fn func() machine.Event) {
	*o.calls++
	go func() { o.inbox.put(item{event: fn(), answer: true}) }()
}

// observe reads what a running container shows of itself: files of this boot's memory.
func (o *owner) observe(e machine.Observe) machine.Event {
	f := o.store.Files(e.ID)
	seen := machine.Observed{ID: e.ID, Claim: o.readClaim(f.Run, e.Claim)}
	if end, err := logs.End(f.Log()); err == nil {
		seen.Output = end.String()
	}
	if e.Survivors > 0 {
		seen.Survivors = survivors(e.Survivors)
	}
	return seen
}

// keepLog brings the output to where it outlives the boot.
func (o *owner) keepLog(id string) machine.Event {
	if _, err := o.store.Files(id).KeepLog(); err != nil {
		o.cfg.Log.WithField("run", id).WithError(err).Warn("cannot keep the output in the state directory")
	}
	o.cfg.Failpoint("agent.log-kept")
	return machine.LogKept{ID: id}
}

// conclude lets those go who wait for a run's end.
func (o *owner) conclude(id string) {
	r := o.state.Load().Find(id)
	o.count(func(f *Figures) { f.ended(r) })
	l := o.life(id)
	select {
	case <-l.done: // an earlier agent concluded it
	default:
		close(l.done)
	}
}

// audit writes the audit record of a run. A line that cannot be written is written later.
func (o *owner) audit(e machine.Audit) machine.Event {
	rec := o.state.Load().Find(e.ID).Record
	if e.Check && o.store.Audit.Has(e.ID, rec.Run.CreatedAt) {
		return machine.Audited{ID: e.ID}
	}
	o.cfg.Failpoint("agent.before-audit")
	if err := o.store.Audit.Append(store.AuditOf(rec)); err != nil {
		o.cfg.Log.WithField("run", e.ID).WithError(err).Error("cannot write the audit record; trying again")
		return nil
	}
	o.cfg.Failpoint("agent.after-audit")
	return machine.Audited{ID: e.ID}
}

// tidy keeps the events of a run that has ended, and removes its request.
func (o *owner) tidy(id string) machine.Event {
	f := o.store.Files(id)
	log := o.cfg.Log.WithField("run", id)
	size, err := f.KeepLog() // an agent that was killed may not have
	if err != nil {
		log.WithError(err).Warn("the output stays where it does not survive a reboot")
	}
	events := o.life(id).events
	if err := f.Keep(events.End()); err != nil {
		log.WithError(err).Warn("cannot keep the events in the state directory")
	} else {
		events.Unload(f)
	}
	o.cfg.Failpoint("agent.events-kept")
	o.dropRequest(id)
	o.cfg.Failpoint("agent.request-removed")
	return machine.Tidied{ID: id, LogBytes: size}
}

// dropFiles removes what is not needed any more when it is kept elsewhere.
func (o *owner) dropFiles(id string) {
	l := o.life(id)
	l.events.Remove()
	l.cancel = nil // holds the last call
	if l.readers.Load() == 0 {
		o.dropRun(id)
	}
	select {
	case <-l.tidied:
	default:
		close(l.tidied)
	}
}

func (x *Executor) dropRun(id string) {
	if err := x.store.Files(id).DropRun(); err != nil {
		x.cfg.Log.WithField("run", id).WithError(err).Warn("cannot remove the run directory")
	}
}

// dropRequest removes a request. One that stays is removed when the agent starts again.
func (x *Executor) dropRequest(id string) {
	if err := x.store.Files(id).DropRequest(); err != nil {
		x.cfg.Log.WithField("run", id).WithError(err).Warn("cannot remove the run's request, which may hold secrets")
	}
}

func (o *owner) forget(e machine.Forget) machine.Event {
	r := o.state.Load().Find(e.ID)
	if r == nil {
		return nil
	}
	if err := o.store.Forget(r.Record, e.Tombstone); err != nil {
		o.cfg.Log.WithField("run", e.ID).WithError(err).Warn("cannot forget the run: its id would be free")
		return nil
	}
	o.lives.Delete(e.ID)
	return machine.Forgotten{ID: e.ID}
}

// sweep removes what an agent that was killed was about to remove.
func (o *owner) sweep() {
	s := o.state.Load()
	o.store.Sweep(func(id string) (request, events, dir bool) {
		r := s.Find(id)
		if r == nil {
			return false, false, false
		}
		return !r.Run.State.Final(), !r.Tidied, true
	})
	for _, r := range s.Runs {
		if r.Tidied {
			o.dropRun(r.Run.ID)
		}
	}
}

// container names the container of an effect, with its directory.
func (x *Executor) container(c container.Container) container.Container {
	c.Dir = string(x.store.Files(c.Run).Run)
	return c
}

// removeEvery is how often a container of an earlier agent that does not go is removed
// again, removeFirst how long the agent waits for it before it answers.
const (
	removeFirst = 15 * time.Second
	removeEvery = 10 * time.Second
)
