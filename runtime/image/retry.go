package image

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// retrier counts failures in a row and waits between them.
type retrier struct {
	retries  int
	delay    time.Duration
	maxDelay time.Duration
	failures int
	onRetry  func()
}

func (p *Puller) retrier(req *Request, onRetry func()) *retrier {
	l := p.cfg.Limits
	r := &retrier{retries: l.Retries, delay: l.Backoff, maxDelay: l.MaxBackoff, onRetry: onRetry}
	if req.Retry != nil {
		r.retries = *req.Retry
	}
	if req.RetryDelay != nil {
		r.delay = *req.RetryDelay
	}
	return r
}

// wait sleeps before the next try. It returns err itself when there is no next
// try: retries are used up, or trying again would not help.
func (r *retrier) wait(ctx context.Context, err error) error {
	if ctx.Err() != nil || !retryable(err) || r.failures >= r.retries {
		return err
	}
	delay := r.delay << min(r.failures, 10)
	// Half of the wait is random, so that a rack of nodes does not come back at
	// the same instant to the registry that it brought down.
	delay = delay/2 + rand.N(delay/2+1) //nolint:gosec // spreads load, guards nothing
	var answer *statusError
	if errors.As(err, &answer) && answer.retryAfter > delay {
		delay = answer.retryAfter
	}
	delay = min(delay, r.maxDelay)
	r.failures++
	if r.onRetry != nil {
		r.onRetry()
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

// progress forgets earlier failures: the server works again.
func (r *retrier) progress() { r.failures = 0 }

func retryable(err error) bool {
	if fault.CodeOf(err) == fault.Internal {
		err = classify(err, "", "")
	}
	return fault.CodeOf(err).Transient()
}

// statusError is an answer with an unexpected status.
type statusError struct {
	status     int
	host       string
	detail     string // the registry's own words, bounded
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	text := e.host + " answered " + strconv.Itoa(e.status) + " " + http.StatusText(e.status)
	if e.detail != "" {
		text += " (" + e.detail + ")"
	}
	return text
}

// parseRetryAfter reads the header of RFC 9110, section 10.2.3: seconds or a
// date. What cannot be read is 0; the caller bounds it.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
