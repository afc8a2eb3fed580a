package failure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

var (
	// ErrTotal is the cause of a context that ended because the whole pull took too long.
	ErrTotal = errors.New("the pull took longer than its limit")
	// ErrStalled is the cause of a request that was cancelled because no byte arrived.
	ErrStalled = errors.New("no byte arrived for the stall limit")
	// ErrAnswerTooLarge is the error of reading an answer beyond its limit.
	ErrAnswerTooLarge = errors.New("the answer is larger than the protocol needs")
)

// StatusError is an HTTP answer with an unexpected status.
type StatusError struct {
	// Status is the HTTP status.
	Status int
	// Host is the host that answered, with its port if that is not the default.
	Host string
	// Detail is the registry's own text, at most one line.
	Detail string
	// RetryAfter is the wait that the answer asks for; 0 if it asks for none.
	RetryAfter time.Duration
}

// Error returns the host, the status and the registry's own text.
func (e *StatusError) Error() string {
	text := e.Host + " answered " + strconv.Itoa(e.Status) + " " + http.StatusText(e.Status)
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}

// BadImage returns a [fault.BadImage] error about a part of the image, such as "manifest".
func BadImage(subject, format string, args ...any) error {
	return &fault.Error{Code: fault.BadImage, Op: "read", Subject: subject, Reason: fmt.Sprintf(format, args...),
		Remedy: "Build or push the image again; it cannot be used as it is"}
}

// DigestMismatch returns a [fault.Digest] error about a part of the image.
func DigestMismatch(subject string, want, got digest.Digest) error {
	return &fault.Error{Code: fault.Digest, Op: "verify", Subject: subject,
		Reason: fmt.Sprintf("its content has the digest %s, not %s", got, want),
		Remedy: "Pull again; if it stays so, the registry or a proxy in between changes content"}
}

// Containerd turns an error of one of containerd's services into a *fault.Error.
func Containerd(op, subject string, err error) error {
	f := &fault.Error{Code: fault.Internal, Op: op, Subject: subject, Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, ErrTotal):
		classifyContext(err, f)
	case errdefs.IsUnavailable(err), errors.Is(err, context.DeadlineExceeded):
		f.Code, f.Remedy = fault.Unreachable, "Check that containerd runs"
	case strings.Contains(err.Error(), syscall.ENOSPC.Error()): // over gRPC the text is all that is left
		f.Code, f.Reason, f.Remedy = fault.Space, "the store is full", "Remove images, or give the store more room"
	default:
		classifyStorage(err, f)
	}
	return f
}

// From returns err with the place that it comes from, such as "host registry.example:5000"
// or "store /var/lib/careen", unless its text has the name already. An error that is no
// *fault.Error is returned as it is.
func From(kind, name string, err error) error {
	var known *fault.Error
	if name == "" || !errors.As(err, &known) || strings.Contains(err.Error(), name) {
		return err
	}
	named := *known
	if named.Reason == "" && named.Err != nil {
		named.Reason = named.Err.Error()
	}
	if named.Reason == "" {
		named.Reason = kind + " " + name
	} else {
		named.Reason += " (" + kind + " " + name + ")"
	}
	if named.Err == nil {
		named.Err = err
	}
	return &named
}
