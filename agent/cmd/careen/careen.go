package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
)

// Exit codes of the command line, podman's where it has them (podman-run(1),
// "Exit Status").
const (
	exitOK = 0
	// exitFailed: the command could not do what it was asked to.
	exitFailed = 1
	// exitUsage: careen itself failed before a container ran, or bad options.
	exitUsage = 125
	// exitDenied: the command in the image cannot be executed.
	exitDenied = 126
	// exitAbsent: the command is not in the image.
	exitAbsent = 127
)

// app is what every command works with.
type app struct {
	console *console
	socket  string
	// output is "text" or "json".
	output string
}

// careenMain is the command line.
func careenMain(args []string) int {
	args = socketFirst(args)
	a := &app{console: newConsole()}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.exit(cmd, err)
}

// socketFirst takes --socket where it comes before the command: a command that has
// podman's options would take it for one of them.
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

// exitCode is an error that has been shown already, if there was anything to
// show, and only decides the exit code.
type exitCode int

func (c exitCode) Error() string { return "" }

// exit shows how cmd ended and returns the exit code of that.
func (a *app) exit(cmd *cobra.Command, err error) int {
	var code exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	}
	var known *fault.Error
	if !errors.As(err, &known) {
		err = misused(cmd, err) // cobra's: an unknown command or flag, too few arguments
	}
	a.console.fail(err)
	if fault.CodeOf(err) == fault.BadOption {
		return exitUsage
	}
	return exitFailed
}

// misused makes what cobra says of a command line an error that tells how to write it.
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
	socket := os.Getenv("CAREEN_SOCKET")
	if socket == "" {
		socket = rootfs.DefaultRunDir + "/careen.sock"
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", socket, "the agent's socket (environment: CAREEN_SOCKET)")
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

// onlySubcommands makes a command without an action of its own refuse an unknown
// subcommand, and suggest similar ones.
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
	cmd.Flags().StringVarP(&a.output, "output", "o", "text", "text or json")
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

// client connects to the agent that runs.
func (a *app) client() *client.Client { return client.New(a.socket) }
