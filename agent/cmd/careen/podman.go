package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/fault"
)

// podmanVersion is the version that careen prints as podman or docker: the podman whose
// options it takes (docs/options.md).
const podmanVersion = "4.3.1"

// podmanMain is careen under the name podman or docker: the commands that Ironic's agent
// calls, with podman's output and exit codes.
func podmanMain(name string, args []string) int {
	a := &app{console: cli.NewConsole(), socket: defaultSocket()}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := a.podman(ctx, name, args)
	var code cli.ExitCode
	if err != nil && !errors.As(err, &code) {
		err = a.console.Shown(err, cli.ExitUsage)
	}
	return a.console.Exit(err)
}

func (a *app) podman(ctx context.Context, name string, args []string) error {
	verb, words, err := cli.PodmanCommand(args)
	if err != nil {
		return err
	}
	switch verb {
	case "--version", "-v", "version":
		_, err := fmt.Fprintf(a.console.Out, "%s version %s\n", name, podmanVersion)
		return err
	case "--help", "-h", "help":
		_, err := fmt.Fprintf(a.console.Out, podmanHelp, name)
		return err
	case "pull":
		return a.pull(ctx, words, true)
	case "run":
		return a.run(ctx, words, runMode{route: "podman", plain: true})
	}
	return &fault.Error{Code: fault.Unsupported, Op: "run", Subject: strings.TrimSpace(name + " " + verb),
		Reason: "careen replaces podman's --version, pull and run only",
		Remedy: "Use a careen command for the rest: careen --help"}
}

// podmanHelp is the help under the name that careen was called by.
const podmanHelp = `%[1]s is a link to careen, which replaces three commands of podman:

  %[1]s --version
  %[1]s pull [options] IMAGE
  %[1]s run [options] IMAGE [COMMAND [ARG...]]

"%[1]s run --help" lists the options. "careen --help" lists careen's own commands.
`
