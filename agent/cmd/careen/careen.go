package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/fault"
)

// app is the state that all commands share.
type app struct {
	console *cli.Console
	socket  string
	// output is "text" or "json".
	output string
}

// careenMain is the command line.
func careenMain(args []string) int {
	args = socketFirst(args)
	a := &app{console: cli.NewConsole()}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.exit(cmd, err)
}

// socketFirst reads a --socket that comes before the command: a command with podman's
// options would read it as one of them.
func socketFirst(args []string) []string {
	for len(args) > 0 {
		value, ok := strings.CutPrefix(args[0], "--socket=")
		switch {
		case ok:
			args = args[1:]
		case args[0] == "--socket" && len(args) > 1:
			value, args = args[1], args[2:]
		default:
			return args
		}
		_ = os.Setenv("CAREEN_SOCKET", value)
	}
	return args
}

// exit shows how cmd ended and returns the exit code of that.
func (a *app) exit(cmd *cobra.Command, err error) int {
	var code cli.ExitCode
	var known *fault.Error
	if err != nil && !errors.As(err, &code) && !errors.As(err, &known) {
		err = misused(cmd, err) // cobra's: an unknown command or flag, too few arguments
	}
	return a.console.Exit(err)
}

// misused adds the usage to an error of cobra.
func misused(cmd *cobra.Command, err error) error {
	usage := strings.TrimSuffix(cmd.UseLine(), " [flags]")
	if cmd.HasSubCommands() {
		usage = cmd.CommandPath() + " COMMAND"
	}
	return &fault.Error{Code: fault.BadOption, Op: "run", Subject: cmd.CommandPath(), Err: err,
		Remedy: "Usage: " + usage + "; see also " + cmd.CommandPath() + " --help"}
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "careen",
		Short: "Run container steps on bare metal",
		Long: `careen runs firmware updaters, diagnostics and disk cleaners that are packaged as
OCI images, on a node that has only a kernel and this file.

Commands talk to the agent on its socket. If no agent runs, "careen run" and
"careen pull" start one that ends with the command.`,
		Example: `  careen run --rm --privileged registry.example/fw-updater:2.1
  careen agent &
  careen step run generic_container_step --args '{"container_url": "registry.example/diag:1"}'
  careen logs -f RUN`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Version,
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", defaultSocket(), "`PATH` the agent's socket (environment: CAREEN_SOCKET)")
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "look", Title: "Manage runs:"},
		&cobra.Group{ID: "image", Title: "Images:"}, &cobra.Group{ID: "node", Title: "The node:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"run":   {a.runCommand(), a.stepCommand(), a.specCommand(), a.explainCommand()},
		"look":  {a.psCommand(), a.inspectCommand(), a.logsCommand(), a.eventsCommand(), a.waitCommand(), a.abortCommand(), a.rmCommand(), a.collectCommand()},
		"image": {a.pullCommand(), a.imagesCommand(), a.rmiCommand()},
		"node":  {a.agentCommand(), a.doctorCommand(), a.configCommand(), a.versionCommand(), a.ramdiskCommand()},
	} {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommandGroupID("node")
	root.SetCompletionCommandGroupID("node")
	root.PersistentFlags().BoolP("help", "h", false, "print this help")
	nameArguments(root)
	onlySubcommands(root)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		onlySubcommands(cmd)
		if command, ok := podmanOptions[cmd.Name()]; ok {
			cmd.DisableFlagsInUseLine = true
			cmd.ValidArgsFunction = a.completePodman(command, ownOptions[cmd.Name()]...)
		}
	}
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), helpText(cmd)) })
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := fmt.Fprint(cmd.OutOrStderr(), helpText(cmd))
		return err
	})
	return root
}

// onlySubcommands makes a command that has only subcommands refuse an unknown one, and
// suggest similar ones.
func onlySubcommands(cmd *cobra.Command) {
	if !cmd.HasSubCommands() || cmd.Runnable() {
		return
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
			return fmt.Errorf("unknown command %q; did you mean %s?", args[0], strings.Join(similar, " or "))
		}
		return fmt.Errorf("unknown command %q", args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// outputFlag adds --output to a command that scripts use.
func (a *app) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.output, "output", "o", "text", "`text|json` format of the output")
	completeFlag(cmd, "output", "text", "json")
	previous := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if a.output != "text" && a.output != "json" {
			return &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--output=" + a.output,
				Reason: "it is neither text nor json", Remedy: "For example: --output=json"}
		}
		if previous != nil {
			return previous(cmd, args)
		}
		return nil
	}
}

// client is a client of the agent on the socket.
func (a *app) client() *client.Client { return client.New(a.socket) }

// defaultSocket is the socket where no --socket is given.
func defaultSocket() string { return cmp.Or(os.Getenv("CAREEN_SOCKET"), client.DefaultSocket) }

// show prints v as JSON with --output=json, else with text.
func show[T any](a *app, v T, text func(*cli.Console, T)) error {
	if a.output == "json" {
		return a.console.JSON(v)
	}
	text(a.console, v)
	return nil
}

// ofRun returns the body of a command that takes one run: its id, name or id prefix.
func (a *app) ofRun(do func(ctx context.Context, id string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		id, err := a.client().ResolveID(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return do(cmd.Context(), id)
	}
}
