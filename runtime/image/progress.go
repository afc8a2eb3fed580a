package image

import (
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// reportEvery is the least time between two reports of progress.
const reportEvery = 200 * time.Millisecond

// statusWaiting is the status of a pull that waits for the node, or for its turn.
const statusWaiting = "waiting"

// rateWindow is the time that the rate is an average over.
const rateWindow = 3 * time.Second

// reporter collects progress and tells it at a bounded pace. A nil function
// makes it count for nobody.
type reporter struct {
	tell func(api.PullProgress)

	mu      sync.Mutex
	state   api.PullProgress
	last    time.Time
	stopped bool
	samples []sample
	// before is the status that a wait for the node took the place of.
	before string
}

type sample struct {
	at   time.Time
	done int64
}

func newReporter(tell func(api.PullProgress)) *reporter {
	return &reporter{tell: tell, state: api.PullProgress{Status: "resolving"}}
}

// report has to be called with the lock held.
func (r *reporter) report(now time.Time, force bool) {
	if r.tell == nil || r.stopped || (!force && now.Sub(r.last) < reportEvery) {
		return
	}
	r.last = now
	r.samples = append(r.samples, sample{now, r.state.Done})
	for len(r.samples) > 2 && now.Sub(r.samples[0].at) > rateWindow {
		r.samples = r.samples[1:]
	}
	if first := r.samples[0]; now.Sub(first.at) > 0 {
		r.state.Rate = int64(float64(r.state.Done-first.done) / now.Sub(first.at).Seconds())
	}
	state := r.state
	state.Layers = append([]api.LayerProgress(nil), r.state.Layers...)
	r.tell(state)
}

func (r *reporter) update(force bool, change func(*api.PullProgress)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.state)
	r.report(time.Now(), force)
}

func (r *reporter) status(s string) {
	r.update(true, func(p *api.PullProgress) { p.Status = s })
}

// waits says what the node lacks; with "" the pull goes on.
func (r *reporter) waits(missing string) {
	r.update(true, func(p *api.PullProgress) {
		p.Message = ""
		if missing != "" {
			p.Message = "waiting for " + missing
		}
		switch {
		case missing == "" && p.Status == statusWaiting:
			p.Status = r.before
		case missing != "" && p.Status != statusWaiting:
			r.before, p.Status = p.Status, statusWaiting
		}
	})
}

// warn says what was done to the node.
func (r *reporter) warn(text string) {
	r.update(true, func(p *api.PullProgress) { p.Warnings = append(p.Warnings[:len(p.Warnings):len(p.Warnings)], text) })
}

func (r *reporter) retried() {
	r.update(false, func(p *api.PullProgress) { p.Retries++ })
}

// layers says which layers there are; a digest that is listed twice is two.
func (r *reporter) layers(descs []layer) {
	r.update(true, func(p *api.PullProgress) {
		p.Status, p.Total, p.Done, p.FromPeers = "downloading", 0, 0, 0
		p.Layers = make([]api.LayerProgress, len(descs))
		for i, d := range descs {
			p.Layers[i] = api.LayerProgress{Digest: d.desc.Digest.String(), Status: "waiting", Total: d.desc.Size}
			p.Total += d.desc.Size
		}
	})
}

// layer sets the state of one layer and, if done is not negative, its bytes.
func (r *reporter) layer(i int, status string, done int64) {
	r.update(false, func(p *api.PullProgress) {
		l := &p.Layers[i]
		if done >= 0 {
			p.Done += done - l.Done
			l.Done = done
		}
		l.Status = status
		if p.Status == "downloading" && p.Done == p.Total {
			p.Status = "unpacking"
		}
	})
}

func (r *reporter) done() {
	r.update(true, func(p *api.PullProgress) { p.Status = "done" })
}

func (r *reporter) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}

// layer is one layer of an image that is being pulled.
type layer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
	chain  digest.Digest
	parent digest.Digest // the chain below, "" for the first
}
