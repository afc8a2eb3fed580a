package container

import "context"

type busyKey struct{}

// WithBusy returns a context for a pull that no run waits for. As long as busy returns
// true, a step runs and the pull limits itself so that the step keeps the node. busy is
// called for every piece of data, from several goroutines, so it must not block or take
// a lock: an atomic load is right.
func WithBusy(ctx context.Context, busy func() bool) context.Context {
	return context.WithValue(ctx, busyKey{}, busy)
}

// Busy returns the function of [WithBusy], nil for a pull that never limits itself.
func Busy(ctx context.Context) func() bool {
	busy, _ := ctx.Value(busyKey{}).(func() bool)
	return busy
}
