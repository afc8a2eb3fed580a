package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	// Lets libcontainer write device rules: BPF programs on cgroup v2.
	_ "github.com/opencontainers/cgroups/devices"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/container"
)

const (
	// leftoverPatience bounds the wait for processes that outlived the init after
	// SIGKILL; one in uninterruptible sleep does not go.
	leftoverPatience = 2 * time.Second
	// drainPatience bounds the wait for output after the last process has gone: a
	// descriptor that was passed to a process elsewhere keeps a pipe open.
	drainPatience = 2 * time.Second
)

// task is the one container of this shim.
type task struct {
	id     string
	bundle string
	target Target
	ctr    *libcontainer.Container
	proc   *libcontainer.Process
	io     *stdio
	reaper *reaper
	pid    int
	// ownPidNS: the init's death takes every process with it.
	ownPidNS bool

	mu      sync.Mutex
	started time.Time
	sent    map[syscall.Signal]bool
	exit    *container.Exit
	done    chan struct{}
}

// createRequest is what containerd asks for.
type createRequest struct {
	id, bundle, stdout string
	terminal           bool
	rootfs             []mount.Mount
}

// newTask mounts the root file system and creates the container up to the
// point where its init waits for start. On an error nothing is left.
func newTask(req createRequest, r *reaper) (_ *task, err error) {
	target, err := ParseTarget(req.stdout)
	if err != nil {
		return nil, err
	}
	spec, err := readSpec(req.bundle)
	if err != nil {
		return nil, err
	}
	if err := rememberTarget(req.bundle, req.stdout); err != nil {
		return nil, err
	}
	rootfs := filepath.Join(req.bundle, "rootfs")
	if err := mountRootfs(req.rootfs, rootfs); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unmountAll(rootfs))
		}
	}()
	spec.Root.Path = rootfs

	c := &task{
		id: req.id, bundle: req.bundle, target: target, reaper: r,
		ownPidNS: ownPidNamespace(spec), sent: map[syscall.Signal]bool{}, done: make(chan struct{}),
	}
	err = c.create(spec, req.terminal, takeNodes)
	if errors.Is(err, errNodes) {
		err = c.create(spec, req.terminal, noNodes)
	}
	return c, err
}

// create makes the container of its spec; take says which device nodes the shim makes.
func (c *task) create(spec *specs.Spec, terminal bool, take func(*configs.Config) []*devices.Device) (err error) {
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:   c.id,
		Spec:         spec,
		RootlessEUID: os.Geteuid() != 0,
	})
	if err != nil {
		return fmt.Errorf("the runtime refuses the spec: %w", err)
	}
	if config.OomScoreAdj == nil {
		// Not the shim's value: out of memory, the kernel has to kill the step before the shim.
		config.OomScoreAdj = new(int)
	}
	nodes := take(config)
	if err := os.MkdirAll(c.target.Dir.State(), 0o700); err != nil {
		return err
	}
	if c.ctr, err = libcontainer.Create(c.target.Dir.State(), c.id, config); err != nil {
		return fmt.Errorf("cannot create container: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.ctr.Destroy())
		}
	}()
	if c.proc, err = newProcess(spec.Process); err != nil {
		return err
	}
	program, err := c.passProgram(config.Seccomp)
	if err != nil {
		return err
	}
	if c.io, err = openStdio(c.target, c.proc, terminal); err != nil {
		program.drop()
		return err
	}
	c.reaper.hold(func() {
		if err = c.ctr.Start(c.proc); err != nil {
			return
		}
		if c.pid, err = c.proc.Pid(); err == nil {
			c.reaper.manage(c.pid)
		}
	})
	if err != nil {
		program.drop()
		c.io.abandon()
		return err
	}
	program.store()
	if err = makeNodes(c.pid, nodes); err == nil {
		err = c.io.attach()
	}
	if err != nil {
		_ = c.ctr.Signal(unix.SIGKILL)
		_, _ = c.proc.Wait()
		c.reaper.release(c.pid)
		c.io.abandon()
		return err
	}
	go c.await()
	return nil
}

// start lets the init execute the container's command.
func (c *task) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started.IsZero() {
		return fmt.Errorf("container %s was started already: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	c.started = time.Now()
	return c.ctr.Exec()
}

// await waits for the init's exit, kills the processes that outlived it, reads the rest of
// the output, writes the exit record, and then releases the waiters.
func (c *task) await() {
	state, err := c.proc.Wait()
	c.reaper.release(c.pid)
	exit, seen := c.exitOf(state, err)
	exit.Killed = c.killLeftover()
	exit.OOMKilled = c.oomKills() > 0
	c.io.drain(drainPatience)
	if err := c.target.Dir.WriteExit(c.id, exit, !seen); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	c.mu.Lock()
	c.exit = &exit
	c.mu.Unlock()
	close(c.done)
}

// exitOf returns how the init ended; seen is false where wait(2) did not tell.
func (c *task) exitOf(state *os.ProcessState, err error) (exit container.Exit, seen bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	exit.ExitedAt = time.Now()
	if !c.started.IsZero() {
		exit.Ran = exit.ExitedAt.Sub(c.started)
	}
	exit.ExitedAt = exit.ExitedAt.UTC()
	status, ok := waitStatus(state)
	switch {
	case !ok:
		exit.Code = 255
		fmt.Fprintf(os.Stderr, "cannot wait for container %s: %v\n", c.id, err)
	case status.Signaled():
		exit.Signal = int(status.Signal())
		exit.Code = 128 + exit.Signal
		exit.Reboot = c.rebootOf(status.Signal())
	default:
		exit.Code = status.ExitStatus()
	}
	return exit, ok
}

// rebootOf tells a reboot(2) inside the PID namespace from a signal that was
// sent: see [container.Exit].
func (c *task) rebootOf(sig syscall.Signal) string {
	if !c.ownPidNS || c.sent[sig] {
		return ""
	}
	switch sig {
	case syscall.SIGHUP:
		return "restart"
	case syscall.SIGINT:
		return "halt"
	default:
		return ""
	}
}

func waitStatus(state *os.ProcessState) (syscall.WaitStatus, bool) {
	if state == nil {
		return 0, false
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	return status, ok
}

// killLeftover ends what the container daemonised and returns how many
// processes that were.
func (c *task) killLeftover() int {
	pids, err := c.ctr.Processes()
	if err != nil || len(pids) == 0 {
		return 0
	}
	count := len(pids)
	deadline := time.Now().Add(leftoverPatience)
	for time.Now().Before(deadline) {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		// The shim may not be their parent, so there is no event to wait for.
		time.Sleep(5 * time.Millisecond)
		if pids, err = c.ctr.Processes(); err != nil || len(pids) == 0 {
			break
		}
	}
	return count
}

// kill sends a signal to the init, or to every process of the container.
func (c *task) kill(sig syscall.Signal, all bool) error {
	c.mu.Lock()
	if c.exit != nil {
		c.mu.Unlock()
		return fmt.Errorf("container %s has ended: %w", c.id, errdefs.ErrNotFound)
	}
	c.sent[sig] = true
	c.mu.Unlock()
	if !all || (c.ownPidNS && sig == unix.SIGKILL) {
		err := c.ctr.Signal(sig)
		if errors.Is(err, libcontainer.ErrNotRunning) || errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("container %s has ended: %w", c.id, errdefs.ErrNotFound)
		}
		return err
	}
	pids, err := c.ctr.Processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if kerr := unix.Kill(pid, sig); kerr != nil && kerr != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("cannot signal process %d: %w", pid, kerr))
		}
	}
	return err
}

// delete removes the container's mounts, cgroup and state. One that was created and not
// started is killed; while it runs the error is errdefs.ErrFailedPrecondition.
func (c *task) delete() (container.Exit, error) {
	c.mu.Lock()
	started, ended := !c.started.IsZero(), c.exit != nil
	c.mu.Unlock()
	if !ended {
		if started {
			return container.Exit{}, fmt.Errorf("container %s is running: %w", c.id, errdefs.ErrFailedPrecondition)
		}
		_ = c.kill(unix.SIGKILL, true)
		<-c.done
	}
	err := errors.Join(c.ctr.Destroy(), unmountAll(filepath.Join(c.bundle, "rootfs")))
	return *c.exit, err
}

func readSpec(bundle string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	spec := new(specs.Spec)
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, fmt.Errorf("cannot read spec in %s: %w", bundle, err)
	}
	if spec.Process == nil || len(spec.Process.Args) == 0 || spec.Root == nil || spec.Linux == nil {
		return nil, fmt.Errorf("spec in %s lacks process, root or linux: %w", bundle, errdefs.ErrInvalidArgument)
	}
	return spec, nil
}

func mountRootfs(mounts []mount.Mount, rootfs string) error {
	if err := os.MkdirAll(rootfs, 0o711); err != nil {
		return err
	}
	if err := mount.All(mounts, rootfs); err != nil {
		return fmt.Errorf("cannot mount the image: %w", errors.Join(err, unmountAll(rootfs)))
	}
	return nil
}

// unmountAll detaches what is mounted on path; nothing there is no error.
func unmountAll(path string) error {
	if err := mount.UnmountAll(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot unmount %s: %w", path, err)
	}
	return nil
}

func ownPidNamespace(spec *specs.Spec) bool {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path == ""
		}
	}
	return false
}

// oomKills counts the kernel's OOM kills in the container's cgroup.
func (c *task) oomKills() uint64 {
	state, err := c.ctr.State()
	if err != nil {
		return 0
	}
	// The hybrid layout has both; its v2 side has no controllers.
	if dir := state.CgroupPaths["memory"]; dir != "" {
		return counter(filepath.Join(dir, "memory.oom_control"), "oom_kill")
	}
	if dir := state.CgroupPaths[""]; dir != "" {
		return counter(filepath.Join(dir, "memory.events"), "oom_kill")
	}
	return 0
}

// counter reads one "key value" line of a cgroup file; absent is 0.
func counter(path, key string) uint64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range splitLines(data) {
		if name, value, ok := cutSpace(line); ok && name == key {
			n, _ := strconv.ParseUint(value, 10, 64)
			return n
		}
	}
	return 0
}

// newProcess translates the spec's process for libcontainer.
func newProcess(p *specs.Process) (*libcontainer.Process, error) {
	proc := &libcontainer.Process{
		Init: true, Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		Label: p.SelinuxLabel, AppArmorProfile: p.ApparmorProfile,
		NoNewPrivileges: &p.NoNewPrivileges,
		Scheduler:       p.Scheduler, IOPriority: p.IOPriority,
		LogLevel: "4", // info; libcontainer passes it on as a number
	}
	for _, gid := range p.User.AdditionalGids {
		proc.AdditionalGroups = append(proc.AdditionalGroups, int(gid))
	}
	if p.ConsoleSize != nil {
		proc.ConsoleWidth, proc.ConsoleHeight = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
	}
	if caps := p.Capabilities; caps != nil {
		proc.Capabilities = &configs.Capabilities{
			Bounding: caps.Bounding, Effective: caps.Effective, Inheritable: caps.Inheritable,
			Permitted: caps.Permitted, Ambient: caps.Ambient,
		}
	}
	for _, limit := range p.Rlimits {
		number, ok := rlimits[limit.Type]
		if !ok {
			return nil, fmt.Errorf("unknown resource limit %q: %w", limit.Type, errdefs.ErrInvalidArgument)
		}
		proc.Rlimits = append(proc.Rlimits, attainable(configs.Rlimit{Type: number, Hard: limit.Hard, Soft: limit.Soft}))
	}
	return proc, nil
}

// attainable lowers a limit to what the shim may set: without CAP_SYS_RESOURCE a
// hard limit cannot be raised (setrlimit(2)), and a step that asks for more open
// files than the shim may set runs with fewer. podman does the same.
func attainable(limit configs.Rlimit) configs.Rlimit {
	var have unix.Rlimit
	if unix.Getrlimit(limit.Type, &have) != nil || limit.Hard <= have.Max {
		return limit
	}
	raised := unix.Rlimit{Cur: have.Cur, Max: limit.Hard}
	if unix.Setrlimit(limit.Type, &raised) == nil {
		_ = unix.Setrlimit(limit.Type, &have)
		return limit
	}
	limit.Hard = have.Max
	limit.Soft = min(limit.Soft, have.Max)
	return limit
}

// rlimits are the resource limits of getrlimit(2) by their names in the spec.
var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}
