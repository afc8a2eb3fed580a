package image

import (
	"context"
	"sync"
	"sync/atomic"
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
	// urgent says that a pull waits for it which does not limit itself.
	urgent atomic.Bool
}

// do calls work unless another pull does the same under key already; then it
// waits for that one. When the other one fails, for reasons that may be its own
// (it was cancelled), the work is done here after all. busy limits the work;
// once a pull waits for the work that is not limited itself, the work is not either.
func (f *flights) do(ctx context.Context, key string, busy busyFunc, work func(busyFunc) error) (shared bool, err error) {
	for {
		f.mu.Lock()
		other, running := f.running[key]
		if !running {
			own := &flight{done: make(chan struct{})}
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
