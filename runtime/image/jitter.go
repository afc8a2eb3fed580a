package image

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// jitter waits for a random part of Config.Jitter, so that nodes which boot together do
// not all ask the registry at once. Only pulls from a registry wait, and only once. It
// reports whether it has waited.
func (j *job) jitter(ctx context.Context) (waited bool, err error) {
	if j.p.cfg.Jitter <= 0 || j.jittered || !fromRegistry(j.req) {
		return false, nil
	}
	j.jittered = true
	wait := rand.N(j.p.cfg.Jitter) //nolint:gosec // spreads load, guards nothing
	j.hooks.onWait(fmt.Sprintf("its turn, for %s of at most %s: not all nodes are to ask the registry at once",
		wait.Round(100*time.Millisecond), j.p.cfg.Jitter))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return true, context.Cause(ctx)
	}
	j.hooks.onWait("")
	return true, nil
}
