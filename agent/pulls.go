package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/runtime/image/polite"
)

const (
	// maxPulls is how many pulls may go on beside the runs, keepPulls how many that
	// ended are remembered.
	maxPulls  = 4
	keepPulls = 32
)

// pulls are the pulls that were asked for apart from runs. They are not in the
// journal: to pull twice harms nobody.
type pulls struct {
	byID  map[string]*pullJob
	order []*pullJob
}

type pullJob struct {
	pull   api.Pull
	cancel context.CancelFunc
	done   chan struct{}
}

// StartPull begins to pull an image and returns the pull as it is.
func (a *Agent) StartPull(_ context.Context, req *api.PullRequest, peer api.Peer) (api.Pull, error) {
	if req.Image == "" {
		return api.Pull{}, fault.BadField("image", "it is required")
	}
	wanted, err := a.cfg.Resolver.ResolvePull(req, peer.UID == 0)
	if err != nil {
		return api.Pull{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.draining {
		return api.Pull{}, &fault.Error{Code: fault.Unreachable, Op: "pull image", Subject: req.Image,
			Reason: "the agent is stopping", Remedy: "Wait until it has been started again"}
	}
	if err := a.roomForPull(); err != nil {
		return api.Pull{}, err
	}
	ctx, cancel := context.WithCancel(a.ctx)
	job := &pullJob{cancel: cancel, done: make(chan struct{}), pull: api.Pull{
		ID: newID(8), Image: req.Image, State: api.Pulling, CreatedAt: time.Now().UTC()}}
	a.pulls.byID[job.pull.ID] = job
	a.pulls.order = append(a.pulls.order, job)
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		defer cancel()
		info, err := a.cfg.Runner.Image(polite.While(ctx, a.runsGoOn), wanted, func(p api.PullProgress) {
			a.mu.Lock()
			defer a.mu.Unlock()
			job.pull.Progress = &p
		})
		a.endPull(ctx, job, info, err)
	}()
	return job.pull, nil
}

// runsGoOn reports whether a pull that was asked for apart has to step back: the
// image of the next step must not slow down this one.
func (a *Agent) runsGoOn() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.active) > 0
}

// roomForPull refuses more pulls than go on at once, and forgets old ones. The
// lock is held.
func (a *Agent) roomForPull() error {
	busy := 0
	for _, j := range a.pulls.order {
		if !j.pull.State.Final() {
			busy++
		}
	}
	if busy >= maxPulls {
		return &fault.Error{Code: fault.Busy, Op: "pull image", Reason: fmt.Sprintf("%d pulls go on already", busy),
			Remedy: "Wait until one has ended"}
	}
	for i := 0; len(a.pulls.order) >= keepPulls+maxPulls && i < len(a.pulls.order); {
		if j := a.pulls.order[i]; j.pull.State.Final() {
			delete(a.pulls.byID, j.pull.ID)
			a.pulls.order = append(a.pulls.order[:i], a.pulls.order[i+1:]...)
			continue
		}
		i++
	}
	return nil
}

func (a *Agent) endPull(ctx context.Context, job *pullJob, info ImageInfo, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now().UTC()
	p := &job.pull
	p.EndedAt, p.State, p.Warnings = &now, api.Succeeded, info.Warnings
	if p.Progress != nil {
		p.Warnings = append(p.Warnings, p.Progress.Warnings...)
		for _, warning := range p.Progress.Warnings {
			a.cfg.Log.WithField("image", p.Image).Warn(warning)
		}
	}
	switch {
	case err == nil:
		p.Digest, p.ImageID = info.Digest, info.ID
		a.metrics.pulled(p.Progress)
	case ctx.Err() != nil:
		p.State = api.Aborted
		problem := httpd.Problem(&fault.Error{Code: fault.Aborted, Op: "pull image", Subject: p.Image, Reason: "aborted on request"})
		p.Problem = &problem
	default:
		p.State = api.Failed
		problem := httpd.Problem(err)
		p.Problem = &problem
		a.cfg.Log.WithField("image", p.Image).WithError(err).Warn("pull failed")
	}
	close(job.done)
}

// Pull returns a pull once it has ended, or as it is when ctx ends.
func (a *Agent) Pull(ctx context.Context, id string) (api.Pull, error) {
	a.mu.Lock()
	job, ok := a.pulls.byID[id]
	a.mu.Unlock()
	if !ok {
		return api.Pull{}, &fault.Error{Code: fault.NotFound, Op: "find pull", Subject: id, Reason: "there is none"}
	}
	select {
	case <-job.done:
	case <-ctx.Done():
	case <-a.ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return job.pull, nil
}

// CancelPull ends a pull. One that has ended stays as it is.
func (a *Agent) CancelPull(id string) (api.Pull, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	job, ok := a.pulls.byID[id]
	if !ok {
		return api.Pull{}, &fault.Error{Code: fault.NotFound, Op: "find pull", Subject: id, Reason: "there is none"}
	}
	job.cancel()
	return job.pull, nil
}
