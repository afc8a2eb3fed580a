package exec

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/push"
)

// pushAttempts is how often a bundle is sent, pushPause the time between the first two
// attempts; it doubles.
const (
	pushAttempts = 5
	pushPause    = 2 * time.Second
)

// deliver pushes the bundles of runs that have ended, one after another, until the agent
// lets go. No run waits for it.
func (x *Executor) deliver() {
	for {
		r := x.nextPush()
		if r == nil {
			return
		}
		node := pushNode(r)
		err := x.push(node, r.Run.ID)
		if x.ctx.Err() != nil {
			return
		}
		warning, result := "", "delivered"
		if err != nil {
			result = "failed"
			warning = fmt.Sprintf("the run's bundle was not pushed to %s: %s", x.cfg.Push.Target(node, r.Run.ID),
				fault.OneLine(err.Error(), fault.MaxLine))
		}
		x.count(func(f *Figures) { f.Pushes = add(f.Pushes, result) })
		pushed := make(chan machine.Reply, 1)
		if !x.inbox.put(item{event: machine.Pushed{ID: r.Run.ID, Warning: warning}, reply: pushed}) {
			return
		}
		<-pushed
	}
}

// nextPush waits for the oldest run whose bundle is to be pushed. A stuck run never gets
// its files in order; it is pushed as it is. nil says that the agent lets go.
func (x *Executor) nextPush() *machine.Run {
	for {
		changed := *x.changed.Load()
		if waiting := x.state.Load().Unpushed(); len(waiting) > 0 && (waiting[0].Tidied || waiting[0].Stuck) {
			return waiting[0]
		}
		select {
		case <-changed:
		case <-x.ctx.Done():
			return nil
		}
	}
}

// pushNode is the node's name in a URL.
func pushNode(r *machine.Run) string {
	if r.Run.Node != "" {
		return r.Run.Node
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		return host
	}
	return "unknown"
}

// push delivers one bundle, in a few attempts.
func (x *Executor) push(node, id string) error {
	file, size, err := x.spool(id)
	if err != nil {
		return err
	}
	defer file.Close()
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(x.ctx, x.cfg.PushTime)
		err = x.cfg.Push.Put(ctx, node, id, io.NewSectionReader(file, 0, size), size)
		cancel()
		var refused *push.Refused
		if err == nil || errors.As(err, &refused) || attempt == pushAttempts || x.ctx.Err() != nil {
			return err
		}
		x.cfg.Log.WithField("run", id).WithError(err).Info("cannot push the run's bundle; trying again")
		x.pauseBetween(attempt)
	}
}

// pauseBetween waits before the next attempt. A node that is about to go down waits no
// longer than it has to.
func (x *Executor) pauseBetween(attempt int) {
	hurry, pause := x.hurry, pushPause<<(attempt-1)
	select {
	case <-hurry:
		hurry, pause = nil, pushPause
	default:
	}
	select {
	case <-time.After(pause):
	case <-hurry:
	case <-x.ctx.Done():
	}
}

// spool writes the bundle of a run to a file without a name: it can be sent again, and its
// length is known before, which many servers want.
func (x *Executor) spool(id string) (_ *os.File, size int64, err error) {
	file, err := os.CreateTemp(x.cfg.RunDir, "push-")
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, 0, err
	}
	packed, err := gzip.NewWriterLevel(file, gzip.BestSpeed)
	if err != nil {
		return nil, 0, err
	}
	if err := errors.Join(x.cfg.Bundle(packed, id), packed.Close()); err != nil {
		return nil, 0, err
	}
	size, err = file.Seek(0, io.SeekCurrent)
	return file, size, err
}

// pushRest gives what waits to be pushed a last chance before the node goes down.
func (x *Executor) pushRest(ctx context.Context) {
	if x.cfg.Push == nil {
		return
	}
	x.hurried.Do(func() { close(x.hurry) })
	ctx, cancel := context.WithTimeout(ctx, x.cfg.PushLast)
	defer cancel()
	for {
		changed := *x.changed.Load()
		waiting := len(x.state.Load().Unpushed())
		if waiting == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			x.cfg.Log.Warnf("the bundles of %d runs are not pushed before the node goes down", waiting)
			return
		}
	}
}
