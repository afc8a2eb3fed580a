package image

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// needsJitter reports whether this pull waits before it fetches layers. Only pulls from
// a registry wait, and only once.
func (j *job) needsJitter() bool {
	return j.p.cfg.Jitter > 0 && !j.jitterDone && fromRegistry(j.req)
}

// jitter waits a random part of Config.Jitter, so that nodes which boot together do not
// all ask the registry at once.
func (j *job) jitter(ctx context.Context) error {
	j.jitterDone = true
	wait := rand.N(j.p.cfg.Jitter) //nolint:gosec // spreads load, guards nothing
	j.progress.waits(fmt.Sprintf("its turn, for %s of at most %s: not all nodes are to ask the registry at once",
		wait.Round(100*time.Millisecond), j.p.cfg.Jitter))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	j.progress.waits("")
	return nil
}
