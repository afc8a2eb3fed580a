package node

import (
	"context"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/careen-project/careen/agent/fault"
)

// Serve runs an agent until ctx ends, the node goes down (SIGPWR), or a container requests
// a reboot and the options allow it; then it reboots the node. Errors are those of the
// parts: forbidden without root, conflict if another agent runs in the same directories,
// bad_config, node, unreachable, and internal if a part did not stop in time.
func Serve(ctx context.Context, opts Options, log *logrus.Logger) error {
	if os.Geteuid() != 0 {
		return &fault.Error{Code: fault.Forbidden, Op: "start the agent", Reason: "it needs root", Remedy: "Run careen agent as root"}
	}
	// A step that exhausts the node's memory shall die before its agent. Without
	// CAP_SYS_RESOURCE this is refused, and nothing else depends on it.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0o644)
	ctx, stop := untilDown(ctx)
	defer stop()
	started := time.Now()
	n, err := open(ctx, opts, log, true)
	if err != nil {
		return err
	}
	log.Infof("ready on %s after %d ms: cgroup %s, store %s (%s, %s free), pivot_root %v", opts.Socket,
		time.Since(started).Milliseconds(), n.layout.CgroupMode, n.layout.StoreDir, n.layout.StoreFS,
		sizeText(n.layout.StoreFree), n.layout.PivotRoot)
	reboot, err := n.awaitStop(ctx)
	if err != nil {
		return err
	}
	log.Info("stopping")
	if err := n.drain(ctx); err != nil && reboot == "" {
		return err
	}
	if reboot != "" {
		log.Warnf("rebooting the node: %s", reboot)
		return rebootNode()
	}
	return nil
}

// With runs an agent while f runs, and then until the runs of other clients have ended.
// started is false if the agent could not start: f was not called. Errors are those of f,
// and those that [Serve] lists.
func With(ctx context.Context, opts Options, log *logrus.Logger, f func() error) (started bool, err error) {
	n, err := open(ctx, opts, log, false)
	if err != nil {
		return false, err
	}
	ferr := f()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainPatience)
	defer cancel()
	for _, run := range n.agent.Runs() {
		if !run.State.Final() {
			_, _ = n.agent.Wait(ctx, run.ID)
		}
	}
	if err := n.drain(ending); err != nil && ferr == nil {
		return true, err
	}
	return true, ferr
}
