package fetch

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
)

// Retry counts failures in a row and waits between them. It is for one goroutine.
type Retry struct {
	// Limit is the number of retries without a byte of progress in between.
	Limit int
	// Delay is the wait before the first retry, doubled each time; MaxDelay caps it, and
	// what Retry-After may ask for.
	Delay, MaxDelay time.Duration
	// OnRetry is called before each wait; it may be nil.
	OnRetry func()

	failures int
}

// Wait sleeps before the next try. If there is no next try it returns err: the retries are
// used up, or err is not transient. When ctx ends it returns the cause.
func (r *Retry) Wait(ctx context.Context, err error) error {
	if ctx.Err() != nil || !Transient(err) || r.failures >= r.Limit {
		return err
	}
	delay := r.Delay << min(r.failures, 10)
	// Half of the wait is random, so that the nodes of a rack do not all return at the
	// same instant to the registry that they overloaded.
	delay = delay/2 + rand.N(delay/2+1) //nolint:gosec // spreads load, guards nothing
	var answer *failure.StatusError
	if errors.As(err, &answer) && answer.RetryAfter > delay {
		delay = answer.RetryAfter
	}
	delay = min(delay, r.MaxDelay)
	r.failures++
	if r.OnRetry != nil {
		r.OnRetry()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Progress forgets earlier failures: the server works again.
func (r *Retry) Progress() { r.failures = 0 }

// Transient reports whether the same request may succeed later.
func Transient(err error) bool {
	if fault.CodeOf(err) == fault.Internal {
		err = failure.Classify(err, "", "")
	}
	return fault.CodeOf(err).Transient()
}

// ParseRetryAfter reads the header of RFC 9110, section 10.2.3: seconds or a date. A value
// that cannot be read is 0. The result has no upper limit.
func ParseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
