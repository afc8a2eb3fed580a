package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	ctrdshim "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

// listenerFD is the descriptor on which start hands over the socket.
const listenerFD = 3

// backlog is the number of connections that may wait to be accepted.
const backlog = 128

// lifelineFD is a pipe without a writer's data. Its end of file means that the agent ended.
const lifelineFD = 4

// idleLimit ends a shim without a container: the process that started it died before it
// asked for one. Usually that takes milliseconds, or seconds on an emulated node.
const idleLimit = 30 * time.Second

// SocketOf returns the path of the socket on which the shim of a bundle listens, as
// containerd has it on record there; "" where there is no record.
func SocketOf(bundle string) string {
	address := ""
	if data, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json")); err == nil {
		var record struct{ Address string }
		if json.Unmarshal(data, &record) == nil {
			address = record.Address
		}
	} else if data, err := os.ReadFile(filepath.Join(bundle, "address")); err == nil {
		address = string(data) // of containerd 1.7
	}
	return strings.TrimPrefix(strings.TrimSpace(address), "unix://")
}

// RemoveDeadSocket removes a socket that a killed shim left. One that a shim
// listens on stays. Errors are those of the file system.
func RemoveDeadSocket(path string) error {
	if path == "" || ctrdshim.CanConnect("unix://"+path) {
		return nil
	}
	if err := ctrdshim.RemoveSocket("unix://" + path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// serve answers the task service until containerd says shutdown.
func (inv invocation) serve(ctx context.Context) error {
	// Orphans of a container without a PID namespace become the shim's children:
	// it sees their end, and none of them is the node's init's to reap.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot become subreaper: %w", err)
	}
	// Only containerd ends a shim. A signal that stops the agent may reach the shim too,
	// and the step has to go on.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)

	file := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("cannot use the socket: %w", err)
	}
	// The kernel gives the process that listened last as the peer of a connection
	// (SO_PEERCRED, unix(7)): the shim, not the agent that made the socket.
	if err := unix.Listen(listenerFD, backlog); err != nil {
		return fmt.Errorf("cannot use the socket: %w", err)
	}
	_ = file.Close()

	publisher, err := newPublisher(inv.ttrpcAddress)
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	reaper := startReaper(ctx)
	service := newService(inv.id, reaper, publisher, stop)
	taskapi.RegisterTTRPCTaskService(server, service)
	registerV2(server, service)
	idle := time.AfterFunc(idleLimit, service.endIdle)
	defer idle.Stop()
	if inv.lifeline {
		go service.endWith(os.NewFile(lifelineFD, "lifeline"))
	}

	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	select {
	case <-ctx.Done():
		// Let the answer to shutdown leave before the connection closes.
		err = server.Shutdown(context.WithoutCancel(ctx))
	case err = <-served:
	}
	publisher.close()
	err = errors.Join(err, removeSocket(inv.socket))
	if inv.lifeline {
		err = errors.Join(err, removeSocket(service.socket(inv.socket)))
	}
	return err
}

func removeSocket(address string) error {
	if err := ctrdshim.RemoveSocket(address); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
