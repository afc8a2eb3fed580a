package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
)

// podmanVersion is the version that careen gives itself as podman or docker: the
// podman whose options it takes (docs/options.md).
const podmanVersion = "4.3.1"

// podmanMain is careen under the name podman or docker: what Ironic's agent calls,
// with podman's output and exit codes, and nothing else of podman.
func podmanMain(name string, args []string) int {
	socket := os.Getenv("CAREEN_SOCKET")
	if socket == "" {
		socket = rootfs.DefaultRunDir + "/careen.sock"
	}
	a := &app{console: newConsole(), socket: socket}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := a.podman(ctx, name, args)
	return podmanExit(a, err)
}

func podmanExit(a *app, err error) int {
	if code, ok := err.(exitCode); ok { //nolint:errorlint // never wrapped: see attach
		return int(code)
	}
	if err != nil {
		a.console.fail(err)
		return exitUsage
	}
	return exitOK
}

func (a *app) podman(ctx context.Context, name string, args []string) error {
	args, err := skipGlobals(args)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return podmanUnknown(name, "")
	}
	switch args[0] {
	case "--version", "-v", "version":
		_, err := fmt.Fprintf(a.console.out, "%s version %s\n", name, podmanVersion)
		return err
	case "--help", "-h", "help":
		_, err := fmt.Fprintf(a.console.out, podmanHelp, name)
		return err
	case "pull":
		return a.pull(ctx, splitGlued(args[1:], validPull), true)
	case "run":
		if isBootc(args[1:]) {
			return &fault.Error{Code: fault.Unsupported, Op: "run", Subject: "bootc install",
				Reason: "it reads the image from podman's own storage, which careen does not have",
				Remedy: "Use a ramdisk with podman for bootc images, or bootc's --source-imgref with an OCI archive"}
		}
		return a.run(ctx, splitGlued(args[1:], validRun), runMode{route: "podman", plain: true})
	default:
		return podmanUnknown(name, args[0])
	}
}

// podmanHelp is for the name that careen was called by.
const podmanHelp = `%[1]s is a link to careen here, which stands in for three of its commands:

  %[1]s --version
  %[1]s pull [options] IMAGE
  %[1]s run [options] IMAGE [COMMAND [ARG...]]

"%[1]s run --help" lists the options. For all else there is "careen --help".
`

func podmanUnknown(name, verb string) error {
	return &fault.Error{Code: fault.Unsupported, Op: "run", Subject: strings.TrimSpace(name + " " + verb),
		Reason: "careen stands in for podman's --version, pull and run only",
		Remedy: "Use the careen command for the rest: careen --help"}
}

// globals are podman's options before the verb that have no effect on one step, by
// whether they take a value.
var globals = map[string]bool{
	"--log-level": true, "--cgroup-manager": true, "--events-backend": true, "--conmon": true, "--network-cmd-path": true,
	"--tmpdir": true, "--noout": false, "--syslog": false, "--trace": false,
}

// skipGlobals drops podman's own options before the verb. One that would change
// where images are or how containers run is refused.
func skipGlobals(args []string) ([]string, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, _, glued := strings.Cut(args[0], "=")
		if slices.Contains([]string{"--version", "-v", "--help", "-h"}, name) {
			return args, nil
		}
		takesValue, known := globals[name]
		if !known {
			return nil, &fault.Error{Code: fault.Unsupported, Op: "use", Subject: args[0],
				Reason: "careen has no such option before the verb", Remedy: "Leave it out; careen has one store and one runtime"}
		}
		args = args[1:]
		if takesValue && !glued {
			if len(args) == 0 {
				return nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: name, Reason: "its value is missing",
					Remedy: "For example: " + name + "=info"}
			}
			args = args[1:]
		}
	}
	return args, nil
}

// splitGlued takes apart options that arrive as one argument, as older releases of
// Ironic's agent pass them ("--rm --network=host -v /dev:/dev"). What podman would
// take as it is stays as it is, for a value may hold blanks; valid says so. Else the
// words that start with a dash and hold blanks are taken apart, from the left, until
// the whole is valid. If it never is, the error shall name what is wrong in it: then
// only those are apart whose option's name would hold a blank.
func splitGlued(words []string, valid func([]string) bool) []string {
	if valid(words) {
		return words
	}
	apart, names := []string{}, []string{}
	for i, word := range words {
		fields := strings.Fields(word)
		if len(fields) < 2 || !strings.HasPrefix(word, "-") {
			apart, names = append(apart, word), append(names, word)
			continue
		}
		if apart = append(apart, fields...); valid(slices.Concat(apart, words[i+1:])) {
			return append(apart, words[i+1:]...)
		}
		if name, _, _ := strings.Cut(word, "="); strings.ContainsAny(name, " \t\n") {
			names = append(names, fields...)
		} else {
			names = append(names, word)
		}
	}
	return names
}

func validRun(words []string) bool {
	_, err := oci.ParseRun(words, localCaller())
	return err == nil
}

func validPull(words []string) bool {
	_, err := oci.ParsePull(words, localCaller())
	return err == nil
}

// isBootc recognises the command by which Ironic's agent installs bootc images.
func isBootc(args []string) bool {
	for i := range args {
		if args[i] == "bootc" && i+1 < len(args) && args[i+1] == "install" {
			return true
		}
	}
	return false
}
