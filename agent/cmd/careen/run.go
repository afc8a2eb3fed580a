package main

import (
	"context"
	"fmt"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/node"
	"github.com/careen-project/careen/oci"
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

// runMode says which command requests a run.
type runMode struct {
	route string
	// plain leaves out what podman does not print: progress and summary.
	plain bool
}

// run is careen run and podman run.
func (a *app) run(ctx context.Context, words []string, mode runMode) error {
	caller := cli.Caller()
	run, err := oci.ParseRun(words, caller)
	if err != nil {
		return a.console.Shown(err, oci.ExitCode(err))
	}
	if run.Options.Help {
		fmt.Fprint(a.console.Out, commandHelp("run"))
		return nil
	}
	return a.withAgent(ctx, func(c *client.Client) error {
		req := api.RunRequest{
			Image: run.Image.Original, Command: run.Command, RunOptions: run.Pull().Words(), ExactOptions: true,
			Env: run.UsedEnviron(), WorkDir: caller.WorkDir, Route: mode.route, Stdin: run.Options.Interactive,
		}
		if run.Options.TTY {
			req.TerminalSize = a.console.TerminalSize()
		}
		return a.console.Attach(ctx, c, req, cli.Attachment{
			Plain: mode.plain, Quiet: run.Pull().Quiet || mode.plain, TTY: run.Options.TTY,
			Streams: run.Options.Attach, NoSignals: !run.Options.SigProxy,
		})
	})
}

// withAgent calls f with a client of the running agent. If there is none, this process
// is the agent until f and the runs of other clients have ended.
func (a *app) withAgent(ctx context.Context, f func(*client.Client) error) error {
	c := a.client()
	if client.Listening(a.socket) {
		return f(c)
	}
	if os.Geteuid() != 0 {
		return a.console.Shown(&fault.Error{Code: fault.Forbidden, Op: "start an agent for this run",
			Reason: "no agent listens on " + a.socket + ", and starting one needs root",
			Remedy: "Run as root, or start careen agent as root"}, cli.ExitUsage)
	}
	log := logrus.StandardLogger()
	log.SetLevel(logrus.ErrorLevel) // the command prints how its run ended
	log.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true, DisableColors: !a.console.Color()})
	opts := node.Defaults()
	opts.Socket, opts.Version = a.socket, version.Get()
	started, err := node.With(ctx, opts, log, func() error { return f(c) })
	if !started {
		return a.console.Shown(err, cli.ExitUsage)
	}
	return err
}
