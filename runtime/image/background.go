package image

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// The limit of all background pulls of one [Puller] together while a step runs: bytes per
// second, and bytes at once. Downloaded and unpacked bytes both count, since a layer of zeros
// is small and still uses the processor. An ordinary layer
// takes about 3.5 ms of processor time per MiB that is counted, and about a third of
// what is counted arrives from the network. So 48 MiB/s is a sixth of one processor and
// an eighth of a gigabit link.
const (
	backgroundRate  = 48 << 20
	backgroundBurst = 128 << 10
)

// busyFunc reports whether a background pull has to limit itself now; nil means no.
type busyFunc func() bool

func (b busyFunc) now() bool { return b != nil && b() }

// unless returns a busyFunc that is false once urgent returns true.
func (b busyFunc) unless(urgent func() bool) busyFunc {
	if b == nil {
		return nil
	}
	return func() bool { return !urgent() && b() }
}

// paced is a reader that keeps to the limit while busy returns true.
type paced struct {
	r     io.Reader
	ctx   context.Context //nolint:containedctx // the reader is the call
	limit *rate.Limiter
	busy  busyFunc
}

func (p *paced) Read(b []byte) (int, error) {
	if !p.busy.now() {
		return p.r.Read(b)
	}
	n, err := p.r.Read(b[:min(len(b), backgroundBurst)])
	if n > 0 && p.limit.WaitN(p.ctx, n) != nil {
		return n, context.Cause(p.ctx)
	}
	return n, err
}
