package runtime

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/shim"
)

const (
	// callTimeout bounds a call that a shim answers at once; only a node under heavy load
	// makes it wait.
	callTimeout = 3 * time.Second
	// removeTimeout is the time after which a removal makes its shim suspect. The removal
	// of a container whose processes do not end takes as long.
	removeTimeout = 5 * time.Second
	// watchInterval is the time between two looks at a container that is waited for.
	watchInterval = 3 * time.Second
)

// patient is a task service that does not wait for a shim that does not answer, such as
// one that was stopped by SIGSTOP. It resumes the shim, and where that does not help it
// goes by the container's processes instead: it signals them, and reads how the first
// one ended. A shim of a container that still runs is never killed, but by remove.
type patient struct{ taskService }

// bounded calls f with a deadline. late says that it passed, which is not the case when
// ctx itself ended.
func bounded(ctx context.Context, limit time.Duration, f func(context.Context) error) (late bool, err error) {
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = f(call)
	return err != nil && call.Err() != nil && ctx.Err() == nil, err
}

// answers reports whether the shim of a container answers, after it was resumed if it
// did not before.
func (p patient) answers(ctx context.Context, id, dir string) bool {
	probe := func(ctx context.Context) error {
		_, _, err := p.taskService.state(ctx, id, dir)
		return err
	}
	if late, _ := bounded(ctx, callTimeout, probe); !late {
		return true
	}
	if d, err := p.direct(id, dir); err == nil {
		log.G(ctx).WithField("container", id).Warn("the shim does not answer; resuming it")
		d.Resume()
	}
	late, _ := bounded(ctx, callTimeout, probe)
	return !late
}

// direct reaches the container without its shim.
func (p patient) direct(id, dir string) (*shim.Direct, error) {
	return shim.OpenDirect(container.Dir(dir), id, p.shimPid(id))
}

func (p patient) start(ctx context.Context, id string) (pid int, err error) {
	late, err := bounded(ctx, createTimeout, func(ctx context.Context) (err error) {
		pid, err = p.taskService.start(ctx, id)
		return err
	})
	return pid, unanswered(late, id, err)
}

// unanswered explains an error where the deadline passed.
func unanswered(late bool, id string, err error) error {
	if late {
		return fmt.Errorf("the shim of container %s does not answer: %w", id, err)
	}
	return err
}

func (p patient) resize(ctx context.Context, id string, columns, rows uint16) error {
	late, err := bounded(ctx, callTimeout, func(ctx context.Context) error { return p.taskService.resize(ctx, id, columns, rows) })
	return unanswered(late, id, err)
}

func (p patient) closeStdin(ctx context.Context, id string) error {
	late, err := bounded(ctx, callTimeout, func(ctx context.Context) error { return p.taskService.closeStdin(ctx, id) })
	return unanswered(late, id, err)
}

func (p patient) state(ctx context.Context, id, dir string) (state container.State, pid int, err error) {
	ask := func(ctx context.Context) error {
		state, pid, err = p.taskService.state(ctx, id, dir)
		return err
	}
	if late, err := bounded(ctx, callTimeout, ask); !late {
		return state, pid, err
	}
	d, err := p.direct(id, dir)
	if err != nil {
		return "", 0, err
	}
	log.G(ctx).WithField("container", id).Warn("the shim does not answer; resuming it")
	d.Resume()
	if late, err := bounded(ctx, callTimeout, ask); !late {
		return state, pid, err
	}
	if state, pid, err = d.State(); err == nil && state == container.StateStopped {
		err = d.TakeOver()
	}
	return state, pid, err
}

func (p patient) kill(ctx context.Context, id, dir string, sig syscall.Signal, all bool) error {
	late, err := bounded(ctx, callTimeout, func(ctx context.Context) error { return p.taskService.kill(ctx, id, dir, sig, all) })
	if !late {
		return err
	}
	d, derr := p.direct(id, dir)
	if derr != nil {
		return unanswered(late, id, err)
	}
	log.G(ctx).WithField("container", id).Warnf("the shim does not answer; sending %s without it", unix.SignalName(sig))
	if err := d.Signal(sig, all); err != nil || sig != unix.SIGKILL || p.answers(ctx, id, dir) {
		return err
	}
	return p.takeOver(ctx, id, d)
}

// takeOver ends the shim of a container that ends now.
func (p patient) takeOver(ctx context.Context, id string, d *shim.Direct) error {
	log.G(ctx).WithField("container", id).Warn("the shim does not answer; ending it after its container")
	deadline := time.Now().Add(callTimeout)
	for {
		err := d.TakeOver()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond) // the processes are no children: no event comes
	}
}

func (p patient) wait(ctx context.Context, id, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.taskService.wait(ctx, id, dir) }()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for over := 0; ; {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		d, err := p.direct(id, dir)
		if err != nil {
			continue
		}
		if d.Stopped() {
			log.G(ctx).WithField("container", id).Warn("the shim was stopped; resuming it")
			d.Resume()
		}
		if state, _, err := d.State(); err != nil || state != container.StateStopped {
			over = 0
			continue
		}
		// The shim needs seconds for the rest of the output and for stray processes.
		if over++; over < 3 || p.answers(ctx, id, dir) {
			continue
		}
		if err := d.TakeOver(); err == nil {
			cancel()
			<-ended
			return errdefs.ErrNotFound
		}
	}
}

func (p patient) remove(ctx context.Context, id, dir string) error {
	remove := func(ctx context.Context) error { return p.taskService.remove(ctx, id, dir) }
	late, err := bounded(ctx, removeTimeout, remove)
	if !late {
		return err
	}
	if p.answers(ctx, id, dir) {
		return remove(ctx)
	}
	if d, derr := p.direct(id, dir); derr == nil {
		err = d.Signal(unix.SIGKILL, true)
		if err == nil {
			err = p.takeOver(ctx, id, d)
		}
	} else {
		err = shim.KillShim(p.shimPid(id)) // it hangs in the creation
	}
	if err != nil {
		return unanswered(late, id, err)
	}
	return remove(ctx)
}

var _ taskService = patient{}
