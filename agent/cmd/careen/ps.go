package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/client"
)

func (a *app) psCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "ps", Short: "List active runs; with --all also ended ones", Args: cobra.NoArgs,
		Example: "  careen ps --all\n  careen ps -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			runs, err := a.client().Runs(cmd.Context())
			if err != nil {
				return err
			}
			shown := []api.Run{}
			for _, run := range runs {
				if all || !run.State.Final() {
					shown = append(shown, run)
				}
			}
			return show(a, shown, (*cli.Console).Runs)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "include runs that have ended")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) inspectCommand() *cobra.Command {
	var spec bool
	cmd := &cobra.Command{
		Use: "inspect RUN", Short: "Show a run in full, as JSON", Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(cli.Runs),
		Example: "  careen inspect RUN\n  careen inspect --spec RUN",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			if spec {
				doc, err := a.client().Spec(ctx, id)
				if err != nil {
					return err
				}
				return a.console.JSON(doc)
			}
			run, err := a.client().Run(ctx, id)
			if err != nil {
				return err
			}
			return a.console.JSON(run)
		}),
	}
	cmd.Flags().BoolVar(&spec, "spec", false, "show the runtime-spec of its container instead")
	return cmd
}

func (a *app) logsCommand() *cobra.Command {
	var (
		opts       client.LogOptions
		tail       int
		timestamps bool
		raw        bool
		cmd        *cobra.Command
	)
	cmd = &cobra.Command{
		Use: "logs [flags] RUN", Short: "Show the output of a run", Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(cli.Runs),
		Long: `Show the output of a run's container, during and after the run. On a terminal,
control characters are shown in escaped form; with --raw they are sent as they are.`,
		Example: "  careen logs -f RUN\n  careen logs --tail 20 --stream stderr RUN",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			if cmd.Flags().Changed("tail") {
				opts.Tail = &tail
			}
			return a.console.Logs(ctx, a.client(), id, opts, timestamps, raw)
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&opts.Follow, "follow", "f", false, "follow the output until the run has ended")
	f.IntVar(&tail, "tail", 0, "`N` show only this many lines from the end")
	f.StringVar(&opts.Stream, "stream", "", "`stdout|stderr` show only this stream [both]")
	completeFlag(cmd, "stream", "stdout", "stderr")
	f.BoolVarP(&timestamps, "timestamps", "t", false, "print time and stream before each line")
	f.BoolVar(&raw, "raw", false, "send control characters to the terminal as they are")
	return cmd
}

func (a *app) eventsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "events RUN", Short: "Follow the events of a run, one JSON document per line", Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(cli.Runs),
		Example: "  careen events RUN",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			return a.client().Events(ctx, id, 0, func(e api.Event) error { return a.console.JSONLine(e) })
		}),
	}
}

func (a *app) waitCommand() *cobra.Command {
	wait := a.ofRun(func(ctx context.Context, id string) error {
		run, err := a.client().Wait(ctx, id)
		if err != nil {
			return err
		}
		err = show(a, run, func(c *cli.Console, run api.Run) { fmt.Fprintln(c.Out, run.State) })
		if err != nil {
			return err
		}
		return a.console.Finish(run, cli.Attachment{})
	})
	cmd := &cobra.Command{
		Use: "wait RUN", Short: "Wait for the end of a run and exit with its exit code", Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(cli.Runs),
		Example: "  careen wait RUN\n  careen wait -o json RUN",
		Long: `Wait for the end of a run and exit with its exit code, or with 125 if the
exit code is not known.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := wait(cmd, args)
			var code cli.ExitCode
			if err != nil && !errors.As(err, &code) {
				return a.console.Shown(err, cli.ExitUsage)
			}
			return err
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) abortCommand() *cobra.Command {
	var req api.AbortRequest
	cmd := &cobra.Command{
		Use: "abort RUN", Short: "End a run: stop signal, grace period, SIGKILL", SuggestFor: []string{"stop", "kill"}, Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(cli.Runs),
		Example: "  careen abort RUN\n  careen abort --reason 'wrong firmware' --grace 60s RUN",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			run, err := a.client().Abort(ctx, id, req)
			if err == nil {
				fmt.Fprintln(a.console.Out, run.State)
			}
			return err
		}),
	}
	f := cmd.Flags()
	f.StringVar(&req.Reason, "reason", "", "`TEXT` the reason, for the audit record")
	f.StringVar(&req.Grace, "grace", "", "`DURATION` time between stop signal and SIGKILL [the step's]")
	f.BoolVar(&req.Force, "force", false, "abort also a step that is not abortable")
	return cmd
}

func (a *app) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm RUN...", Short: "Delete ended runs and their output", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.complete(cli.Runs),
		Example: "  careen rm RUN",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, given := range args {
				id, err := a.client().ResolveID(cmd.Context(), given)
				if err != nil {
					return err
				}
				if err := a.client().Delete(cmd.Context(), id); err != nil {
					return err
				}
				fmt.Fprintln(a.console.Out, given)
			}
			return nil
		},
	}
}

func (a *app) collectCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "collect RUN", Short: "Write a tar of a run's logs, spec and events, and the node's state", Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(cli.Runs),
		Example: "  careen collect RUN\n  careen collect -f - RUN | tar -t",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			if path == "-" {
				return a.client().Bundle(ctx, id, a.console.Out)
			}
			if path == "" {
				path = "careen-" + id + ".tar"
			}
			if err := cli.SaveBundle(ctx, a.client(), id, path); err != nil {
				return err
			}
			fmt.Fprintln(a.console.Out, path)
			return nil
		}),
	}
	cmd.Flags().StringVarP(&path, "file", "f", "", "`FILE` output file; - is standard output [careen-RUN.tar]")
	return cmd
}
