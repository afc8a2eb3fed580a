package image

import (
	"context"
	"sync"
	"sync/atomic"
)

// singleFlight lets pulls that need the same layer on the same parents unpack it once.
type singleFlight struct {
	mu      sync.Mutex
	running map[string]*layerCall
}

// layerCall is one layer that one pull is unpacking.
type layerCall struct {
	done chan struct{}
	err  error
	// urgent is set when a pull without a limit waits for this one.
	urgent atomic.Bool
}

// do calls work, unless another pull does the same work under key: then it waits for that
// pull. If the other pull fails, for a reason that may be its own (such as a cancel), the
// work is done here. busy limits the work until a pull without a limit waits for it. The
// error is that of work, or the cause of ctx.
func (f *singleFlight) do(ctx context.Context, key string, busy busyFunc, work func(busyFunc) error) (shared bool, err error) {
	for {
		f.mu.Lock()
		other, running := f.running[key]
		if !running {
			own := &layerCall{done: make(chan struct{})}
			f.running[key] = own
			f.mu.Unlock()
			own.err = work(busy.unless(own.urgent.Load))
			f.mu.Lock()
			delete(f.running, key)
			f.mu.Unlock()
			close(own.done)
			return false, own.err
		}
		f.mu.Unlock()
		if !busy.now() {
			other.urgent.Store(true)
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
