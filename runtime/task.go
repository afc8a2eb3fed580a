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
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

// Start runs the container's command and returns the pid of its first process. A
// container starts at most once. Errors are command_absent, command_denied, runtime or
// unreachable (an external containerd).
func (e *Engine) Start(ctx context.Context, c container.Container) (int, error) {
	pid, err := e.tasks.start(e.context(ctx), c.ID)
	if err != nil {
		return 0, startError(c.Run, "", err)
	}
	return pid, nil
}

// Wait returns how the container ended, once its output is on record. The error is
// that of ctx, or lost: how the container ended will never be known.
func (e *Engine) Wait(ctx context.Context, c container.Container) (container.Exit, error) {
	ctx = e.context(ctx)
	err := e.tasks.wait(ctx, c.ID, c.Dir)
	if ctx.Err() != nil {
		return container.Exit{}, ctx.Err()
	}
	// The shim's record says more than containerd's status, and it is there even
	// if the shim or containerd is not.
	exit, rerr := container.Dir(c.Dir).ReadExit(c.ID)
	if rerr == nil {
		return exit, nil
	}
	if err == nil {
		err = container.ErrLost
	}
	return exit, &fault.Error{Code: fault.Lost, Op: "learn the end of container", Subject: c.ID, Err: err,
		Reason: "no process saw it: " + err.Error(),
		Remedy: "Check on the node what it did before running it again"}
}

// Signal sends a signal to the container's first process, or to all of them. A
// container that has ended is no error. Errors are runtime or unreachable (an external
// containerd).
func (e *Engine) Signal(ctx context.Context, c container.Container, sig syscall.Signal, all bool) error {
	err := e.tasks.kill(e.context(ctx), c.ID, c.Dir, sig, all)
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil
	}
	return runtimeError(fmt.Sprintf("send %s to container", unix.SignalName(sig)), c.ID, err)
}

// Resize sets the size of the container's terminal in characters. Errors are conflict (the
// container has ended, or has no terminal), runtime or unreachable (an external containerd).
func (e *Engine) Resize(ctx context.Context, c container.Container, size api.TerminalSize) error {
	const op = "resize the terminal of"
	err := e.tasks.resize(e.context(ctx), c.ID, size.Columns, size.Rows)
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err) || hasEnded(c):
		return ended(op, c.ID)
	case errdefs.IsFailedPrecondition(err):
		return &fault.Error{Code: fault.Conflict, Op: op, Subject: c.ID, Err: err,
			Reason: "the container has none", Remedy: "Start it with --tty"}
	}
	return runtimeError(op, c.ID, err)
}

// hasEnded reports whether the end of a container is on record, or is known to be lost.
func hasEnded(c container.Container) bool {
	_, err := container.Dir(c.Dir).ReadExit(c.ID)
	return err == nil || errors.Is(err, container.ErrLost)
}

// ended is the error for a request that came after the container's end.
func ended(op, id string) error {
	return &fault.Error{Code: fault.Conflict, Op: op, Subject: id, Reason: "the container has ended"}
}

// Stdin opens the container's standard input. Closing it ends that input. A Write
// blocks while the container does not read. Errors are conflict (the container has ended,
// or has no standard input) or runtime.
func (e *Engine) Stdin(ctx context.Context, c container.Container) (io.WriteCloser, error) {
	const op = "write to standard input of"
	id := c.ID
	if hasEnded(c) {
		return nil, ended(op, id)
	}
	// Without blocking: the shim may be gone, and no process reads then.
	file, err := os.OpenFile(container.Dir(c.Dir).Stdin(), os.O_WRONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &fault.Error{Code: fault.Conflict, Op: op, Subject: id,
			Reason: "the container has none", Remedy: "Start it with --interactive"}
	case err != nil:
		return nil, runtimeError(op, id, err)
	}
	return &stdin{File: file, closed: func() error {
		err := e.tasks.closeStdin(e.context(context.WithoutCancel(ctx)), id)
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

// Existing lists careen's containers, for an agent that has been restarted. Errors are
// runtime or unreachable (an external containerd).
func (e *Engine) Existing(ctx context.Context) ([]container.Existing, error) {
	ctx = e.context(ctx)
	all, err := e.client.ContainerService().List(ctx, "labels."+strconvQuote(labelRun))
	if err != nil {
		return nil, runtimeError("list containers of", Namespace, err)
	}
	found := make([]container.Existing, len(all))
	var wg sync.WaitGroup // a shim that does not answer takes seconds
	for i, c := range all {
		wg.Go(func() {
			found[i] = e.existing(ctx, container.Container{Run: c.Labels[labelRun], ID: c.ID, Dir: c.Labels[labelDir]})
		})
	}
	wg.Wait()
	return found, nil
}

func (e *Engine) existing(ctx context.Context, c container.Container) container.Existing {
	state, pid, err := e.tasks.state(ctx, c.ID, c.Dir)
	if err != nil {
		// A container without a shim has ended; its directory says how.
		state, pid = container.StateStopped, 0
	}
	found := container.Existing{Container: c, State: state, Pid: pid}
	if exit, err := container.Dir(c.Dir).ReadExit(c.ID); err == nil {
		found.Exit = &exit
	}
	return found
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
