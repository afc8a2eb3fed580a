package oci

import (
	"errors"
	"fmt"
	"strings"

	"github.com/careen-project/careen/agent/fault"
)

// Exit codes of podman run for failures of the engine itself.
const (
	// ExitEngine is any failure before the container is set up: parsing,
	// validation, pulling.
	ExitEngine = 125
	// ExitDenied is a failure that needs the image's files to be noticed: an
	// unknown user or group, a missing working directory; and a command that
	// cannot be executed.
	ExitDenied = 126
	// ExitAbsent is a command that is not in the image.
	ExitAbsent = 127
)

// exitAttr is the member of fault.Error.Attrs that carries an exit code which
// does not follow from the error's code.
const exitAttr = "exit_code"

// Errors are all problems of one set of options: first those of single words, then those
// of values and combinations. It is never empty when it is returned as an error. errors.As finds the first
// [fault.Error], so fault.CodeOf works on it.
type Errors []*fault.Error

// Error returns one sentence for each error, joined by "; ".
func (e Errors) Error() string {
	parts := make([]string, len(e))
	for i, err := range e {
		parts[i] = err.Error()
		if i < len(e)-1 && err.Remedy != "" {
			parts[i] += " (" + err.Remedy + ")"
		}
	}
	return strings.Join(parts, "; ")
}

// RemedyOfAll returns the remedy of the last error; the text has the remedies of the
// others. fault.RemedyOf calls it.
func (e Errors) RemedyOfAll() string {
	if len(e) == 0 {
		return ""
	}
	return e[len(e)-1].Remedy
}

// Unwrap returns the errors one by one.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, err := range e {
		list[i] = err
	}
	return list
}

// err returns e as an error, nil when it is empty.
func (e Errors) err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// ExitCode returns the exit code of podman run for err: 125 for
// options, 126 for an unknown user or group and a missing working directory or a
// command that cannot be executed, 127 for a missing command, 0 for nil.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	code := 0
	for _, e := range faults(err) {
		if one := exitOf(e); code == 0 || one < code {
			code = one // podman checks options before the image's files
		}
	}
	return max(code, ExitEngine)
}

func exitOf(e *fault.Error) int {
	if code, ok := e.Attrs[exitAttr].(int); ok {
		return code
	}
	switch e.Code {
	case fault.CommandAbsent:
		return ExitAbsent
	case fault.CommandDenied:
		return ExitDenied
	}
	return ExitEngine
}

// faults returns the outermost fault.Error of every branch of err's tree.
func faults(err error) []*fault.Error {
	var all Errors
	if errors.As(err, &all) {
		return all
	}
	var one *fault.Error
	if errors.As(err, &one) {
		return []*fault.Error{one}
	}
	return nil
}

// badOption makes the error for a value that podman refuses too.
func badOption(written, reason, example string) *fault.Error {
	return &fault.Error{
		Code: fault.BadOption, Op: "accept option", Subject: shorten(written), Reason: reason,
		Remedy: useExample(example),
	}
}

// unsupported makes the error for an option or value that careen refuses by name.
func unsupported(written, reason, remedy string) *fault.Error {
	return &fault.Error{
		Code: fault.Unsupported, Op: "accept option", Subject: shorten(written), Reason: reason, Remedy: asSentence(remedy),
	}
}

// asSentence begins text with a capital letter, as remedies do; the option table has
// them in the middle of a row.
func asSentence(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func useExample(example string) string {
	if example == "" {
		return "See careen run --help"
	}
	return "Write it like " + example
}

// asFault returns err as a fault.Error, wrapping it as a bad option if it is none.
func asFault(err error, written, example string) *fault.Error {
	var e *fault.Error
	if errors.As(err, &e) {
		return e
	}
	f := badOption(written, err.Error(), example)
	f.Err = err
	return f
}

// shorten cuts a long value for an error text.
func shorten(s string) string {
	const limit = 240
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}

// quote shortens and quotes a value for an error text.
func quote(s string) string { return fmt.Sprintf("%q", shorten(s)) }
