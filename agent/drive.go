package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// errDetached says that the agent let go of a run without ending it.
var errDetached = errors.New("the agent lets go of the run")

// schedule gives free slots to the runs that wait. The lock is held.
func (a *Agent) schedule() {
	if !a.recovered || a.draining || len(a.unremoved) > 0 {
		return
	}
	for len(a.queue) > 0 && len(a.active) < a.cfg.Slots {
		r := a.queue[0]
		if a.rebootBy != "" {
			a.failQueued(r, a.rebootPending("start run"))
			continue
		}
		now := a.cfg.Clock()
		err := a.transition(r, api.Pulling, func(rec *record) {
			started := time.Now().UTC()
			if rec.Began == 0 { // not when it is taken up again
				rec.Began, rec.Run.StartedAt = now, &started
			}
			rec.beginPart(r.parts[rec.Part], now)
		})
		if err != nil {
			// What cannot be put on record does not start.
			a.failQueued(r, err)
			continue
		}
		a.unqueue(r)
		a.begin(r)
	}
}

// begin has r driven by a goroutine of its own. The lock is held.
func (a *Agent) begin(r *run) {
	a.active[r] = true
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		a.drive(r)
	}()
}

// beginPart sets the limits and the identity of the next container.
func (rec *record) beginPart(p Part, now time.Duration) {
	rec.PartBegan = now
	rec.PartTimeout, rec.PartSilence = p.Timeout, p.SilenceTimeout
	rec.RebootExitCodes, rec.CriticalPart = p.RebootExitCodes, p.Critical
	rec.ContainerID, rec.Starting, rec.Exit, rec.End = "", false, nil, nil
	rec.Run.Image, rec.Run.Name, rec.Run.Trusted = p.Image, p.Name, p.Trusted
	rec.Run.Digest, rec.Run.Pid = "", 0
	if rec.Run.Parts > 0 {
		rec.Run.Part = rec.Part + 1
	}
	*rec.audit() = api.AuditContainer{Image: p.Image, Decision: p.Entry, Trusted: p.Trusted,
		RunOptions: p.RunOptions, PullOptions: p.PullOptions}
}

// failQueued ends a run that never began. The lock is held.
func (a *Agent) failQueued(r *run, err error) {
	a.unqueue(r)
	a.concludeNow(r, judge(r.rec, err))
}

// endQueued ends a run that waits, as somebody asked. The lock is held.
func (a *Agent) endQueued(r *run, s *stop) {
	s.Applied = true
	_ = a.update(r, false, func(rec *record) { rec.Stop = s })
	a.failQueued(r, nil)
}

// drive takes a run that holds a slot to its end: one container after another.
func (a *Agent) drive(r *run) {
	for {
		err := a.drivePart(r)
		if errors.Is(err, errDetached) {
			return
		}
		v := a.judgeRun(r, err)
		if v.state == api.Succeeded {
			more, err := a.nextPart(r, v)
			if more {
				continue
			}
			if errors.Is(err, errDetached) {
				return
			}
			if err != nil {
				v = a.judgeRun(r, err)
			}
		}
		if fault.CodeOf(err) == fault.Stuck {
			a.finishStuck(r, v)
			return
		}
		a.finish(r, v)
		return
	}
}

// judgeRun makes the verdict on what is known now.
func (a *Agent) judgeRun(r *run, err error) verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	return judge(r.rec, err)
}

// nextPart goes on to the next container of a sequence, if there is one. v is the
// verdict on the one before it.
func (a *Agent) nextPart(r *run, v verdict) (more bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := r.rec.Part + 1
	if next >= max(1, r.rec.Run.Parts) {
		return false, nil
	}
	if next >= len(r.parts) {
		return false, &fault.Error{Code: fault.Lost, Op: "go on with run", Subject: r.id,
			Reason: fmt.Sprintf("the agent was restarted, and the request for part %d is gone", next+1),
			Remedy: "Run the remaining parts again"}
	}
	if a.ctx.Err() != nil {
		return false, errDetached
	}
	reason, _ := rebootWish(r.rec)
	r.claimed, r.pulled, r.found, r.gone = false, 0, nil, false
	a.change(func() { r.critical, r.pull = nil, nil })
	err = a.transition(r, api.Pulling, func(rec *record) {
		if reason != "" {
			rec.Reboot = reason
		}
		rec.partOver(v)
		rec.Part++
		rec.beginPart(r.parts[rec.Part], a.cfg.Clock())
	})
	return err == nil, err
}

// drivePart takes one container from wherever it is to its removal. The error is
// why it did not end by itself, or errDetached.
func (a *Agent) drivePart(r *run) error {
	a.mu.Lock()
	rec := r.rec
	a.mu.Unlock()
	var err error
	switch {
	case !rec.Starting:
		if err = a.prepare(r); err == nil {
			err = a.start(r)
		}
	case r.found != nil && r.found.State == ContainerCreated && rec.Exit == nil:
		// The start is on record and did not happen, or is happening: a container
		// starts once at most, so asking again is safe.
		if err = a.startRecorded(r, rec.container(a.cfg)); err != nil {
			a.cfg.Log.WithField("run", rec.Run.ID).WithError(err).Warn("the container was started before")
			err = nil
		}
	}
	if err == nil && rec.Exit == nil {
		err = a.await(r)
	}
	if errors.Is(err, errDetached) || fault.CodeOf(err) == fault.Stuck {
		return err
	}
	a.clean(r)
	return err
}

// prepare pulls the image and creates the container.
func (a *Agent) prepare(r *run) error {
	a.mu.Lock()
	part, dir := r.parts[r.rec.Part], a.cfg.runDir(r.id)
	a.mu.Unlock()
	if e, ok := a.cfg.Runner.(Prestarter); ok {
		e.Prestart()
	}
	image, err := attend(a, r, func(ctx context.Context) (ImageInfo, error) {
		return a.cfg.Runner.Image(ctx, part.Pull, func(p api.PullProgress) { a.progress(r, p) })
	})
	if err != nil {
		return err
	}
	a.cfg.Failpoint("agent.image-ready")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &fault.Error{Code: fault.Node, Op: "make directory", Subject: dir, Err: err, Remedy: "Make room there"}
	}
	told, err := a.tell(r, part)
	if err != nil {
		return err
	}
	spec, err := a.intend(r, part, image)
	if err != nil {
		return err
	}
	spec.Previous = told
	a.cfg.Failpoint("agent.before-create")
	created, err := attend(a, r, func(ctx context.Context) (Created, error) {
		return a.cfg.Runner.Create(ctx, spec)
	})
	a.cfg.Failpoint("agent.after-create")
	if err != nil {
		return err
	}
	return a.created(r, image, created)
}

// intend puts on record that a container is about to be made.
func (a *Agent) intend(r *run, part Part, image ImageInfo) (CreateSpec, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.goOn(r); err != nil {
		return CreateSpec{}, err
	}
	a.metrics.pulled(r.pull)
	err := a.transition(r, api.Creating, func(rec *record) {
		rec.ContainerID, rec.Run.Digest = newID(32), image.Digest
		rec.audit().Digest, rec.audit().SignedBy = image.Digest, image.SignedBy
		rec.warn(image.Warnings...)
	})
	if err != nil {
		return CreateSpec{}, err
	}
	return CreateSpec{
		Container: r.rec.container(a.cfg), Run: part.Run, Image: image, Stdin: r.req.Stdin,
		TerminalSize: r.req.TerminalSize, Environ: r.req.Env, LogLimit: a.cfg.LogLimit,
	}, nil
}

// created notes what was made.
func (a *Agent) created(r *run, image ImageInfo, c Created) error {
	id := r.id
	sum, warning := a.keepSpec(id)
	a.cfg.Failpoint("agent.spec-kept")
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range append(image.Warnings, c.Warnings...) {
		r.events.add(api.Event{Type: "warning", Message: w})
	}
	return a.update(r, true, func(rec *record) {
		rec.StopSignal, rec.StopTimeout, rec.ProcessTimeout = c.StopSignal, c.StopTimeout, c.Timeout
		if c.Digest != "" {
			rec.Run.Digest = c.Digest
		}
		rec.audit().Digest, rec.audit().SpecSHA256 = rec.Run.Digest, sum
		rec.warn(c.Warnings...)
		if warning != "" {
			rec.warn(warning)
		}
	})
}

// goOn returns why r must not go on to its next phase, if so. The lock is held.
func (a *Agent) goOn(r *run) error {
	switch {
	case r.rec.Stop != nil && r.rec.Stop.Applied:
		return errStopped
	case a.ctx.Err() != nil:
		return errDetached
	default:
		return nil
	}
}

// errStopped says that the run was ended by its record's Stop.
var errStopped = errors.New("the run was stopped")

// start puts on record that the container may run, and lets it.
func (a *Agent) start(r *run) error {
	a.mu.Lock()
	err := a.goOn(r)
	if err == nil {
		err = a.update(r, true, func(rec *record) {
			rec.Starting, rec.audit().Started = true, true
			rec.ProcessBegan = a.cfg.Clock()
		})
	}
	if err == nil {
		a.light(r)
	}
	c := r.rec.container(a.cfg)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return a.startRecorded(r, c)
}

// startRecorded starts a container whose start is on record.
func (a *Agent) startRecorded(r *run, c Container) error {
	a.cfg.Failpoint("agent.before-start")
	// Not a.ctx: an agent that lets go must know whether the container started.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), a.cfg.CallTimeout)
	defer cancel()
	pid, err := a.cfg.Runner.Start(ctx, c)
	a.cfg.Failpoint("agent.after-start")
	if errors.Is(err, context.DeadlineExceeded) {
		// Not the step's timeout, which the same error would read as.
		err = &fault.Error{Code: fault.Runtime, Op: "start the container of run", Subject: r.id, Err: err,
			Reason: fmt.Sprintf("it did not start within %v", a.cfg.CallTimeout), Remedy: "Look at the agent's log"}
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.metrics.started++
	if r.state() != api.Creating {
		return a.update(r, false, func(rec *record) { rec.Run.Pid = pid })
	}
	if err := a.transition(r, api.Running, func(rec *record) { rec.Run.Pid = pid }); err != nil {
		// It runs, and the record says that it may: go on, and write it later.
		a.cfg.Log.WithField("run", c.Run).WithError(err).Warn("the container runs without a record of it")
		return a.forceRunning(r, pid)
	}
	return nil
}

// forceRunning is for a container that runs although its state cannot be written.
func (a *Agent) forceRunning(r *run, pid int) error {
	from, now := r.state(), a.cfg.Clock()
	took := now - r.rec.PhaseBegan
	next := r.rec.clone()
	next.leavePhase(from, now)
	next.Run.State, next.Run.Pid = api.Running, pid
	next.Seq++
	next.warn("the state directory could not be written while this run went on")
	if err := a.save(r, next, false); err != nil {
		return err
	}
	r.events.add(api.Event{Type: "state", State: api.Running, From: from, Took: inWords(took)})
	return nil
}
