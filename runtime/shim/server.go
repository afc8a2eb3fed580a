package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	ctrdshim "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

// listenerFD is the descriptor on which start hands over the socket.
const listenerFD = 3

// serve answers the task service until containerd says shutdown.
func (inv invocation) serve(ctx context.Context) error {
	// Orphans of a container without a PID namespace become the shim's children:
	// it sees their end, and none of them is the node's init's to reap.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot become subreaper: %w", err)
	}
	// Nobody may end a shim but containerd: whoever ends the agent politely
	// expects the step to live on.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)

	file := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(file)
	if err != nil {
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
	taskapi.RegisterTTRPCTaskService(server, newService(inv.id, reaper, publisher, stop))

	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	select {
	case <-ctx.Done():
		// Let the answer to shutdown leave before the connection closes.
		err = server.Shutdown(context.WithoutCancel(ctx))
	case err = <-served:
	}
	publisher.close()
	return errors.Join(err, ctrdshim.RemoveSocket(inv.socket))
}
