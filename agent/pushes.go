package agent

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/careen-project/careen/agent/push"
)

// Pusher delivers what is known of a run to where it outlives the node; package push
// has one.
type Pusher interface {
	// Put delivers size bytes. An error that is a [push.Refused] is not tried again.
	Put(ctx context.Context, node, run string, body io.Reader, size int64) error
	// Target is where they go, without what may be a secret.
	Target(node, run string) string
}

// maxPushes bounds the runs that wait to be pushed.
const maxPushes = 64

// pushes are the runs whose bundles are still to be delivered. The agent's lock guards
// them.
type pushes struct {
	// waiting are those runs, oldest first; the first may be under way.
	waiting []*run
	// wake tells the goroutine that delivers that there is one.
	wake chan struct{}
	// empty is closed when nothing waits any more.
	empty chan struct{}
	// hurry is closed when there is no time left to wait between two attempts.
	hurry   chan struct{}
	hurried bool
	done    map[string]int64 // by result
}

func newPushes() pushes {
	p := pushes{wake: make(chan struct{}, 1), empty: make(chan struct{}), hurry: make(chan struct{}), done: map[string]int64{}}
	close(p.empty)
	return p
}

// pushLater has the bundle of a run that has ended delivered. The next agent goes on
// with those that are on record and not delivered. The lock is held.
func (a *Agent) pushLater(r *run) {
	if a.cfg.Push == nil || !r.rec.Unpushed {
		return
	}
	p := &a.pushes
	if len(p.waiting) == 0 {
		p.empty = make(chan struct{})
	}
	p.waiting = append(p.waiting, r)
	if len(p.waiting) > maxPushes {
		a.pushed(p.waiting[1], fmt.Errorf("more than %d runs wait for it", maxPushes))
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// pushed notes that r is done with, for better or worse. The lock is held.
func (a *Agent) pushed(r *run, err error) {
	p := &a.pushes
	p.waiting = slices.DeleteFunc(p.waiting, func(w *run) bool { return w == r })
	if len(p.waiting) == 0 {
		close(p.empty)
	}
	if a.runs[r.id] != r {
		return // deleted meanwhile
	}
	result, warning := "delivered", ""
	if err != nil {
		result = "failed"
		warning = fmt.Sprintf("the run's bundle was not pushed to %s: %s", a.cfg.Push.Target(a.pushNode(r), r.id), oneLine(err.Error()))
		a.cfg.Log.WithField("run", r.id).Warn(warning)
	}
	p.done[result]++
	_ = a.update(r, false, func(rec *record) {
		rec.Unpushed = false
		if warning != "" {
			rec.warn(warning)
		}
	})
}

// pushNode is the node's name in a URL. The lock is held.
func (a *Agent) pushNode(r *run) string {
	if node := r.rec.Run.Node; node != "" {
		return node
	}
	host, _ := os.Hostname()
	return orDefault(host, "unknown")
}

// deliver pushes bundles, one after another, until the agent lets go. No run waits for it.
func (a *Agent) deliver() {
	for {
		a.mu.Lock()
		var r *run
		var node string
		if waiting := a.pushes.waiting; len(waiting) > 0 {
			r = waiting[0]
			node = a.pushNode(r)
		}
		a.mu.Unlock()
		if r == nil {
			select {
			case <-a.pushes.wake:
				continue
			case <-a.ctx.Done():
				return
			}
		}
		if !a.isStuck(r) { // who is stuck has no files in order, and the node no time
			select {
			case <-r.tidied:
			case <-a.ctx.Done():
				return
			}
		}
		err := a.push(node, r.id)
		if a.ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		a.pushed(r, err)
		a.mu.Unlock()
	}
}

// push delivers one bundle, in a few attempts.
func (a *Agent) push(node, id string) error {
	file, size, err := a.spool(id)
	if err != nil {
		return err
	}
	defer file.Close()
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(a.ctx, a.cfg.PushTime)
		err = a.cfg.Push.Put(ctx, node, id, io.NewSectionReader(file, 0, size), size)
		cancel()
		var refused *push.Refused
		if err == nil || errors.As(err, &refused) || attempt == pushAttempts || a.ctx.Err() != nil {
			return err
		}
		a.cfg.Log.WithField("run", id).WithError(err).Info("cannot push the run's bundle; trying again")
		a.pauseBetween(attempt)
	}
}

// pushAttempts is how often a bundle is sent, and pushPause the time between the first
// two attempts; it doubles.
const (
	pushAttempts = 5
	pushPause    = 2 * time.Second
)

// pauseBetween waits before the next attempt: a node that is about to go down waits
// for no longer than it has to.
func (a *Agent) pauseBetween(attempt int) {
	hurry, pause := a.pushes.hurry, pushPause<<(attempt-1)
	select {
	case <-hurry:
		hurry, pause = nil, pushPause
	default:
	}
	select {
	case <-time.After(pause):
	case <-hurry:
	case <-a.ctx.Done():
	}
}

// spool writes the bundle of a run to a file without a name, so that it can be sent
// again, and its length be told before: many servers want that.
func (a *Agent) spool(id string) (_ *os.File, size int64, err error) {
	file, err := os.CreateTemp(a.cfg.RunDir, "push-")
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
	if err := errors.Join(a.server.WriteBundle(packed, id), packed.Close()); err != nil {
		return nil, 0, err
	}
	size, err = file.Seek(0, io.SeekCurrent)
	return file, size, err
}

// pushRest gives what waits to be pushed the last chance before the node goes down.
func (a *Agent) pushRest(ctx context.Context) {
	a.mu.Lock()
	if !a.pushes.hurried {
		a.pushes.hurried = true
		close(a.pushes.hurry)
	}
	empty := a.pushes.empty
	a.mu.Unlock()
	last := time.NewTimer(a.cfg.PushLast)
	defer last.Stop()
	select {
	case <-empty:
		return
	case <-last.C:
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.pushes.waiting); n > 0 {
		a.cfg.Log.Warnf("the bundles of %d runs are not pushed before the node goes down", n)
	}
}
