// Command node shows package rootfs at work in a guest, before and without the
// rest of careen. Its arguments are one of
//
//	prepare [-force] [-store-size N]   enter, prepare, print the layout and actions
//	run [-force] COMMAND [ARG...]      enter and prepare, then execute a command there
//	gather                             print what package oci would learn
//	doctor [REGISTRY...]               print the checks
//	boxed COMMAND [ARG...]             execute in a cgroup namespace that has processes
//	load [-modules DIR] NAME           load a kernel module
//	require [-load] LABEL              hold the node against an image's label
//	agent                              wait for SIGTERM, as an agent that does nothing
//
// Called as careen-init or careen-init-alone it is the first process.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "node:", fault.Line(err))
		os.Exit(1)
	}
}

func run(args []string) error {
	switch filepath.Base(os.Args[0]) {
	case "careen-init":
		return rootfs.Init(rootfs.InitOptions{Args: []string{"agent"}, Log: os.Stdout})
	case "careen-init-alone":
		return rootfs.Init(rootfs.InitOptions{Args: []string{"agent"}, Next: "/none", Log: os.Stdout})
	}
	if len(args) == 0 {
		return fmt.Errorf("no command")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	force := flags.Bool("force", false, "enter also where pivot_root works")
	modules := flags.String("modules", "", "directory of modules")
	load := flags.Bool("load", false, "load modules that are required")
	size := flags.Int64("store-size", 0, "limit of the store in bytes")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "boxed":
		return boxed(flags.Args())
	case "doctor":
		return show(doctor.Run(context.Background(), doctor.Options{Registries: flags.Args()}))
	case "load":
		var actions []rootfs.Action
		if err := rootfs.LoadModule(flags.Arg(0), *modules, &actions); err != nil {
			return err
		}
		return show(actions)
	case "require":
		loaded, err := doctor.Require(context.Background(), doctor.RequireOptions{Image: "image", Label: flags.Arg(0), Load: *load, ModulesDir: *modules})
		if err != nil {
			return err
		}
		return show(loaded)
	case "gather":
		node, err := rootfs.GatherNode()
		if err != nil {
			return err
		}
		return show(node)
	}
	if err := rootfs.Enter(rootfs.EnterOptions{Force: *force}); err != nil {
		return err
	}
	return prepared(args[0], flags.Args(), rootfs.PrepareOptions{StoreSize: *size})
}

// prepared is what is done on a node that is ready.
func prepared(command string, args []string, opts rootfs.PrepareOptions) error {
	layout, actions, err := rootfs.Prepare(context.Background(), opts)
	if err != nil {
		return err
	}
	switch command {
	case "agent":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		return nil
	case "prepare":
		return show(struct {
			Layout  *rootfs.Layout
			Actions []rootfs.Action
			PID     int
		}{layout, actions, os.Getpid()})
	case "run":
		path, err := exec.LookPath(args[0])
		if err != nil {
			return err
		}
		return syscall.Exec(path, append([]string{filepath.Base(path)}, args[1:]...), os.Environ())
	}
	return fmt.Errorf("no command %q", command)
}

func show(v any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	return out.Encode(v)
}

// boxed executes a command as in a container that has a cgroup of its own: what it
// sees as the root of cgroup v2 is not the kernel's, and has a process in it.
func boxed(args []string) error {
	const root, box = "/sys/fs/cgroup", "/sys/fs/cgroup/box"
	if err := os.MkdirAll(box, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(box+"/cgroup.procs", []byte("0"), 0o600); err != nil {
		return err
	}
	// The thread that executes is the one that moves.
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWCGROUP | syscall.CLONE_NEWNS | syscall.CLONE_FS); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, ""); err != nil {
		return err
	}
	if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
		return err
	}
	if err := syscall.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}
