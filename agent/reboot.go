package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
)

// Reboot is a container's wish that the node be rebooted, once its run has ended.
type Reboot struct {
	// Run is the id of the run, Reason what asked for it, in words.
	Run, Reason string
}

// Reboots hands out the wishes of containers for a reboot, also that of a run which
// ended under an agent before this one. Nothing is lost when nobody listens: the
// run's outcome has it, and health.
func (a *Agent) Reboots() <-chan Reboot { return a.reboots }

// wishReboot has no run start until the node is rebooted or r is deleted. The lock
// is held.
func (a *Agent) wishReboot(r *run) {
	a.rebootBy = r.id
	select {
	case a.reboots <- Reboot{Run: r.id, Reason: r.rec.Run.Outcome.RebootReason}:
	default:
	}
}

// PrepareReboot gets ready for a reboot that a container asked for: what waits ends
// with reboot_pending, what runs is waited for, since it may be a flash and has
// limits of its own, and everything that is kept is brought to stable storage. A
// container that survives SIGKILL is not waited for. When it returns nil, close the
// agent and reboot; an error says that ctx ended before, or what is not stored.
func (a *Agent) PrepareReboot(ctx context.Context) error {
	a.mu.Lock()
	a.draining = true
	for _, r := range slices.Clone(a.queue) {
		a.failQueued(r, a.rebootPending("start run"))
	}
	var waitFor []*run
	for r := range a.active {
		if !r.stuck {
			waitFor = append(waitFor, r)
			a.cfg.Log.WithField("run", r.id).Info("the reboot waits for this run's end")
		}
	}
	a.mu.Unlock()
	for _, r := range waitFor {
		for _, reached := range []chan struct{}{r.done, r.tidied} {
			if a.isStuck(r) {
				break
			}
			select {
			case <-reached:
			case <-ctx.Done():
				return fmt.Errorf("cannot reboot before the end of run %s: %w", r.id, ctx.Err())
			}
		}
	}
	a.pushRest(ctx)
	return a.Flush()
}

func (a *Agent) isStuck(r *run) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return r.stuck
}

func (a *Agent) rebootPending(op string) error {
	return &fault.Error{Code: fault.RebootPending, Op: op,
		Reason: fmt.Sprintf("run %s asked for a reboot of the node, which has not happened yet", a.rebootBy),
		Remedy: "Reboot the node, or delete that run to go on without",
		Attrs:  map[string]any{fault.AttrHolder: a.rebootBy}}
}

// syncFS flushes the state directory's file system, before a reboot.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// Flush writes all records that are due and has the state directory's file system
// written out. Who reboots the node calls it before.
func (a *Agent) Flush() error {
	a.mu.Lock()
	var err error
	if a.records.journal != nil {
		err = a.records.retry("")
	}
	a.mu.Unlock()
	return errors.Join(err, syncFS(a.cfg.StateDir))
}
