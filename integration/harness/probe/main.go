// Command probe is the only file of a test's image: it says as JSON how it finds
// itself in its container, or does what is asked of it.
//
//	probe report       print what it sees
//	probe hold         write "ready", ignore SIGTERM, run until killed
//	probe daemon       start a child in a session of its own that ignores
//	                   SIGTERM and SIGHUP, and wait
//	probe reboot       call reboot(2)
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

type report struct {
	Args      []string
	Env       []string
	Dir       string
	UID, GID  int
	Groups    []int
	Pid       int
	Hostname  string
	RootWrite bool
}

func main() {
	verb := "report"
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	var err error
	switch verb {
	case "hold":
		hold()
	case "daemon":
		err = daemon()
	case "reboot":
		err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	default:
		err = say()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func say() error {
	r := report{Args: os.Args, Env: os.Environ(), UID: os.Getuid(), GID: os.Getgid(), Pid: os.Getpid()}
	r.Dir, _ = os.Getwd()
	r.Groups, _ = os.Getgroups()
	r.Hostname, _ = os.Hostname()
	r.RootWrite = os.Mkdir("/written", 0o755) == nil
	return json.NewEncoder(os.Stdout).Encode(r)
}

func hold() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	fmt.Println("ready")
	for {
		_ = unix.Pause() // returns when a signal came
	}
}

func daemon() error {
	child := exec.Command("/proc/self/exe", "hold")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return err
	}
	fmt.Println("ready")
	return child.Wait()
}
