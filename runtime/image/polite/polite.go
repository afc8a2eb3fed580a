// Package polite makes work step back while something more important goes on: the
// pull of the next image while a step runs.
//
// Work that steps back runs on threads of the lowest priority (nice 19), which the
// kernel gives about a seventieth of a processor that others want too, and all of
// one that nobody wants. Where groups of processes share processors evenly, as with
// autogroups, that counts only among the agent's own threads, so such work also
// rests as long as it worked.
package polite

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lowest = 19
	// restMax bounds one rest, after a piece of work that took long because a
	// server was slow.
	restMax = 250 * time.Millisecond
)

// normal is the priority that the process began with. It is not asked of a thread
// later: a goroutine may have several workers, and the second would find the first
// one's.
var normal = func() int {
	if v, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		return 20 - v // so the system call has it
	}
	return 0
}()

type key struct{}

// While returns a context whose work steps back as long as busy returns true.
// busy is called often, from several goroutines.
func While(ctx context.Context, busy func() bool) context.Context {
	return context.WithValue(ctx, key{}, busy)
}

// Unless returns a context whose work does not step back once wanted returns true:
// the more important thing has come to wait for it.
func Unless(ctx context.Context, wanted func() bool) context.Context {
	busy, _ := ctx.Value(key{}).(func() bool)
	if busy == nil {
		return ctx
	}
	return While(ctx, func() bool { return !wanted() && busy() })
}

// Busy reports whether work under ctx steps back now.
func Busy(ctx context.Context) bool {
	busy, _ := ctx.Value(key{}).(func() bool)
	return busy != nil && busy()
}

// Worker is one goroutine's part of such work. It must be used by one goroutine
// alone, which calls Done at its end.
type Worker struct {
	busy func() bool
	ctx  context.Context //nolint:containedctx // of the work
	low  bool
	from time.Time // when it began to work, after the last rest
}

// New returns a worker for work under ctx.
func New(ctx context.Context) *Worker {
	busy, _ := ctx.Value(key{}).(func() bool)
	return &Worker{busy: busy, ctx: ctx}
}

// Check adapts the thread's priority. It is called between pieces of work.
func (w *Worker) Check() {
	if w.busy == nil {
		return
	}
	if busy := w.busy(); busy != w.low {
		w.change(busy)
	}
}

func (w *Worker) change(low bool) {
	if low {
		// The priority is the thread's, so the goroutine keeps it for as long.
		runtime.LockOSThread()
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowest) // lowering is always allowed
		w.low, w.from = true, time.Now()
		return
	}
	// Without CAP_SYS_NICE it cannot be undone: the rest of the work stays low.
	if unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), normal) == nil {
		runtime.UnlockOSThread()
		w.low = false
	} else {
		w.busy = nil
	}
}

// Done gives the thread its priority back. Where that is not allowed the thread ends
// with the goroutine.
func (w *Worker) Done() {
	if w.low {
		w.change(false)
	}
	w.busy = nil
}

// Rest is Check, and a rest as long as the work since the last one if it steps
// back. One goroutine of a pipeline is enough to slow down the whole.
func (w *Worker) Rest() {
	w.Check()
	if !w.low || w.busy == nil {
		return
	}
	timer := time.NewTimer(min(time.Since(w.from), restMax))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	}
	w.from = time.Now()
}
