package image

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/careen-project/careen/runtime/image/polite"
)

// flights lets pulls that need the same layer on the same parents unpack it
// once.
type flights struct {
	mu      sync.Mutex
	running map[string]*flight
}

// flight is one layer being unpacked by one pull.
type flight struct {
	done chan struct{}
	err  error
	// wanted says that a pull waits for it that does not step back for a run.
	wanted atomic.Bool
}

// do calls work unless another pull does the same under key already; then it
// waits for that one. When the other one fails, for reasons that may be its own
// (it was cancelled), the work is done here after all. Work that steps back stops
// doing so when a pull comes to wait for it that does not.
func (f *flights) do(ctx context.Context, key string, work func(context.Context) error) (shared bool, err error) {
	for {
		f.mu.Lock()
		other, busy := f.running[key]
		if !busy {
			own := &flight{done: make(chan struct{})}
			f.running[key] = own
			f.mu.Unlock()
			own.err = work(polite.Unless(ctx, own.wanted.Load))
			f.mu.Lock()
			delete(f.running, key)
			f.mu.Unlock()
			close(own.done)
			return false, own.err
		}
		f.mu.Unlock()
		if !polite.Busy(ctx) {
			other.wanted.Store(true)
		}
		select {
		case <-other.done:
			if other.err == nil {
				return true, nil
			}
		case <-ctx.Done():
			return true, context.Cause(ctx)
		}
	}
}
