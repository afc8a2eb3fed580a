package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
)

// Agent runs steps. Make one with [New], let it find earlier runs with
// [Agent.Recover], then [Agent.Serve] its socket.
type Agent struct {
	cfg     Config
	started time.Time
	audit   *auditLog
	metrics *metrics
	hash    *hasher
	reboots chan Reboot
	server  *httpd.Server

	// ctx ends when the agent lets go of its runs without ending them.
	ctx    context.Context //nolint:containedctx // the life of goroutines that outlive any call
	detach context.CancelFunc
	work   sync.WaitGroup

	// stdins are the inputs that are open, by container.
	stdins struct {
		sync.Mutex
		open map[string]io.WriteCloser
	}

	// mu orders all changes. It is held while a record is brought to stable storage,
	// which takes long on a slow disk: who only looks takes see instead.
	mu sync.Mutex
	// see guards, for readers without mu, what a view of a run is made of: runs, order,
	// queue, and in a run its rec, pull and critical. Who changes one of them holds both.
	see     sync.RWMutex
	records *records
	gone    *forgotten
	runs    map[string]*run
	order   []*run // by acceptance, oldest first
	queue   []*run
	active  map[*run]bool
	pulls   pulls
	pushes  pushes
	// rebootBy is the run that asked for a reboot, "" for none.
	rebootBy string
	// lit is the run that the beacon names.
	lit string
	// unremoved are containers of earlier runs that do not go, with their run's id.
	unremoved map[string]string
	recovered bool
	draining  bool
}

// New makes an agent. It opens the journal and the audit record and touches no
// container; the caller calls [Agent.Recover] next, and [Agent.Close] in the end.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := makeDirs(cfg); err != nil {
		return nil, err
	}
	recs, err := openRecords(cfg)
	if err != nil {
		return nil, err
	}
	ctx, detach := context.WithCancel(context.Background())
	a := &Agent{
		cfg: cfg, started: time.Now().UTC(), records: recs, metrics: newMetrics(), reboots: make(chan Reboot, 16),
		runs: map[string]*run{}, active: map[*run]bool{}, ctx: ctx, detach: detach,
		unremoved: map[string]string{}, audit: openAudit(filepath.Join(cfg.StateDir, "audit.jsonl")),
	}
	a.stdins.open = map[string]io.WriteCloser{}
	a.pulls.byID = map[string]*pullJob{}
	a.pushes = newPushes()
	a.cfg.Version.StartedAt = a.started.Format(time.RFC3339)
	if a.hash, err = openHasher(cfg); err == nil {
		a.gone, err = openForgotten(cfg, recs)
	}
	if err != nil {
		detach()
		return nil, errors.Join(err, recs.close())
	}
	a.server = a.newServer()
	return a, nil
}

// makeDirs makes what only root may look into.
func makeDirs(cfg Config) error {
	for _, dir := range []string{
		cfg.RunDir, filepath.Join(cfg.RunDir, "runs"), filepath.Join(cfg.RunDir, "requests"), filepath.Join(cfg.RunDir, "events"),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return &fault.Error{Code: fault.Node, Op: "make directory", Subject: dir, Err: err,
				Remedy: "Give the agent a writable directory"}
		}
	}
	err := os.MkdirAll(filepath.Join(cfg.StateDir, "runs"), 0o700)
	if err != nil && cfg.Persistent {
		return &fault.Error{Code: fault.Node, Op: "make directory", Subject: cfg.StateDir, Err: err,
			Remedy: "Check the directory given with --state"}
	}
	return nil
}

// Close lets go of all runs without ending them, waits for everything that the
// agent began, and closes its files. The containers go on.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.draining = true
	a.mu.Unlock()
	a.detach()
	a.work.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.records.close(), a.gone.close(), a.audit.close())
}

// Drain takes no more runs and then, as configured, ends those there are by the
// ladder or lets go of them for the next agent to adopt. Runs that wait stay on
// record and are taken up again, unless containers are to be stopped. down says that
// the node goes down, which nothing outlives: then all are ended. It returns when that
// is done or ctx ends; call [Agent.Close] after it.
func (a *Agent) Drain(ctx context.Context, down bool) error {
	a.mu.Lock()
	a.draining = true
	var waitFor []*run
	if a.cfg.StopOnDrain || down {
		cause, reason := causeDrain, "the agent is stopping"
		if down {
			cause, reason = causeDown, "the node is shutting down"
		}
		for _, r := range slices.Clone(a.queue) {
			a.endQueued(r, &stop{Cause: cause, Reason: reason})
		}
		for r := range a.active {
			if !r.stuck {
				a.requestStop(r, &stop{Cause: cause, Reason: reason})
				waitFor = append(waitFor, r)
			}
		}
	}
	a.mu.Unlock()
	for _, r := range waitFor {
		select {
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if down {
		a.pushRest(ctx)
	}
	a.detach()
	return waitGroup(ctx, &a.work)
}

// waitGroup waits for wg or ctx.
func waitGroup(ctx context.Context, wg *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		wg.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run returns one run.
func (a *Agent) Run(id string) (api.Run, error) {
	a.see.RLock()
	defer a.see.RUnlock()
	r, err := a.find(id)
	if err != nil {
		return api.Run{}, err
	}
	return a.view(r), nil
}

// Runs returns all runs that are remembered, oldest first.
func (a *Agent) Runs() []api.Run {
	a.see.RLock()
	defer a.see.RUnlock()
	all := make([]api.Run, 0, len(a.order))
	for _, r := range a.order {
		all = append(all, a.view(r))
	}
	return all
}

// change does what readers without the lock must not see half done. The lock is held.
func (a *Agent) change(do func()) {
	a.see.Lock()
	defer a.see.Unlock()
	do()
}

// look is find for who does not hold the lock.
func (a *Agent) look(id string) (*run, error) {
	a.see.RLock()
	defer a.see.RUnlock()
	return a.find(id)
}

// show is view for who does not hold the lock.
func (a *Agent) show(r *run) api.Run {
	a.see.RLock()
	defer a.see.RUnlock()
	return a.view(r)
}

// know remembers a run. The lock is held.
func (a *Agent) know(r *run) {
	a.change(func() {
		a.runs[r.id] = r
		a.order = append(a.order, r)
	})
}

// unqueue has r wait no longer. The lock is held.
func (a *Agent) unqueue(r *run) {
	a.change(func() { a.queue = slices.DeleteFunc(a.queue, func(q *run) bool { return q == r }) })
}

// find returns a run. The lock is held, or see.
func (a *Agent) find(id string) (*run, error) {
	r, ok := a.runs[id]
	if !ok {
		return nil, &fault.Error{Code: fault.NotFound, Op: "find run", Subject: id, Reason: "there is none",
			Remedy: "List the runs there are with \"careen ps --all\""}
	}
	return r, nil
}

// Wait returns the run once it has ended, or as it is when ctx ends.
func (a *Agent) Wait(ctx context.Context, id string) (api.Run, error) {
	r, err := a.look(id)
	if err != nil {
		return api.Run{}, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
	case <-a.ctx.Done():
	}
	return a.show(r), nil
}
