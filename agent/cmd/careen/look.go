package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
)

func (a *app) psCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "ps", Short: "List runs that are active, or all of them", Args: cobra.NoArgs,
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
			if a.output == "json" {
				return a.console.json(shown)
			}
			var rows [][]string
			for _, run := range shown {
				rows = append(rows, []string{run.ID, string(run.State), exitText(run), ago(run.CreatedAt), what(run)})
			}
			table(a.console.out, a.console.width(), []string{"RUN", "STATE", "EXIT", "CREATED", "STEP OR IMAGE"}, rows)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also runs that have ended")
	a.outputFlag(cmd)
	return cmd
}

// width is what tables may use: the terminal's, or 80.
func (c *console) width() int {
	if size := c.terminalSize(); size != nil {
		return int(size.Columns)
	}
	return 80
}

func what(run api.Run) string {
	if run.Step != "" {
		return run.Step + " " + run.Image
	}
	return run.Image
}

func exitText(run api.Run) string {
	if run.Outcome == nil || run.Outcome.ExitCode == nil {
		return "-"
	}
	return strconv.Itoa(*run.Outcome.ExitCode)
}

func (a *app) inspectCommand() *cobra.Command {
	var spec bool
	cmd := &cobra.Command{
		Use: "inspect RUN", Short: "Show all that is known of a run, as JSON", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Example: "  careen inspect RUN\n  careen inspect --spec RUN",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			if spec {
				doc, err := a.client().Spec(ctx, id)
				if err != nil {
					return err
				}
				return a.console.json(doc)
			}
			run, err := a.client().Run(ctx, id)
			if err != nil {
				return err
			}
			return a.console.json(run)
		}),
	}
	cmd.Flags().BoolVar(&spec, "spec", false, "the runtime-spec of its container instead")
	return cmd
}

// readLogs calls line for each line of a run's output. Who follows it goes on with the
// next agent when this one has gone, after the last line that came.
func (a *app) readLogs(ctx context.Context, id string, opts client.LogOptions, line func(api.LogLine, []byte) error) error {
	c := a.client()
	if !opts.Follow {
		return c.Logs(ctx, id, opts, line)
	}
	return a.patiently(ctx, func() error {
		err := c.Logs(ctx, id, opts, func(l api.LogLine, text []byte) error {
			if l.Cursor != "" {
				opts.After, opts.Tail = l.Cursor, nil
			}
			return line(l, text)
		})
		if err != nil {
			return err
		}
		return ended(ctx, c, id)
	})
}

// ended is an error for an output that ended before its run: an agent that is
// told to stop closes what it serves in good order.
func ended(ctx context.Context, c *client.Client, id string) error {
	run, err := c.Run(ctx, id)
	if err == nil && !run.State.Final() {
		return &fault.Error{Code: fault.Unreachable, Op: "read the output of run", Subject: id,
			Reason: "the agent stopped before the run ended", Remedy: "Start careen agent again"}
	}
	return err
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
		Use: "logs [flags] RUN", Short: "Show a run's output, while it runs and after", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Long: `Show what a run's container wrote. On a terminal, control characters are shown
rather than sent; --raw sends them.`,
		Example: "  careen logs -f RUN\n  careen logs --tail 20 --stream stderr RUN",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			if cmd.Flags().Changed("tail") {
				opts.Tail = &tail
			}
			guard := !raw && isTerminal(a.console.out)
			return a.readLogs(ctx, id, opts, func(l api.LogLine, text []byte) error {
				line := string(text)
				if guard {
					line = clean(line)
				}
				if timestamps {
					line = l.Time.Format(time.RFC3339Nano) + " " + l.Stream + " " + line
				}
				if !l.Partial || timestamps {
					line += "\n"
				}
				_, err := io.WriteString(a.console.out, line)
				return err
			})
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&opts.Follow, "follow", "f", false, "go on until the run has ended")
	f.IntVar(&tail, "tail", 0, "start with the last lines")
	f.StringVar(&opts.Stream, "stream", "", "stdout or stderr; both if not given")
	completeFlag(cmd, "stream", "stdout", "stderr")
	f.BoolVarP(&timestamps, "timestamps", "t", false, "time and stream before each line")
	f.BoolVar(&raw, "raw", false, "send control characters to the terminal as they are")
	return cmd
}

func (a *app) eventsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "events RUN", Short: "Follow a run's events, one JSON document a line", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Example: "  careen events RUN",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			return a.client().Events(ctx, id, 0, func(e api.Event) error { return jsonLine(a.console.out, e) })
		}),
	}
}

func (a *app) waitCommand() *cobra.Command {
	wait := a.ofRun(func(ctx context.Context, id string) error {
		run, err := a.client().Wait(ctx, id)
		if err != nil {
			return err
		}
		if a.output == "json" {
			if err := a.console.json(run); err != nil {
				return err
			}
		} else {
			fmt.Fprintln(a.console.out, run.State)
		}
		return a.finish(run, attachment{})
	})
	cmd := &cobra.Command{
		Use: "wait RUN", Short: "Wait for the end of a run and exit with its exit code", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Example: "  careen wait RUN\n  careen wait -o json RUN",
		Long: `Wait for the end of a run and exit with its exit code, or with 125 if that cannot
be known.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := wait(cmd, args)
			var code exitCode
			if err != nil && !errors.As(err, &code) {
				a.console.fail(err)
				return exitCode(exitUsage)
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
		Use: "abort RUN", Short: "End a run: stop signal, grace period, SIGKILL", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Example: "  careen abort RUN\n  careen abort --reason 'wrong firmware' --grace 60s RUN",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			run, err := a.client().Abort(ctx, id, req)
			if err == nil {
				fmt.Fprintln(a.console.out, run.State)
			}
			return err
		}),
	}
	f := cmd.Flags()
	f.StringVar(&req.Reason, "reason", "", "why, for the record")
	f.StringVar(&req.Grace, "grace", "", "time between stop signal and SIGKILL, as in 30s")
	f.BoolVar(&req.Force, "force", false, "also a step that is not abortable")
	return cmd
}

func (a *app) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm RUN...", Short: "Forget runs that have ended, with their output", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeRuns,
		Example: "  careen rm RUN",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, given := range args {
				id, err := a.which(cmd.Context(), given)
				if err != nil {
					return err
				}
				if err := a.client().Delete(cmd.Context(), id); err != nil {
					return err
				}
				fmt.Fprintln(a.console.out, given)
			}
			return nil
		},
	}
}

func (a *app) collectCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "collect RUN", Short: "Make a tar of a run's logs, spec, events and the node's state", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeRuns,
		Example: "  careen collect RUN\n  careen collect -f - RUN | tar -t",
		RunE: a.ofRun(func(ctx context.Context, id string) error {
			if path == "-" {
				return a.client().Bundle(ctx, id, a.console.out)
			}
			if path == "" {
				path = "careen-" + id + ".tar"
			}
			// Complete or not there at all: a half bundle misleads.
			var unread error
			err := file.ReplaceWith(path, 0o600, file.Whole, func(w io.Writer) error {
				unread = a.client().Bundle(ctx, id, w)
				return unread
			})
			if unread != nil {
				return unread
			}
			if err != nil {
				return writeError(path, err)
			}
			fmt.Fprintln(a.console.out, path)
			return nil
		}),
	}
	cmd.Flags().StringVarP(&path, "file", "f", "", "where to write it; - is standard output (default careen-RUN.tar)")
	return cmd
}

func writeError(path string, err error) error {
	return &fault.Error{Code: fault.Space, Op: "write", Subject: path, Err: err, Remedy: "Check the directory and its free space"}
}
