// Command careen runs container steps on bare metal. It is agent, containerd,
// shim, container init and command line in one file; what it is started as
// decides which of them it is.
package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	// First: answers when libcontainer starts this binary as a container's init.
	_ "github.com/careen-project/careen/runtime/reexec"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/runtime/initproc"
	"github.com/careen-project/careen/runtime/shim"
)

func main() {
	os.Exit(dispatch(os.Args))
}

// dispatch chooses by the name of the program, as busybox does.
func dispatch(args []string) int {
	name := filepath.Base(args[0])
	switch {
	case name == shim.Name:
		return shim.Main(args[1:])
	case name == initproc.Name && !isRamdiskInit(args):
		return initproc.Main(args[1:])
	case name == initproc.Name:
		return initMain()
	}
	if needsNode(name, args[1:]) {
		if err := enterNode(args[1:]); err != nil {
			cli.NewConsole().Fail(err)
			return cli.ExitUsage
		}
	}
	// A command is over soon; an agent sets what it needs.
	debug.SetGCPercent(400)
	if name == "podman" || name == "docker" {
		return podmanMain(name, args[1:])
	}
	return careenMain(args[1:])
}

// isRamdiskInit tells the init of a ramdisk, which the kernel starts without a
// command, from the init of a container, which always has one.
func isRamdiskInit(args []string) bool { return len(args) < 2 || args[1] != "--" }

// needsNode reports whether this process is going to start containers itself: it
// is the agent, or a command that starts one because none answers. It then has to
// move to another mount namespace before it does anything else.
func needsNode(name string, args []string) bool {
	if os.Geteuid() != 0 {
		return false
	}
	if name == "podman" || name == "docker" {
		verb, words, err := cli.PodmanCommand(args)
		if err != nil {
			return false
		}
		args = append([]string{verb}, words...)
	}
	socket, verb, sub := defaultSocket(), "", ""
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--help" || args[i] == "-h":
			return false
		case args[i] == "--socket" && i+1 < len(args):
			i++
			socket = args[i]
		case strings.HasPrefix(args[i], "--socket="):
			socket = strings.TrimPrefix(args[i], "--socket=")
		case strings.HasPrefix(args[i], "-"):
		case verb == "":
			verb = args[i]
			if verb == "agent" {
				return true
			}
		case sub == "":
			sub = args[i]
		}
		if verb == "run" || verb == "pull" || verb == "step" && sub == "run" {
			return !client.Listening(socket)
		}
	}
	return false
}
