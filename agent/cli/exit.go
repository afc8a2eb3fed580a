package cli

import (
	"errors"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Exit codes of the command line, podman's where it has them (podman-run(1),
// "Exit Status").
const (
	ExitOK = 0
	// ExitFailed: the command could not do what it was asked to.
	ExitFailed = 1
	// ExitUsage: bad options, or careen failed before a container ran.
	ExitUsage = 125
	// ExitDenied: the command in the image cannot be executed.
	ExitDenied = 126
	// ExitAbsent: the command is not in the image.
	ExitAbsent = 127
)

// ExitCode is an error that has been shown, or needs no message: it only decides the exit
// code.
type ExitCode int

func (c ExitCode) Error() string { return "" }

// Shown prints err and returns the exit code for it.
func (c *Console) Shown(err error, code int) error {
	c.Fail(err)
	return ExitCode(code)
}

// Exit shows how a command ended and returns its exit code.
func (c *Console) Exit(err error) int {
	var code ExitCode
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &code):
		return int(code)
	}
	c.Fail(err)
	if fault.CodeOf(err) == fault.BadOption {
		return ExitUsage
	}
	return ExitFailed
}

// refusedCode is podman's exit code for a failure before a container ran.
func refusedCode(err error) int {
	switch fault.CodeOf(err) {
	case fault.CommandAbsent:
		return ExitAbsent
	case fault.CommandDenied:
		return ExitDenied
	default:
		return ExitUsage
	}
}

// runCode is the exit code for a run that has ended.
func runCode(run api.Run) error {
	code := ExitUsage
	switch o := run.Outcome; {
	case o == nil:
	case o.ExitCode != nil && *o.ExitCode != 0:
		code = *o.ExitCode
	case run.State == api.Succeeded:
		return nil
	case o.ExitCode != nil:
		code = ExitFailed
	}
	return ExitCode(code)
}
