package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
)

// supervisorEnv marks the process that [Init] starts beside another init.
const supervisorEnv = "CAREEN_INIT_SUPERVISOR"

// Limits of the times that an init waits.
const (
	nodeWait  = 30 * time.Second
	agentStop = 10 * time.Second
	// agentDown is for an agent that ends its containers because the node goes down.
	agentDown    = 60 * time.Second
	restartFirst = time.Second
	restartLast  = 30 * time.Second
)

// InitOptions are the options of [Init].
type InitOptions struct {
	// Args are the arguments of the agent, as in {"agent"}. The agent is the running
	// program under the name "careen".
	Args []string
	// Next is the init of the ramdisk that careen was added to; "" is /init.
	// Without such a program, or if it is careen itself, Init is the only init.
	Next string
	// Log gets one line for each start and end of the agent. It must not be nil.
	Log io.Writer
}

// Init is the first process of a ramdisk. It keeps the agent running and reaps orphaned
// processes. So the kernel does not panic when the agent dies, and the agent can use
// os/exec: Init takes the status of no child of the agent.
//
// If the ramdisk has an init, Init executes that one and starts a second process that
// keeps the agent running. The second process waits up to half a minute until the init
// has mounted the node's file systems, because an init can fail when /proc is mounted
// already. Without another init, SIGTERM and SIGINT (control-alt-delete) reboot the node,
// SIGUSR1 halts it and SIGUSR2 powers it off, as with busybox. The agent gets SIGPWR
// before that and ends its containers.
//
// Init returns only on failure, and with nil in the second process after SIGTERM. The
// error has the code [fault.Conflict] when the process is not process 1; other errors are
// of package os and have no code.
func Init(opts InitOptions) error {
	path, err := initPath()
	if err != nil {
		return err
	}
	s := &supervisor{path: path, args: opts.Args, log: opts.Log, wait: restartFirst, first: os.Getpid() == 1}
	if os.Getenv(supervisorEnv) != "" {
		if err := os.Unsetenv(supervisorEnv); err != nil {
			return err
		}
		waitForNode()
		return s.run()
	}
	if !s.first {
		return &fault.Error{
			Code: fault.Conflict, Op: "be the init", Reason: fmt.Sprintf("this is process %d, not 1", os.Getpid()),
			Remedy: "Boot with rdinit=/careen-init, or start careen agent instead",
		}
	}
	next := opts.Next
	if next == "" {
		next = "/init"
	}
	if isProgram(next) && !sameFile(next, path) {
		return s.become(next)
	}
	return s.run()
}

// initPath returns the path of the running program. It works without /proc: the kernel
// passes the path as the first argument.
func initPath() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fmt.Errorf("find the running program: %w", err)
	}
	return path, nil
}

func isProgram(path string) bool { return unix.Access(path, unix.X_OK) == nil }

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// waitForNode waits until the ramdisk's own init has mounted the file systems.
func waitForNode() {
	for end := time.Now().Add(nodeWait); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if hasType(unix.PROC_SUPER_MAGIC)("/proc") && hasType(unix.SYSFS_MAGIC)("/sys") && HasDevices("/dev") && IsMounted("/run") {
			return
		}
	}
}

// supervisor keeps one agent running.
type supervisor struct {
	path string
	args []string
	log  io.Writer
	// first says that this is process 1.
	first bool
	// pid of the agent, 0 while there is none, and when it was started.
	pid     int
	started time.Time
	// wait is the time until the next start.
	wait time.Duration
}

// become starts the supervisor as a child and becomes another init.
func (s *supervisor) become(next string) error {
	attr := &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2}, Env: append(os.Environ(), supervisorEnv+"=1"), Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if _, err := syscall.ForkExec(s.path, os.Args[:1], attr); err != nil {
		// The node must boot even so: without careen it can still be examined.
		s.say("cannot start beside %s: %v", next, err)
	}
	return fmt.Errorf("execute %s: %w", next, syscall.Exec(next, append([]string{next}, os.Args[1:]...), os.Environ()))
}

// run is the supervisor's loop. It ends with the node or after SIGTERM.
func (s *supervisor) run() error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	if s.first {
		// Control-alt-delete then arrives as SIGINT.
		if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
			s.say("cannot catch control-alt-delete: %v", err)
		}
	}
	start := time.NewTimer(0)
	for {
		select {
		case <-start.C:
			s.start(start)
		case got := <-signals:
			if got == unix.SIGCHLD {
				if s.reap() {
					start.Reset(s.backOff())
				}
				continue
			}
			s.stop(signals)
			if !s.first {
				return nil
			}
			return s.end(got)
		}
	}
}

// start starts the agent, or tries again later.
func (s *supervisor) start(again *time.Timer) {
	attr := &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true}}
	pid, err := syscall.ForkExec(s.path, append([]string{"careen"}, s.args...), attr)
	if err != nil {
		s.say("cannot start %s: %v", s.path, err)
		again.Reset(s.backOff())
		return
	}
	s.pid, s.started = pid, time.Now()
	s.say("agent started as process %d", pid)
}

// backOff returns the time to wait and doubles the next one.
func (s *supervisor) backOff() time.Duration {
	wait := s.wait
	s.wait = min(2*wait, restartLast)
	return wait
}

// reap takes the status of every process that has ended and reports whether the agent is
// one of them. One SIGCHLD can stand for several processes.
func (s *supervisor) reap() bool {
	ended := false
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return ended
		}
		if pid != s.pid {
			continue
		}
		s.pid, ended = 0, true
		if time.Since(s.started) > restartLast {
			s.wait = restartFirst
		}
		s.say("agent ended with status %d, signal %d; next start in %s", status.ExitStatus(), status.Signal(), s.wait)
	}
}

// stop ends the agent. Containers keep running unless the node goes down.
func (s *supervisor) stop(signals <-chan os.Signal) {
	if s.pid == 0 {
		return
	}
	sig, patience := unix.SIGTERM, agentStop
	if s.first {
		sig, patience = unix.SIGPWR, agentDown
	}
	// The error is ignored: an agent that has just ended is reaped below.
	_ = unix.Kill(s.pid, sig)
	limit := time.After(patience)
	for s.pid != 0 {
		select {
		case <-signals:
			s.reap()
		case <-limit:
			_ = unix.Kill(s.pid, unix.SIGKILL)
			return
		}
	}
}

// end reboots, halts or powers off the node, depending on the signal.
func (s *supervisor) end(got os.Signal) error {
	how := unix.LINUX_REBOOT_CMD_RESTART
	switch got {
	case unix.SIGUSR1:
		how = unix.LINUX_REBOOT_CMD_HALT
	case unix.SIGUSR2:
		how = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	s.say("%s: the node goes down", got)
	unix.Sync()
	return fmt.Errorf("end the node: %w", unix.Reboot(how))
}

// say writes a log line. Errors are ignored: an init must not end without a console.
func (s *supervisor) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.log, "careen-init: "+format+"\n", args...)
}
