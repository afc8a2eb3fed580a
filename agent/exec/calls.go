package exec

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/runtime/container"
)

// cancellable runs a call that the machine may cancel. When the agent lets go of its runs,
// the call has no answer: the next agent begins anew.
func (o *owner) cancellable(id string, fn func(ctx context.Context) machine.Event) {
	ctx, cancel := context.WithCancel(o.ctx)
	o.life(id).cancel = cancel
	o.call(func() machine.Event {
		defer cancel()
		answer := fn(ctx)
		if o.ctx.Err() != nil {
			return nil
		}
		return answer
	})
}

// pull makes the image present.
func (o *owner) pull(e machine.Pull) {
	o.cancellable(e.ID, func(ctx context.Context) machine.Event {
		if p, ok := o.cfg.Runner.(Prestarter); ok {
			p.Prestart()
		}
		report := newReporter(o.cfg.Clock, func(p machine.Progress) {
			o.inbox.put(item{event: machine.PullProgress{ID: e.ID, Call: e.Call, Progress: p}})
		})
		image, err := o.cfg.Runner.Image(ctx, e.Part.Pull, report.progress)
		report.flush()
		if err == nil {
			o.cfg.Failpoint("agent.image-ready")
			p := report.last()
			o.count(func(f *Figures) { f.pulled(p) })
		}
		return machine.Pulled{ID: e.ID, Call: e.Call, Err: err, ContainerID: newID(32), Image: image, SignedBy: signers(image.SignedBy)}
	})
}

// create makes the container.
func (o *owner) create(e machine.Create) {
	o.cancellable(e.ID, func(ctx context.Context) machine.Event {
		answer := machine.Created{ID: e.ID, Call: e.Call}
		f := o.store.Files(e.ID)
		e.Spec.Container = o.container(e.Spec.Container)
		e.Spec.LogLimit = o.cfg.LogLimit
		if e.Spec.Previous, answer.Err = o.writeInputs(f.Run, e.Inputs); answer.Err != nil {
			return answer
		}
		o.cfg.Failpoint("agent.before-create")
		answer.Created, answer.Err = o.cfg.Runner.Create(ctx, e.Spec)
		o.cfg.Failpoint("agent.after-create")
		if answer.Err == nil {
			answer.SpecSHA256, answer.Warning = f.KeepSpec()
			o.cfg.Failpoint("agent.spec-kept")
		}
		return answer
	})
}

// writeInputs writes what the container reads of those before it, and returns the file, ""
// for none. It makes the run directory.
func (o *owner) writeInputs(dir container.Dir, inputs []machine.Input) (path string, err error) {
	fail := func(path string, err error) error {
		return &fault.Error{Code: fault.Node, Op: "write", Subject: path, Err: err, Remedy: "Make room in " + o.cfg.RunDir}
	}
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return "", fail(string(dir), err)
	}
	if len(inputs) == 0 {
		return "", nil
	}
	data, err := json.Marshal(inputs)
	if err == nil {
		err = file.Replace(dir.Inputs(), data, 0o444, file.Volatile) // the container may be any user
	}
	if err != nil {
		return "", fail(dir.Inputs(), err)
	}
	return dir.Inputs(), nil
}

// bounded returns a context that ends after the time that a call may take, whatever
// becomes of the agent.
func (o *owner) bounded(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(o.ctx), limit)
}

// start sets the reboot marker and starts the container.
func (o *owner) start(e machine.Start) machine.Event {
	answer := machine.Started{ID: e.ID, Call: e.Call}
	answer.Marked, answer.MarkErr = o.setMark(e.Mark)
	o.cfg.Failpoint("agent.before-start")
	ctx, cancel := o.bounded(o.cfg.CallTimeout)
	defer cancel()
	answer.Pid, answer.Err = o.cfg.Runner.Start(ctx, o.container(e.Container))
	o.cfg.Failpoint("agent.after-start")
	if errors.Is(answer.Err, context.DeadlineExceeded) {
		// Not the step's timeout, which the same error would read as.
		answer.Err = &fault.Error{Code: fault.Runtime, Op: "start the container of run", Subject: e.ID, Err: answer.Err,
			Reason: fmt.Sprintf("it did not start within %v", o.cfg.CallTimeout), Remedy: "Look at the agent's log"}
	}
	if answer.Err == nil {
		o.count(func(f *Figures) { f.Started++ })
	}
	return answer
}

// wait asks the Runner for the container's end, again for a while when it cannot tell.
func (o *owner) wait(e machine.Wait) machine.Event {
	c := o.container(e.Container)
	var failing time.Duration // since when the Runner cannot tell
	for {
		exit, err := o.cfg.Runner.Wait(o.ctx, c)
		now := o.cfg.Clock()
		switch {
		case err == nil:
			return machine.Exited{ID: e.ID, Call: e.Call, Exit: exit}
		case o.ctx.Err() != nil:
			return nil
		case e.Once, fault.CodeOf(err) == fault.Lost: // the Runner is sure
			return machine.Exited{ID: e.ID, Call: e.Call, Err: err}
		case failing == 0:
			failing = now
			o.cfg.Log.WithField("run", c.Run).WithError(err).Warn("cannot learn the state of the container; asking again")
		case now-failing >= o.cfg.LostAfter:
			return machine.Exited{ID: e.ID, Call: e.Call, Err: err}
		}
		select {
		case <-time.After(min(time.Second, o.cfg.LostAfter/4)):
		case <-o.ctx.Done():
			return nil
		}
	}
}

// signal sends a signal. When it cannot be sent, the next step of the escalation follows.
func (o *owner) signal(e machine.Signal) {
	ctx, cancel := o.bounded(min(o.cfg.CallTimeout, o.cfg.StuckAfter))
	defer cancel()
	if err := o.cfg.Runner.Signal(ctx, o.container(e.Container), e.Signal, e.All); err != nil {
		o.cfg.Log.WithField("run", e.ID).WithField("signal", e.Signal).WithError(err).Warn("cannot signal the container")
	}
}

// readEnd reads what the container left for the agent.
func (o *owner) readEnd(e machine.ReadEnd) machine.Event {
	f := o.store.Files(e.ID)
	end := machine.End{}
	result, err := readResult(f.Run)
	if err != nil {
		end.Warnings = append(end.Warnings, fmt.Sprintf("the container's %s does not count: %v", resultName, err))
	}
	end.Result, end.Tail = result, tail(f.Log(), o.cfg.TailLines)
	o.cfg.Failpoint("agent.before-exit")
	return machine.EndRead{ID: e.ID, Call: e.Call, End: end}
}

// remove deletes the container.
func (o *owner) remove(e machine.Remove) machine.Event {
	c := o.container(e.Container)
	_ = o.inputs.close(c.ID)
	dropClaim(container.Dir(c.Dir))
	o.cfg.Failpoint("agent.before-delete")
	began := o.cfg.Clock()
	ctx, cancel := o.bounded(o.cfg.CallTimeout)
	defer cancel()
	left, err := o.cfg.Runner.Delete(ctx, c)
	o.cfg.Failpoint("agent.after-delete")
	return machine.Deleted{ID: e.ID, Call: e.Call, Leftovers: left, Err: err, Took: o.cfg.Clock() - began}
}

// removeLeft deletes a container of an earlier agent.
func (o *owner) removeLeft(e machine.RemoveLeft) machine.Event {
	c := o.container(e.Container)
	try := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(o.ctx, limit)
		defer cancel()
		_, err := o.cfg.Runner.Delete(ctx, c)
		return err
	}
	if !e.Retry {
		return machine.Removed{ID: c.ID, Err: try(min(removeFirst, o.cfg.CallTimeout))}
	}
	for {
		select {
		case <-time.After(removeEvery):
		case <-o.ctx.Done():
			return nil
		}
		if try(o.cfg.CallTimeout) == nil {
			return machine.Removed{ID: c.ID}
		}
	}
}

// newID returns n random bytes in hexadecimal.
func newID(n int) string {
	b := make([]byte, n)
	rand.Read(b) // it never returns an error (crypto/rand)
	return hex.EncodeToString(b)
}

func signers(list []api.Signer) (all []machine.Signer) {
	for _, s := range list {
		all = append(all, machine.Signer(s))
	}
	return all
}
