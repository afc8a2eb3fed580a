package initproc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Name is the file name under which the binary acts as a container's init.
const Name = "careen-init"

// Main runs "careen-init [--] COMMAND [ARG...]" and returns the exit code:
// COMMAND's own, 128+n if signal n ended it, 127 if it does not exist, 126 if it
// cannot be executed.
func Main(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, Name+": no command given")
		return 125
	}
	// Before the start of the command: a signal that comes earlier is kept.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)

	path, err := exec.LookPath(args[0])
	if err != nil {
		return refuse(args[0], err)
	}
	process, err := os.StartProcess(path, args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   childAttr(),
	})
	if err != nil {
		return refuse(args[0], err)
	}
	return supervise(process.Pid, signals)
}

// childAttr puts the command into a new process group and gives it the terminal if
// there is one: keys like ^C are for the command, not for its init.
func childAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		attr.Foreground, attr.Ctty = true, 0
	}
	return attr
}

func refuse(command string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: cannot run %s: %v\n", Name, command, err)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return 127
	}
	return 126
}

func supervise(child int, signals <-chan os.Signal) int {
	for sig := range signals {
		number, ok := sig.(syscall.Signal)
		switch {
		case !ok || number == unix.SIGURG: // the Go runtime uses it for preemption
		case number == unix.SIGCHLD:
			if code, ended := reap(child); ended {
				return code
			}
		case number == unix.SIGTTIN || number == unix.SIGTTOU:
			// For this process: it used the terminal in the background.
		default:
			_ = unix.Kill(child, number)
		}
	}
	return 0
}

// reap reaps every child that has ended; one SIGCHLD may stand for several.
func reap(child int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid != child {
			continue
		}
		ended = true
		if code = status.ExitStatus(); status.Signaled() {
			code = 128 + int(status.Signal())
		}
	}
}
