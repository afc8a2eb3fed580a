package exec

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/container"
)

const (
	// maxPulls is how many pulls may go on beside the runs, keepPulls how many that ended
	// are kept.
	maxPulls  = 4
	keepPulls = 32
)

// pulls are the pulls that were asked for apart from runs. They are not in the journal: a
// second pull does no harm.
type pulls struct {
	byID  sync.Map   // of *pullJob
	mu    sync.Mutex // guards order
	order []*pullJob
}

type pullJob struct {
	view   atomic.Pointer[api.Pull]
	cancel context.CancelFunc
	done   chan struct{}
}

// update replaces the view of a pull. Only the pull's own goroutine calls it.
func (j *pullJob) update(change func(*api.Pull)) {
	p := *j.view.Load()
	change(&p)
	j.view.Store(&p)
}

// StartPull begins to pull an image and returns the pull as it is. The error has code
// bad_request, busy, unreachable, or a code of the policy.
func (x *Executor) StartPull(_ context.Context, req *api.PullRequest, peer api.Peer) (api.Pull, error) {
	if req.Image == "" {
		return api.Pull{}, fault.BadField("image", "it is required")
	}
	wanted, err := x.cfg.resolver.ResolvePull(req, peer.UID == 0)
	if err != nil {
		return api.Pull{}, err
	}
	if x.state.Load().Draining {
		return api.Pull{}, &fault.Error{Code: fault.Unreachable, Op: "pull image", Subject: req.Image,
			Reason: "the agent is stopping", Remedy: "Wait until it has been started again"}
	}
	ctx, cancel := context.WithCancel(x.ctx)
	job := &pullJob{cancel: cancel, done: make(chan struct{})}
	job.view.Store(&api.Pull{ID: newID(8), Image: req.Image, State: api.Pulling, CreatedAt: time.Now().UTC()})
	if err := x.pulls.add(job); err != nil {
		cancel()
		return api.Pull{}, err
	}
	pull := *job.view.Load()
	x.work.Go(func() { x.runPull(ctx, job, wanted) })
	return pull, nil
}

// add makes room for a pull, or refuses it.
func (p *pulls) add(job *pullJob) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	busy := 0
	for _, j := range p.order {
		if !j.view.Load().State.Final() {
			busy++
		}
	}
	if busy >= maxPulls {
		return &fault.Error{Code: fault.Busy, Op: "pull image", Reason: fmt.Sprintf("%d pulls go on already", busy),
			Remedy: "Wait until one has ended"}
	}
	for len(p.order) >= keepPulls+maxPulls {
		i := slices.IndexFunc(p.order, func(j *pullJob) bool { return j.view.Load().State.Final() })
		p.byID.Delete(p.order[i].view.Load().ID)
		p.order = slices.Delete(p.order, i, i+1)
	}
	p.byID.Store(job.view.Load().ID, job)
	p.order = append(p.order, job)
	return nil
}

func (x *Executor) runPull(ctx context.Context, job *pullJob, wanted *oci.Pull) {
	defer job.cancel()
	defer close(job.done)
	log := x.cfg.Log.WithField("image", job.view.Load().Image)
	busy := func() bool { return x.state.Load().Active() > 0 }
	info, err := x.cfg.Runner.Image(container.WithBusy(ctx, busy), wanted, func(p api.PullProgress) {
		job.update(func(pull *api.Pull) { pull.Progress = &p })
	})
	job.update(func(pull *api.Pull) {
		now := time.Now().UTC()
		pull.EndedAt, pull.State, pull.Warnings = &now, api.Succeeded, info.Warnings
		if pull.Progress != nil {
			pull.Warnings = append(slices.Clone(pull.Warnings), pull.Progress.Warnings...)
			for _, warning := range pull.Progress.Warnings {
				log.Warn(warning)
			}
		}
		switch {
		case err == nil:
			pull.Digest, pull.ImageID = info.Digest, info.ID
			x.count(func(f *Figures) { f.pulled(pull.Progress) })
		case ctx.Err() != nil:
			pull.State = api.Aborted
			pull.Problem = x.cfg.Problem(&fault.Error{Code: fault.Aborted, Op: "pull image", Subject: pull.Image, Reason: "aborted on request"})
		default:
			pull.State, pull.Problem = api.Failed, x.cfg.Problem(err)
			log.WithError(err).Warn("pull failed")
		}
	})
}

// pulled adds what a finished pull transferred.
func (f *Figures) pulled(p *api.PullProgress) {
	f.Pulls++
	if p != nil {
		f.PullBytes += p.Done
		f.PullRetries += int64(p.Retries)
	}
}

func (x *Executor) findPull(id string) (*pullJob, error) {
	job, ok := x.pulls.byID.Load(id)
	if !ok {
		return nil, &fault.Error{Code: fault.NotFound, Op: "find pull", Subject: id, Reason: "there is none"}
	}
	return job.(*pullJob), nil
}

// Pull returns a pull once it has ended, or as it is when ctx ends; not_found if there is
// none.
func (x *Executor) Pull(ctx context.Context, id string) (api.Pull, error) {
	job, err := x.findPull(id)
	if err != nil {
		return api.Pull{}, err
	}
	select {
	case <-job.done:
	case <-ctx.Done():
	case <-x.ctx.Done():
	}
	return *job.view.Load(), nil
}

// CancelPull ends a pull and returns it as it is; not_found if there is none.
func (x *Executor) CancelPull(id string) (api.Pull, error) {
	job, err := x.findPull(id)
	if err != nil {
		return api.Pull{}, err
	}
	job.cancel()
	return *job.view.Load(), nil
}

// Images lists the stored images. Errors are the Runner's.
func (x *Executor) Images(ctx context.Context) ([]api.Image, error) { return x.cfg.Runner.Images(ctx) }

// RemoveImage removes an image. Errors are the Runner's.
func (x *Executor) RemoveImage(ctx context.Context, ref string) error {
	return x.cfg.Runner.RemoveImage(ctx, ref)
}
