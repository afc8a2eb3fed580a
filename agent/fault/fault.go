package fault

import (
	"context"
	"errors"
	"maps"
	"strings"
	"unicode"
)

// Code is a stable, machine-readable class of failure, in lower snake case. A
// code that has been released is never renamed or reused.
type Code string

// The codes, grouped by the part of careen that finds the failure.
const (
	// Requests and policy.
	BadRequest   Code = "bad_request"   // a body, query or identifier that cannot be read
	BadOption    Code = "bad_option"    // a run or pull option with a value that podman would refuse too
	Unsupported  Code = "unsupported"   // an option or feature that careen refuses by name
	BadReference Code = "bad_reference" // an image reference that cannot be parsed
	BadSteps     Code = "bad_steps"     // a steps file that is not valid
	BadConfig    Code = "bad_config"    // a configuration that is not valid
	Policy       Code = "policy"        // refused by the container policy
	NotFound     Code = "not_found"     // no such run, step or image
	Conflict     Code = "conflict"      // the state of the run or image does not allow it
	Busy         Code = "busy"          // another run holds the slot and the queue is full
	Forbidden    Code = "forbidden"     // the peer may not use the socket

	// Pulling.
	Network       Code = "network"         // connection refused, reset, unreachable
	DNS           Code = "dns"             // the registry's name does not resolve
	TLSCA         Code = "tls_ca"          // certificate signed by an unknown authority
	TLS           Code = "tls"             // any other TLS failure, plain HTTP included
	Clock         Code = "clock"           // certificate not valid at the node's clock
	Proxy         Code = "proxy"           // the proxy refused or cannot be reached
	Auth          Code = "auth"            // 401 or 403
	ImageNotFound Code = "image_not_found" // 404, manifest unknown, or absent with --pull=never
	RateLimited   Code = "rate_limited"    // 429 after all retries
	Registry      Code = "registry"        // 5xx or an answer that is not the protocol's
	Stalled       Code = "stalled"         // no bytes for the stall limit
	Digest        Code = "digest_mismatch" // content that is not what its digest says
	BadImage      Code = "bad_image"       // manifest, config or layer that is malformed or hostile
	Platform      Code = "platform"        // no image for the node's architecture
	Space         Code = "space"           // the store is too small
	Memory        Code = "memory"          // the node has too little memory

	// Running.
	Node          Code = "node"           // the node lacks what containers need
	Requirement   Code = "requirement"    // the node lacks what the image requires
	Runtime       Code = "runtime"        // the container cannot be created or started
	CommandAbsent Code = "command_absent" // the command is not in the image (exit code 127)
	CommandDenied Code = "command_denied" // the command cannot be executed (exit code 126)
	Unreachable   Code = "unreachable"    // the agent or containerd does not answer

	// Outcomes of a container that did run.
	Exit           Code = "exit"            // ended with a code other than 0
	Signalled      Code = "signalled"       // ended by a signal that careen did not send
	OOM            Code = "oom"             // killed for exceeding its memory
	Timeout        Code = "timeout"         // the step's time limit
	SilenceTimeout Code = "silence_timeout" // no output for the limit
	Aborted        Code = "aborted"         // a client asked for it
	ClientGone     Code = "client_gone"     // the command line that waited for the run was interrupted
	AgentStopped   Code = "agent_stopped"   // the agent stopped, and ends its runs
	NodeShutdown   Code = "node_shutdown"   // the node goes down
	Stuck          Code = "stuck"           // survived SIGKILL
	Lost           Code = "lost"            // how it ended cannot be known
	RebootPending  Code = "reboot_pending"  // no run starts before the reboot

	Internal Code = "internal" // a defect in careen
)

// Transient reports whether the same call may succeed later with nothing changed.
func (c Code) Transient() bool {
	switch c {
	case Network, DNS, RateLimited, Registry, Stalled, Unreachable, Busy, Proxy:
		return true
	default:
		return false
	}
}

// Error is a failure as an operator should see it.
type Error struct {
	// Code is the stable class.
	Code Code
	// Op says what was being done, as in "pull image" (no "cannot", no colon).
	Op string
	// Subject says on what, as in "registry.example/fw:1" or "--memory=1x".
	Subject string
	// Err is the cause. It may be nil when Op and Reason say all.
	Err error
	// Reason is the cause in words, used instead of Err's text where that text
	// would not help an operator. Err stays available to errors.Is and As.
	Reason string
	// Remedy says what to do next, as a full sentence without a final stop.
	Remedy string
	// Attrs holds figures a program may want, such as "needed_bytes".
	Attrs map[string]any
}

// Error returns "cannot OP SUBJECT: CAUSE". The remedy is not part of it; see [Line].
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("cannot ")
	b.WriteString(e.Op)
	if e.Subject != "" {
		b.WriteString(" ")
		b.WriteString(e.Subject)
	}
	switch {
	case e.Reason != "":
		b.WriteString(": " + e.Reason)
	case e.Err != nil:
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the outermost [Error] in err's tree. A cancelled
// context is [Aborted], an expired one [Timeout], anything else [Internal], and
// nil has the empty code.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.Canceled):
		return Aborted
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	default:
		return Internal
	}
}

// RemedyOf returns the outermost remedy in err's tree, or "". A list of errors whose text
// has their remedies may have a method RemedyOfAll, which returns the remedy to show.
func RemedyOf(err error) string {
	for err != nil {
		if list, ok := err.(interface{ RemedyOfAll() string }); ok {
			return list.RemedyOfAll()
		}
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Remedy != "" {
			return e.Remedy
		}
		err = e.Err
	}
	return ""
}

// The attributes that a problem document has members for.
const (
	AttrField     = "field"      // the member of a body or parameter of a query that is wrong
	AttrHolder    = "holder"     // the id of the run that is in the way
	AttrQueueFull = "queue_full" // whether there is a queue, and it is full
	AttrStatus    = "status"     // the HTTP status, where it is not the code's
)

// BadField refuses one member of a body or one parameter of a query: a [BadRequest].
func BadField(field, reason string) error {
	return &Error{Code: BadRequest, Op: "read", Subject: field, Reason: reason, Attrs: map[string]any{AttrField: field}}
}

// AttrsOf returns a copy of the attributes of the outermost [Error] in err's tree that
// has some, nil if none has.
func AttrsOf(err error) map[string]any {
	var e *Error
	for errors.As(err, &e) {
		if len(e.Attrs) > 0 {
			return maps.Clone(e.Attrs)
		}
		err = e.Err
	}
	return nil
}

// Line returns err and its remedy on one line, as the conductor shows it:
// "cannot pull image X: no route to host. Check the node's network".
func Line(err error) string {
	if err == nil {
		return ""
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if remedy := RemedyOf(err); remedy != "" {
		text = strings.TrimRight(text, ".") + ". " + remedy
	}
	return text
}

// MaxLine is a limit for [OneLine] where no shorter one is needed: 2,000 bytes.
const MaxLine = 2000

// OneLine makes foreign text fit for a message: valid UTF-8, printable characters
// only, one space between words, and at most limit bytes before a mark "..." that
// says that the text goes on.
func OneLine(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > limit {
		text = strings.TrimRight(strings.ToValidUTF8(text[:limit], ""), " ") + "..."
	}
	return text
}
