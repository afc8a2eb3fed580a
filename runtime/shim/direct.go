package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/container"
)

// Direct reaches a container without its shim, for a shim that does not answer: one
// that was stopped, or hangs. It works on the processes themselves, as libcontainer's
// state in the run's directory names them. None of its errors has a fault code.
type Direct struct {
	id   string
	dir  container.Dir
	ctr  *libcontainer.Container
	init int
	shim int
}

// OpenDirect finds a container by its state. shimPid is its shim's process as far as it
// is known, 0 if it is not. The error is errdefs.ErrNotFound where the container has no
// state: it was removed, or its shim has not got that far.
func OpenDirect(dir container.Dir, id string, shimPid int) (*Direct, error) {
	ctr, err := libcontainer.Load(dir.State(), id)
	if err != nil {
		return nil, fmt.Errorf("cannot load the state of container %s: %w", id, errors.Join(err, errdefs.ErrNotFound))
	}
	state, err := ctr.State()
	if err != nil {
		return nil, fmt.Errorf("cannot read the state of container %s: %w", id, err)
	}
	d := &Direct{id: id, dir: dir, ctr: ctr, init: state.InitProcessPid, shim: shimPid}
	stat, err := readStat(d.init)
	if err == nil && stat.started != state.InitProcessStartTime {
		err = os.ErrNotExist // another process has its number
	}
	if err != nil {
		d.init = 0
	} else if d.shim == 0 {
		d.shim = stat.parent
	}
	return d, nil
}

// State returns the container's state and its first process, as the kernel knows them. The
// error has no fault code.
func (d *Direct) State() (container.State, int, error) {
	status, err := d.ctr.Status()
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("cannot read the state of container %s: %w", d.id, err)
	case status == libcontainer.Created:
		return container.StateCreated, d.init, nil
	case status == libcontainer.Stopped:
		return container.StateStopped, 0, nil
	default:
		return container.StateRunning, d.init, nil
	}
}

// Signal sends a signal to the first process, or to all processes in the container's
// cgroups. SIGKILL to all thaws a frozen container. A container that has ended is no
// error. Errors have no fault code.
func (d *Direct) Signal(sig syscall.Signal, all bool) error {
	if all && sig == unix.SIGKILL {
		(&task{id: d.id, ctr: d.ctr}).killLeftover()
	}
	if err := d.ctr.Signal(sig); err != nil && !errors.Is(err, libcontainer.ErrNotRunning) {
		return fmt.Errorf("cannot signal container %s: %w", d.id, err)
	}
	if !all || sig == unix.SIGKILL {
		return nil
	}
	pids, err := d.ctr.Processes()
	for _, pid := range pids {
		if pid == d.init {
			continue
		}
		if kerr := unix.Kill(pid, sig); kerr != nil && kerr != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("cannot signal process %d: %w", pid, kerr))
		}
	}
	return err
}

// Stopped reports whether the shim is stopped by a signal (SIGSTOP).
func (d *Direct) Stopped() bool {
	stat, err := readStat(d.shim)
	return err == nil && stat.state == 'T' && isShim(d.shim)
}

// Resume lets a stopped shim go on. It has no effect on one that runs.
func (d *Direct) Resume() { _ = signalShim(d.shim, unix.SIGCONT) }

// TakeOver ends the shim of a container that has ended, and puts on record how it
// ended: the exit status is in the kernel until a parent waits for it, which the shim
// has not done. A container that still runs is an error. Errors have no fault code.
func (d *Direct) TakeOver() error {
	state, _, err := d.State()
	if err != nil {
		return err
	}
	if state != container.StateStopped {
		return fmt.Errorf("cannot end the shim of container %s: the container is %s", d.id, state)
	}
	if stat, err := readStat(d.init); err == nil && stat.state == 'Z' {
		exit := container.Exit{ExitedAt: time.Now().UTC(), Code: stat.exit.ExitStatus()}
		if stat.exit.Signaled() {
			exit.Signal = int(stat.exit.Signal())
			exit.Code = 128 + exit.Signal
		}
		if err := d.dir.WriteExit(d.id, exit, false); err != nil {
			return err
		}
	}
	return KillShim(d.shim)
}

// KillShim kills a shim by its process id. A process that is no shim, or gone, is left
// alone. The error has no fault code.
func KillShim(pid int) error {
	if err := signalShim(pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("cannot end the shim in process %d: %w", pid, err)
	}
	return nil
}

// signalShim signals a process if it is a shim. The descriptor makes sure that the
// number does not pass to another process in between.
func signalShim(pid int, sig syscall.Signal) error {
	if pid <= 1 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil || !isShim(pid) {
		if err == nil {
			_ = unix.Close(fd)
		}
		return nil // it is gone
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}

// isShim reports whether a process was started under the shim's name.
func isShim(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	name, _, _ := strings.Cut(string(data), "\x00")
	return err == nil && filepath.Base(name) == Name
}

// stat is what proc_pid_stat(5) says of a process.
type stat struct {
	state   byte
	parent  int
	started uint64
	exit    syscall.WaitStatus
}

// readStat reads /proc/PID/stat. Its fields count from 1; the second is the command's
// name in parentheses, which may hold any character.
func readStat(pid int) (stat, error) {
	const state, parent, started, exit = 3, 4, 22, 52
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) <= exit-state {
		return stat{}, fmt.Errorf("cannot read the state of process %d: %q", pid, text)
	}
	number := func(field int) uint64 {
		n, _ := strconv.ParseUint(fields[field-state], 10, 64)
		return n
	}
	return stat{state: fields[0][0], parent: int(number(parent)), started: number(started),
		exit: syscall.WaitStatus(number(exit))}, nil
}
