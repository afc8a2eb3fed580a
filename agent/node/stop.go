package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	goruntime "runtime"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/fault"
)

// Time limits of the parts of a stopping agent.
const (
	// drainPatience is for ending containers: stop signal, grace period, SIGKILL.
	drainPatience = 60 * time.Second
	// detachPatience is for leaving containers: only calls that have begun take time.
	detachPatience = 20 * time.Second
	// partPatience is for the quick parts: answers that have begun, the journal,
	// containerd.
	partPatience = 10 * time.Second
	// slow is the time after which the log names a part.
	slow = 2 * time.Second
)

// errNodeDown is the cause of the end of an agent when the node goes down.
var errNodeDown = errors.New("the node goes down")

// untilDown returns a context that ends with ctx, or with SIGPWR. careen's init and its
// service files send SIGPWR before SIGTERM when the node goes down.
func untilDown(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	down := make(chan os.Signal, 1)
	signal.Notify(down, unix.SIGPWR)
	go func() {
		defer signal.Stop(down)
		select {
		case <-down:
			cancel(errNodeDown)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// inTime stops one part. The log names a part that takes long. After limit inTime logs
// the goroutines and returns an error of code internal: the next agent recovers, as after
// a crash.
func inTime(log logrus.FieldLogger, part string, limit time.Duration, do func() error) error {
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- do() }()
	warn, giveUp := time.NewTimer(slow), time.NewTimer(limit)
	defer warn.Stop()
	defer giveUp.Stop()
	for {
		select {
		case err := <-done:
			if took := time.Since(began); took >= slow {
				log.Warnf("stopping: %s took %v", part, took.Round(time.Millisecond))
			}
			return err
		case <-warn.C:
			log.Warnf("stopping: %s takes long", part)
		case <-giveUp.C:
			log.Errorf("stopping: %s does not end; the goroutines:\n%s", part, stacks())
			return &fault.Error{Code: fault.Internal, Op: "stop", Subject: part,
				Reason: fmt.Sprintf("it does not end within %v", limit), Remedy: "Start the agent again; it adopts its containers"}
		}
	}
}

// stacks returns the stacks of all goroutines.
func stacks() []byte {
	buf := make([]byte, 128<<10)
	return buf[:goruntime.Stack(buf, true)]
}

// drain ends the runs, or leaves their containers running, and closes the node. The runs
// end if the options say so, or if the node goes down (the cause of ctx's end).
func (n *node) drain(ctx context.Context) error {
	down := errors.Is(context.Cause(ctx), errNodeDown)
	limit := detachPatience
	if n.opts.StopOnExit || down {
		limit = drainPatience
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	err := inTime(n.log, "the runs", limit+partPatience, func() error { return n.agent.Drain(ctx, down) })
	if errors.Is(err, context.DeadlineExceeded) {
		// The stop is in the journal, so the next agent continues it.
		n.log.Warnf("stopping: not all runs ended within %v; the next agent continues to end them", limit)
		err = nil
	}
	return errors.Join(err, n.close())
}

func (n *node) close() error {
	var errs []error
	part := func(name string, do func() error) { errs = append(errs, inTime(n.log, name, partPatience, do)) }
	if n.stop != nil {
		part("the socket", func() error {
			n.stop()
			return <-n.served
		})
	}
	if n.agent != nil {
		part("the agent", n.agent.Close)
	}
	if n.engine != nil {
		part("containerd", n.engine.Close)
	}
	for _, lock := range n.locks {
		errs = append(errs, lock.Close())
	}
	return errors.Join(errs...)
}

// awaitStop returns when ctx ends, when the agent cannot serve, or when a container
// requests a reboot and the options allow it. Then reboot is the reason, and everything
// that must not be interrupted has ended.
func (n *node) awaitStop(ctx context.Context) (reboot string, err error) {
	var requests <-chan exec.Reboot
	if n.opts.AllowReboot {
		requests = n.agent.Reboots()
	}
	select {
	case <-ctx.Done():
		return "", nil
	case err := <-n.served:
		n.served <- err
		return "", err
	case request := <-requests:
		reboot = fmt.Sprintf("run %s: %s", request.Run, request.Reason)
	}
	n.log.Warnf("a reboot of the node is requested by %s", reboot)
	err = n.agent.PrepareReboot(ctx)
	switch {
	case ctx.Err() != nil:
		n.log.Warn("stopped before the reboot; the next agent reboots the node")
		reboot = ""
	case err != nil:
		// A reboot helps more than waiting for a disk that cannot be written.
		n.log.WithError(err).Error("cannot store all records before the reboot")
	}
	return reboot, nil
}

// rebootNode is the one place where careen restarts a machine.
func rebootNode() error {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return &fault.Error{Code: fault.Node, Op: "reboot the node", Err: err, Remedy: "Give careen CAP_SYS_BOOT, or reboot it yourself"}
	}
	return nil
}
