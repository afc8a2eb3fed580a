package main

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

// What a stopping agent gives its parts. An agent that only lets go of its
// containers has nothing to wait for but calls that have begun; one that ends them
// waits for their ladders.
const (
	drainPatience = 60 * time.Second
	letGoPatience = 20 * time.Second
	// partPatience is for a part that should take no time: answers that have begun,
	// the journal, containerd.
	partPatience = 10 * time.Second
	// slow is when a part is named in the log.
	slow = 2 * time.Second
)

// errNodeDown is why an agent stops when the node goes down.
var errNodeDown = errors.New("the node goes down")

// untilDown returns a context that ends with ctx, or with SIGPWR: so careen's init and
// its service files say that the node goes down, before they tell the agent to end.
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

// inTime does one part of stopping. One that takes long is named in the log; one
// that does not end is left behind, with what it waits for: whatever it was about to
// do, the next agent finds undone, as after a crash.
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
			log.Errorf("stopping: %s does not end; what there is:\n%s", part, stacks())
			return &fault.Error{Code: fault.Internal, Op: "stop", Subject: part,
				Reason: fmt.Sprintf("it does not end within %v", limit), Remedy: "Start the agent again: it finds its containers"}
		}
	}
}

// stacks shows what every goroutine waits for.
func stacks() []byte {
	buf := make([]byte, 128<<10)
	return buf[:goruntime.Stack(buf, true)]
}

// drain lets runs end or go on without the agent, as configured and as why ctx ended
// asks for, and stops.
func (n *node) drain(ctx context.Context) error {
	down := errors.Is(context.Cause(ctx), errNodeDown)
	limit := letGoPatience
	if n.opts.stopOnExit || down {
		limit = drainPatience
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	err := inTime(n.log, "letting go of the runs", limit+partPatience, func() error { return n.agent.Drain(ctx, down) })
	if errors.Is(err, context.DeadlineExceeded) {
		// Its wish to end them is on record: the next agent goes on with that.
		n.log.Warnf("stopping: not all runs ended within %v; they are left to the next agent", limit)
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

// awaitStop returns when the agent is to stop: with ctx, when it cannot serve, or
// for a reboot that a container asked for, if the operator allows that; reboot says
// why then, and everything that must not be interrupted has ended.
func (n *node) awaitStop(ctx context.Context) (reboot string, err error) {
	var wishes <-chan exec.Reboot
	if n.opts.allowReboot {
		wishes = n.agent.Reboots()
	}
	select {
	case <-ctx.Done():
		return "", nil
	case err := <-n.served:
		n.served <- err
		return "", err
	case wish := <-wishes:
		reboot = fmt.Sprintf("run %s: %s", wish.Run, wish.Reason)
	}
	n.log.Warnf("the node is to be rebooted: %s", reboot)
	err = n.agent.PrepareReboot(ctx)
	if ctx.Err() != nil {
		n.log.Warn("told to stop before the reboot: the next agent goes on with it")
		return "", nil
	}
	if err != nil {
		// A reboot helps more than waiting for a disk that cannot be written.
		n.log.WithError(err).Error("not all is stored before the reboot")
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
