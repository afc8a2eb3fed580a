package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

// Start runs the container's command and returns the pid of its first process.
func (e *Engine) Start(ctx context.Context, id string) (int, error) {
	pid, err := e.keeper.start(e.context(ctx), id)
	if err != nil {
		return 0, startError(id, "", err)
	}
	return pid, nil
}

// Wait returns when the container has ended and its output is on record. An
// error means that nobody knows how it ended, or that ctx is done; the container
// may then still run.
func (e *Engine) Wait(ctx context.Context, id, dir string) (container.Exit, error) {
	ctx = e.context(ctx)
	err := e.keeper.wait(ctx, id, dir)
	if ctx.Err() != nil {
		return container.Exit{}, ctx.Err()
	}
	// The shim's record says more than containerd's status, and it is there even
	// if the shim or containerd is not.
	exit, rerr := container.Dir(dir).ReadExit(id)
	if rerr == nil {
		return exit, nil
	}
	if err == nil {
		err = container.ErrLost
	}
	return exit, &fault.Error{Code: fault.Lost, Op: "learn how container", Subject: id, Err: err,
		Reason: "nobody saw its end: " + err.Error(),
		Remedy: "Check on the node what it did before running it again"}
}

// Signal sends a signal to the container's first process, or to all of them. A
// container that has ended is no error.
func (e *Engine) Signal(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	err := e.keeper.kill(e.context(ctx), id, sig, all)
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil
	}
	return runtimeError(fmt.Sprintf("send %s to container", unix.SignalName(sig)), id, err)
}

// Resize sets the size of the container's terminal in characters.
func (e *Engine) Resize(ctx context.Context, id string, columns, rows uint16) error {
	return runtimeError("resize the terminal of", id, e.keeper.resize(e.context(ctx), id, columns, rows))
}

// Stdin returns what feeds the container's standard input; closing it is the
// end of that input. A Write blocks while the container does not read.
func (e *Engine) Stdin(ctx context.Context, id, dir string) (io.WriteCloser, error) {
	// Not blocking: the shim holds the other end, or nobody does.
	file, err := os.OpenFile(container.Dir(dir).Stdin(), os.O_WRONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &fault.Error{Code: fault.Conflict, Op: "write to standard input of", Subject: id,
			Reason: "the container has none", Remedy: "Start it with --interactive"}
	case err != nil:
		return nil, runtimeError("write to standard input of", id, err)
	}
	return &stdin{File: file, closed: func() error {
		err := e.keeper.endInput(e.context(context.WithoutCancel(ctx)), id)
		if errdefs.IsNotFound(err) {
			return nil // ended by itself
		}
		return err
	}}, nil
}

type stdin struct {
	*os.File
	closed func() error
}

// Close ends the input after what has been written.
func (s *stdin) Close() error { return errors.Join(s.File.Close(), s.closed()) }

// Existing is a container that containerd knows.
type Existing struct {
	ID, RunID, Dir string
	Pid            int
	// Running is false for one that ended or that was never started.
	Running bool
	// Created says that it was created and never started.
	Created bool
}

// Existing lists careen's containers, for an agent that has been restarted.
func (e *Engine) Existing(ctx context.Context) ([]Existing, error) {
	ctx = e.context(ctx)
	all, err := e.client.ContainerService().List(ctx, "labels."+strconvQuote(labelRun))
	if err != nil {
		return nil, runtimeError("list containers of", Namespace, err)
	}
	var out []Existing
	for _, c := range all {
		// Without a shim it has ended; how is in its directory.
		found, err := e.keeper.look(ctx, c.ID, c.Labels[labelDir])
		if err != nil {
			found = Existing{}
		}
		found.ID, found.RunID, found.Dir = c.ID, c.Labels[labelRun], c.Labels[labelDir]
		out = append(out, found)
	}
	return out, nil
}

func strconvQuote(label string) string { return `"` + label + `"` }

// missing and denied are how libcontainer's init reports a command that cannot
// be executed; it passes on os/exec's words.
var (
	missing = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`exec: "([^"]*)": (executable file not found in \$PATH|stat .*: no such file or directory)|exec: ([^:]*): no such file`)
	})
	denied = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`exec: "[^"]*": (permission denied|is a directory)|exec format error`)
	})
)

// startError sorts a failure to create or start by whose it is.
func startError(run, command string, err error) error {
	text := firstCause(err)
	switch {
	case missing().MatchString(text) || strings.Contains(text, "no such file or directory") && strings.Contains(text, "exec "):
		return &fault.Error{Code: fault.CommandAbsent, Op: "run", Subject: command, Err: err,
			Reason: "the image has no such command", Remedy: "Check the command, --entrypoint, and PATH in the image"}
	case denied().MatchString(text):
		return &fault.Error{Code: fault.CommandDenied, Op: "run", Subject: command, Err: err,
			Reason: "it cannot be executed: " + text, Remedy: "Check that it is an executable for this machine's architecture"}
	}
	return runtimeError("start container", run, err)
}

// firstCause strips what the layers between put before libcontainer's words.
func firstCause(err error) string {
	text := err.Error()
	if _, cause, ok := strings.Cut(text, "error during container init: "); ok {
		return cause
	}
	return text
}

func consoleSize(columns, rows uint16) *specs.Box {
	return &specs.Box{Width: uint(columns), Height: uint(rows)}
}
