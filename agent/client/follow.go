package client

import (
	"context"
	"strings"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// reconnectTime bounds how long [Client.Reconnect] waits for an agent. The node's init
// restarts an agent within seconds, and its containers run on meanwhile.
const reconnectTime = 60 * time.Second

// Listening reports whether an agent listens on socket.
func Listening(socket string) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	return syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}) == nil
}

// Reconnect calls f, and calls it again each time that the agent went away and another
// one listens within a minute. f must be safe to repeat. It returns the last error of f.
func (c *Client) Reconnect(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || ctx.Err() != nil || fault.CodeOf(err) != fault.Unreachable || !c.waitListening(ctx) {
			return err
		}
	}
}

func (c *Client) waitListening(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, reconnectTime)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			if Listening(c.socket) {
				return true
			}
		}
	}
}

// FollowLogs is [Client.Logs] until the run has ended. It continues after the last line
// when the agent is restarted. Errors have the codes of Logs, [fault.Unreachable] if no
// agent came back, and those of fn.
func (c *Client) FollowLogs(ctx context.Context, id string, opts LogOptions, fn func(l api.LogLine, text []byte) error) error {
	opts.Follow = true
	return c.Reconnect(ctx, func() error {
		err := c.Logs(ctx, id, opts, func(l api.LogLine, text []byte) error {
			if l.Cursor != "" {
				opts.After, opts.Tail = l.Cursor, nil
			}
			return fn(l, text)
		})
		if err != nil {
			return err
		}
		// An agent that stops closes the stream in good order, too.
		run, err := c.Run(ctx, id)
		if err == nil && !run.State.Final() {
			return &fault.Error{Code: fault.Unreachable, Op: "read the output of run", Subject: id,
				Reason: "the agent closed the log stream early", Remedy: "Start careen agent again"}
		}
		return err
	})
}

// ResolveID returns the id of the run that given stands for: an id, the name of --name
// (the newest run of that name), or a prefix of exactly one id. Errors have the code
// [fault.NotFound] if no run, or more than one, matches.
func (c *Client) ResolveID(ctx context.Context, given string) (string, error) {
	_, err := c.Run(ctx, given)
	if fault.CodeOf(err) != fault.NotFound {
		return given, err
	}
	runs, listErr := c.Runs(ctx)
	if listErr != nil {
		return "", listErr
	}
	named := ""
	var matches []string
	for _, run := range runs {
		if run.Name == given {
			named = run.ID // the newest comes last, whatever the clock did
		}
		if strings.HasPrefix(run.ID, given) {
			matches = append(matches, run.ID)
		}
	}
	switch {
	case named != "":
		return named, nil
	case len(matches) == 1:
		return matches[0], nil
	case len(matches) > 1:
		return "", &fault.Error{Code: fault.NotFound, Op: "find run", Subject: given,
			Reason: "ambiguous id prefix: " + strings.Join(matches[:min(len(matches), 4)], ", "), Remedy: "Use a longer prefix"}
	}
	return "", err
}
