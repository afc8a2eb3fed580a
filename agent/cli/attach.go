package cli

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/fault"
)

// Attachment says how a run is shown.
type Attachment struct {
	// Plain leaves out what podman does not print: warnings and the summary.
	Plain bool
	// Quiet shows no progress of the pull.
	Quiet bool
	// TTY says that the container has a terminal.
	TTY bool
	// Streams are those of --attach; empty means all.
	Streams []string
	// NoSignals is --sig-proxy=false: a signal ends the command but not the container.
	NoSignals bool
}

// attached is one run that is shown.
type attached struct {
	*Console
	how      Attachment
	agent    *client.Client
	id       string
	progress *Progress
}

// Attach submits a run, shows it until it ends, and returns an [ExitCode] that is not 0,
// or nil. When ctx ends, the run is aborted and Attach waits for its end.
func (c *Console) Attach(ctx context.Context, agent *client.Client, req api.RunRequest, how Attachment) error {
	run, _, err := agent.Submit(ctx, req)
	if err != nil {
		return c.Shown(err, refusedCode(err))
	}
	a := &attached{Console: c, how: how, agent: agent, id: run.ID, progress: c.Progress(how.Quiet)}
	after := ctx
	if !how.NoSignals {
		after = context.WithoutCancel(ctx)
		stopAbort := context.AfterFunc(ctx, func() { a.abort(after) })
		defer stopAbort()
	}
	if how.TTY && IsTerminal(c.In) {
		defer c.rawTerminal(after, agent, run.ID)()
	}
	if req.Stdin {
		go a.sendInput(after)
	}
	var wg sync.WaitGroup
	wg.Go(func() { a.showEvents(after) })
	if err := a.showOutput(after); err != nil && ctx.Err() == nil {
		c.Fail(err)
	}
	wg.Wait()
	if err := agent.Reconnect(after, func() (err error) { run, err = agent.Wait(after, a.id); return err }); err != nil {
		return c.Shown(err, ExitUsage)
	}
	return c.Finish(run, how)
}

func (a *attached) abort(ctx context.Context) {
	_, err := a.agent.Abort(ctx, a.id, api.AbortRequest{Reason: "careen run was interrupted", Force: true, ClientGone: true})
	if err != nil {
		a.Fail(err)
	}
}

// showEvents shows progress and warnings until the run has ended.
func (a *attached) showEvents(ctx context.Context) {
	err := a.agent.Events(ctx, a.id, 0, func(e api.Event) error {
		switch {
		case e.Type == "pull":
			a.progress.Show(e.Pull)
		case e.Type == "warning" && !a.how.Quiet:
			a.progress.Clear()
			a.Warn(e.Message)
		case e.Type == "state" && e.State != api.Pulling:
			a.progress.Clear()
		}
		return nil
	})
	a.progress.Clear()
	// showOutput reconnects to an agent that was restarted.
	if err != nil && !errors.Is(err, context.Canceled) && fault.CodeOf(err) != fault.Unreachable {
		a.Fail(err)
	}
}

// showOutput copies the container's streams to those of this process. Control characters
// are sent to a terminal only if the container has a terminal.
func (a *attached) showOutput(ctx context.Context) error {
	return a.agent.FollowLogs(ctx, a.id, client.LogOptions{}, func(l api.LogLine, text []byte) error {
		a.progress.Clear()
		if l.Stream == "careen" {
			a.Warn(string(text))
			return nil
		}
		if len(a.how.Streams) > 0 && !slices.Contains(a.how.Streams, l.Stream) {
			return nil
		}
		out := a.Out
		if l.Stream == "stderr" {
			out = a.Err
		}
		if !a.how.TTY && IsTerminal(out) {
			text = []byte(Clean(string(text)))
		}
		if !l.Partial {
			text = append(text, '\n')
		}
		_, err := out.Write(text)
		return err
	})
}

// sendInput sends standard input to the container.
func (a *attached) sendInput(ctx context.Context) {
	// The agent refuses input until the container runs.
	for {
		run, err := a.agent.Run(ctx, a.id)
		if err != nil || run.State.Final() {
			return
		}
		if run.State == api.Running {
			break
		}
		if _, err := a.agent.WaitOnce(ctx, a.id, 100*time.Millisecond); err != nil {
			return
		}
	}
	if err := a.agent.Stdin(ctx, a.id, a.In, true); err != nil && fault.CodeOf(err) != fault.Conflict {
		a.Fail(err)
	}
}

// Finish prints how a run ended, unless its output says so, and returns an [ExitCode] that
// is not 0, or nil.
func (c *Console) Finish(run api.Run, how Attachment) error {
	if o := run.Outcome; o != nil {
		if run.State != api.Succeeded && !(how.Plain && o.Code == string(fault.Exit)) {
			c.failure(o.Message, o.Remedy)
		}
		if o.RebootRequested && !how.Plain {
			c.Warn("the container requests a reboot of the node: " + o.RebootReason)
		}
	}
	return runCode(run)
}
