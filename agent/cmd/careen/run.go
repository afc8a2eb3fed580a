package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/node"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
)

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run [podman run options] IMAGE [COMMAND [ARG...]]",
		Short: "Run a container and wait until it ends",
		Long: `Run a container with podman's options and exit with its exit code; with 125 if
careen failed, 126 if the command cannot be executed, 127 if it does not exist.

The output is shown as the container writes it. Interrupting the command (^C,
SIGTERM) ends the container: stop signal, grace period, SIGKILL.`,
		Example: `  careen run --rm registry.example/diag:1
  careen run --privileged -v /dev:/dev registry.example/fw-updater:2.1 flash --slot 2
  careen run --read-only --network=none --memory=512m registry.example/scan:3`,
		// The options are podman's, read by package oci.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd.Context(), args, runMode{route: "cli"})
		},
	}
}

// runMode is how a run was asked for.
type runMode struct {
	route string
	// plain leaves out what podman does not print: progress and summary.
	plain bool
}

// run is careen run and podman run.
func (a *app) run(ctx context.Context, words []string, mode runMode) error {
	caller := localCaller()
	run, err := oci.ParseRun(words, caller)
	if err != nil {
		a.console.fail(err)
		return exitCode(oci.ExitCode(err))
	}
	if run.Options.Help {
		fmt.Fprint(a.console.out, commandHelp("run"))
		return nil
	}
	return a.withAgent(ctx, func(c *client.Client) error {
		req := api.RunRequest{
			Image: run.Image.Original, Command: run.Command, RunOptions: run.Pull().Words(), ExactOptions: true,
			Env: run.UsedEnviron(), WorkDir: caller.WorkDir, Route: mode.route, Stdin: run.Options.Interactive,
		}
		if run.Options.TTY {
			req.TerminalSize = a.console.terminalSize()
		}
		return a.attach(ctx, c, req, attachment{
			plain: mode.plain, quiet: run.Pull().Quiet || mode.plain, tty: run.Options.TTY,
			streams: run.Options.Attach, deaf: !run.Options.SigProxy,
		})
	})
}

// localCaller is this process as options see it.
func localCaller() oci.Caller {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	environ := map[string]string{}
	for _, pair := range os.Environ() {
		if key, value, ok := strings.Cut(pair, "="); ok {
			environ[key] = value
		}
	}
	return oci.Caller{Host: rootfs.Host(), Environ: environ, WorkDir: dir}
}

// withAgent calls f with a client of the running agent. If there is none, this process
// is the agent until f and the runs of other clients have ended.
func (a *app) withAgent(ctx context.Context, f func(*client.Client) error) error {
	c := a.client()
	if client.Listening(a.socket) {
		return f(c)
	}
	if os.Geteuid() != 0 {
		a.console.fail(&fault.Error{Code: fault.Forbidden, Op: "start an agent for this run",
			Reason: "none answers on " + a.socket + ", and starting one needs root", Remedy: "Run as root, or start careen agent as root"})
		return exitCode(exitUsage)
	}
	log := logrus.StandardLogger()
	log.SetLevel(logrus.ErrorLevel) // the command itself says how its run ended
	log.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true, DisableColors: !a.console.color})
	opts := node.Defaults()
	opts.Socket, opts.Version = a.socket, version.Get()
	started, err := node.With(ctx, opts, log, func() error { return f(c) })
	if !started {
		a.console.fail(err)
		return exitCode(exitUsage)
	}
	return err
}

// attachment is how a run's output is shown.
type attachment struct {
	plain, quiet, tty bool
	// streams are those of --attach; empty means all.
	streams []string
	// deaf is --sig-proxy=false: a signal ends this command but not the container.
	deaf bool
}

func (how attachment) shows(stream string) bool {
	return len(how.streams) == 0 || slices.Contains(how.streams, stream)
}

// attach submits a run, shows it as it goes, and returns its exit code.
func (a *app) attach(ctx context.Context, c *client.Client, req api.RunRequest, how attachment) error {
	run, _, err := c.Submit(ctx, req)
	if err != nil {
		a.console.fail(err)
		return exitCode(codeFor(err))
	}
	// The run outlives this command's context: it is aborted, and waited for.
	after := context.WithoutCancel(ctx)
	if how.deaf {
		after = ctx
	}
	stopAbort := context.AfterFunc(ctx, func() {
		if how.deaf {
			return
		}
		if _, err := c.Abort(after, run.ID, api.AbortRequest{Reason: "careen run was interrupted", Force: true, ClientGone: true}); err != nil {
			a.console.fail(err)
		}
	})
	defer stopAbort()
	if how.tty && isTerminal(a.console.in) {
		restore := a.rawTerminal(after, c, run.ID)
		defer restore()
	}
	if req.Stdin {
		go a.feed(after, c, run.ID)
	}
	show := &progress{c: a.console, quiet: how.quiet}
	var wg sync.WaitGroup
	wg.Go(func() { a.showEvents(after, c, run.ID, show) })
	if err := a.copyLogs(after, c, run.ID, show, how); err != nil && ctx.Err() == nil {
		a.console.fail(err)
	}
	wg.Wait()
	id := run.ID
	if err := c.Reconnect(after, func() (err error) { run, err = c.Wait(after, id); return err }); err != nil {
		a.console.fail(err)
		return exitCode(exitUsage)
	}
	return a.finish(run, how)
}

// showEvents shows progress and warnings until the run has ended.
func (a *app) showEvents(ctx context.Context, c *client.Client, id string, show *progress) {
	err := c.Events(ctx, id, 0, func(e api.Event) error {
		switch e.Type {
		case "pull":
			show.show(e.Pull)
		case "warning":
			if !show.quiet {
				show.clear()
				a.console.warn(e.Message)
			}
		case "state":
			if e.State != api.Pulling {
				show.clear()
			}
		}
		return nil
	})
	show.clear()
	// copyLogs reconnects to an agent that was restarted.
	if err != nil && !errors.Is(err, context.Canceled) && fault.CodeOf(err) != fault.Unreachable {
		a.console.fail(err)
	}
}

// copyLogs copies the container's streams to those of this process. Control characters
// are sent to a terminal only if the container has a terminal.
func (a *app) copyLogs(ctx context.Context, c *client.Client, id string, show *progress, how attachment) error {
	return c.FollowLogs(ctx, id, client.LogOptions{}, func(l api.LogLine, text []byte) error {
		show.clear()
		out := a.console.out
		if l.Stream == "stderr" {
			out = a.console.err
		}
		if l.Stream == "careen" {
			a.console.warn(string(text))
			return nil
		}
		if !how.shows(l.Stream) {
			return nil
		}
		if !how.tty && isTerminal(out) {
			text = []byte(clean(string(text)))
		}
		if !l.Partial {
			text = append(text, '\n')
		}
		_, err := out.Write(text)
		return err
	})
}

// finish prints how a run ended, unless its output says so, and returns the exit code.
func (a *app) finish(run api.Run, how attachment) error {
	o := run.Outcome
	if o == nil {
		return exitCode(exitUsage)
	}
	if run.State != api.Succeeded && !(how.plain && o.Code == string(fault.Exit)) {
		a.console.fail(errors.New(clean(o.Message)))
		if o.Remedy != "" {
			fmt.Fprintf(a.console.err, "  %s\n", clean(o.Remedy))
		}
	}
	if o.RebootRequested && !how.plain {
		a.console.warn("the container requests a reboot of the node: " + o.RebootReason)
	}
	switch {
	case o.ExitCode != nil:
		if *o.ExitCode == 0 && run.State == api.Succeeded {
			return nil
		}
		if *o.ExitCode != 0 {
			return exitCode(*o.ExitCode)
		}
		return exitCode(exitFailed)
	case run.State == api.Succeeded:
		return nil
	default:
		return exitCode(exitUsage)
	}
}

// codeFor is podman's exit code for a failure before a container ran.
func codeFor(err error) int {
	switch fault.CodeOf(err) {
	case fault.CommandAbsent:
		return exitAbsent
	case fault.CommandDenied:
		return exitDenied
	default:
		return exitUsage
	}
}

// feed sends standard input to the container.
func (a *app) feed(ctx context.Context, c *client.Client, id string) {
	// The container's input exists once it runs; before, the agent refuses it.
	for {
		run, err := c.Run(ctx, id)
		if err != nil || run.State.Final() {
			return
		}
		if run.State == api.Running {
			break
		}
		if _, err := c.WaitOnce(ctx, id, 100*time.Millisecond); err != nil {
			return
		}
	}
	if err := c.Stdin(ctx, id, a.console.in, true); err != nil && fault.CodeOf(err) != fault.Conflict {
		a.console.fail(err)
	}
}

func (c *console) terminalSize() *api.TerminalSize {
	size, err := unix.IoctlGetWinsize(int(c.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return nil
	}
	return &api.TerminalSize{Columns: size.Col, Rows: size.Row}
}
