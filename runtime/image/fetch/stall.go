package fetch

import (
	"context"
	"io"
	"time"

	"github.com/careen-project/careen/runtime/image/failure"
)

// StallGuard cancels a request whose body brings no byte for a limit. Time counts only
// while a read waits: a slow consumer is not a stall.
type StallGuard struct {
	limit  time.Duration
	timer  *time.Timer
	ctx    context.Context //nolint:containedctx // only asked for its cause
	cancel context.CancelCauseFunc
}

// NewStallGuard returns the context for a request and its guard, which has to be closed.
// The limit counts from now until the first call of Read.
func NewStallGuard(ctx context.Context, limit time.Duration) (context.Context, *StallGuard) {
	ctx, cancel := context.WithCancelCause(ctx)
	g := &StallGuard{limit: limit, ctx: ctx, cancel: cancel}
	g.timer = time.AfterFunc(limit, func() { cancel(failure.ErrStalled) })
	return ctx, g
}

// read reads once from r, which is the request's body, within the limit.
func (g *StallGuard) read(r io.Reader, b []byte) (int, error) {
	g.timer.Reset(g.limit)
	n, err := r.Read(b)
	g.timer.Stop()
	return n, err
}

// Stalled reports whether the limit has run out.
func (g *StallGuard) Stalled() bool { return context.Cause(g.ctx) == failure.ErrStalled }

// Close ends the request.
func (g *StallGuard) Close() {
	g.timer.Stop()
	g.cancel(nil)
}
