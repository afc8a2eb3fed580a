package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	ctrdshim "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

// endPatience limits the wait for the end of a shim after a shutdown request.
const endPatience = 5 * time.Second

// Remote is the agent's view of a shim that it started or found running.
type Remote struct {
	// Task is the shim's task service.
	Task taskapi.TTRPCTaskService

	client *ttrpc.Client
	socket string
	pid    int
	// lost is closed when the connection ends, which happens when the shim's process ends.
	lost chan struct{}
	// ended is closed when the process has ended; nil for a shim that another process
	// started.
	ended chan struct{}
	// lifeline ends the shim with this process until it has a container.
	lifeline *os.File
	once     sync.Once
}

var spawned atomic.Uint64

// Spawn starts a shim for a container that is named later, by the first Create. It
// returns before the shim answers. Until it has a container the shim ends with
// [Remote.Close], with this process, or after half a minute. Errors have no fault code.
func Spawn(binary, namespace, socketDir string) (_ *Remote, err error) {
	socket := filepath.Join(socketDir, fmt.Sprintf("new-%d-%d", os.Getpid(), spawned.Add(1)))
	listener, err := ctrdshim.NewSocket("unix://" + socket)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", socket, err)
	}
	// The socket belongs to the shim: it stays when this process closes the listener.
	listener.SetUnlinkOnClose(false)
	defer listener.Close()
	defer func() {
		if err != nil {
			_ = os.Remove(socket)
		}
	}()
	file, err := listener.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	hold, lifeline, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	inv := invocation{namespace: namespace, ttrpcAddress: NoEvents}
	cmd, err := inv.spawn(binary, "unix://"+socket, file, hold)
	if err != nil {
		return nil, errors.Join(err, lifeline.Close())
	}
	r := &Remote{socket: socket, lifeline: lifeline, ended: make(chan struct{}), pid: cmd.Process.Pid}
	go func() {
		_ = cmd.Wait()
		close(r.ended)
	}()
	if err := r.connect(); err != nil {
		return nil, errors.Join(err, lifeline.Close())
	}
	return r, nil
}

// Dial connects to the shim of a container. The error is fs.ErrNotExist or ECONNREFUSED
// if the container has no shim any more; no error has a fault code.
func Dial(socketDir, id string) (*Remote, error) {
	r := &Remote{socket: SocketPath(socketDir, id)}
	return r, r.connect()
}

// SocketPath is the socket of a container's shim that [Spawn] started.
func SocketPath(socketDir, id string) string { return filepath.Join(socketDir, id) }

func (r *Remote) connect() error {
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		return err
	}
	if r.pid == 0 {
		r.pid = peerOf(conn)
	}
	r.lost = make(chan struct{})
	r.client = ttrpc.NewClient(conn, ttrpc.WithOnClose(func() { close(r.lost) }))
	r.Task = taskapi.NewTTRPCTaskClient(r.client)
	return nil
}

// peerOf returns the process at the other end of a unix socket, 0 if it is unknown.
func peerOf(conn net.Conn) (pid int) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// Pid is the shim's process, 0 if it is unknown.
func (r *Remote) Pid() int { return r.pid }

// Name moves the shim's socket to the path where [Dial] looks for it, for the container
// that Create will make.
func (r *Remote) Name(id string) error {
	path := SocketPath(filepath.Dir(r.socket), id)
	if err := os.Rename(r.socket, path); err != nil {
		return fmt.Errorf("cannot name the shim's socket: %w", err)
	}
	r.socket = path
	return nil
}

// Alive reports whether the shim's process existed at the time of the call.
func (r *Remote) Alive() bool {
	select {
	case <-r.lost:
		return false
	default:
		return true
	}
}

// Lost is closed when the shim has ended.
func (r *Remote) Lost() <-chan struct{} { return r.lost }

// Close closes the connection. A shim without a container ends, one with a container
// continues. The error has no fault code.
func (r *Remote) Close() error {
	var err error
	r.once.Do(func() {
		err = r.client.Close()
		if r.lifeline != nil {
			err = errors.Join(err, r.lifeline.Close())
		}
	})
	return err
}

// End asks a shim whose container was deleted to end, and waits for at most [endPatience].
// The error is context.DeadlineExceeded where it does not end; it has no fault code.
func (r *Remote) End(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	_, err := r.Task.Shutdown(ctx, &taskapi.ShutdownRequest{ID: id})
	if errors.Is(err, ttrpc.ErrClosed) {
		err = nil
	}
	err = errors.Join(err, r.Close())
	ended := r.ended
	if ended == nil {
		ended = r.lost
	}
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("the shim of container %s does not end: %w", id, ctx.Err()))
	}
}

// spawn starts the serving process in a new session, so that signals meant
// for the agent's process group do not reach it. The listener becomes its first
// descriptor, the other files follow.
func (inv invocation) spawn(binary, address string, files ...*os.File) (*exec.Cmd, error) {
	args := []string{"-namespace", inv.namespace, "-socket", address}
	if inv.id != "" {
		args = append(args, "-id", inv.id, "-address", inv.address)
	}
	if len(files) > 1 {
		args = append(args, "-lifeline")
	}
	cmd := exec.Command(binary, args...)
	cmd.Args[0] = Name
	// Of the agent's environment the shim needs only where to send events.
	cmd.Env = []string{"GOMAXPROCS=2", "TTRPC_ADDRESS=" + inv.ttrpcAddress}
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the shim: %w", err)
	}
	// If the kernel kills the shim for lack of memory, the step's exit code is
	// lost. Without CAP_SYS_RESOURCE this fails; the shim runs anyway.
	_ = os.WriteFile("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/oom_score_adj", []byte("-998"), 0o644)
	return cmd, nil
}
