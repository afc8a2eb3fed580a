package image

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// reportEvery is the time between two reports of bytes.
	reportEvery = 200 * time.Millisecond
	// rateWindow is the time that the rate is an average over.
	rateWindow = 3 * time.Second
)

// Progress is the state of a pull.
type Progress struct {
	// Status is "resolving", "waiting" (for the node, or for the pull's turn),
	// "downloading", "unpacking" or "done".
	Status string
	// Message says what a pull with the status "waiting" is waiting for.
	Message string
	// Done and Total are compressed bytes of layers; layers that were present count.
	Done, Total int64
	// Rate is bytes per second of the last few seconds.
	Rate int64
	// Retries counts requests that were made again.
	Retries int
	// Layers are those of the image, the lowest first.
	Layers []LayerProgress
	// Warnings are for the operator, one line each.
	Warnings []string
}

// LayerProgress is the state of one layer.
type LayerProgress struct {
	Digest string
	// Status is "waiting", "downloading", "done" or "present" (it was there before).
	Status string
	// Done and Total are compressed bytes.
	Done, Total int64
}

// reporter collects progress and reports it from one goroutine, so that the pull never
// waits for the receiver: bytes are counted without a lock and reported at a fixed interval,
// other changes are queued. With a nil function it only counts.
type reporter struct {
	pass func(Progress)
	// received are the bytes of each layer. The slice is set before a layer begins.
	received []atomic.Int64

	mu    sync.Mutex // of what follows; never held while pass is called
	state Progress
	queue []Progress
	// changed says that a change of something other than bytes is not reported yet.
	changed bool
	samples []sample
	// before is the status before the pull began to wait.
	before string

	wake, end chan struct{}
	passing   sync.WaitGroup
}

type sample struct {
	at   time.Time
	done int64
}

func newReporter(pass func(Progress)) *reporter {
	r := &reporter{pass: pass, state: Progress{Status: "resolving"}, wake: make(chan struct{}, 1), end: make(chan struct{})}
	if pass != nil {
		r.passing.Go(r.passOn)
	}
	return r
}

// passOn calls the receiver until the reporter is stopped and the queue is empty.
func (r *reporter) passOn() {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for ended := false; !ended; {
		bytes := false
		select {
		case <-r.wake:
		case <-ticker.C:
			bytes = true
		case <-r.end:
			ended = true
		}
		for _, p := range r.take(bytes) {
			r.pass(p)
		}
	}
}

// take returns the reports that are due.
func (r *reporter) take(bytes bool) []Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bytes {
		done := r.state.Done
		if r.count(); r.state.Done != done || r.changed {
			r.enqueue()
		}
	}
	queue := r.queue
	r.queue = nil
	return queue
}

// count updates the bytes in the state. The caller holds the lock.
func (r *reporter) count() {
	r.state.Done = 0
	for i := range r.state.Layers {
		r.state.Layers[i].Done = r.received[i].Load()
		r.state.Done += r.state.Layers[i].Done
	}
	if r.state.Status == "downloading" && r.state.Done == r.state.Total {
		r.state.Status = "unpacking"
	}
}

// enqueue queues a report of the state. The caller holds the lock.
func (r *reporter) enqueue() {
	now := time.Now()
	r.samples = append(r.samples, sample{now, r.state.Done})
	for len(r.samples) > 2 && now.Sub(r.samples[0].at) > rateWindow {
		r.samples = r.samples[1:]
	}
	if first := r.samples[0]; now.Sub(first.at) > 0 {
		r.state.Rate = int64(float64(r.state.Done-first.done) / now.Sub(first.at).Seconds())
	}
	r.changed = false
	state := r.state
	state.Layers = slices.Clone(r.state.Layers)
	r.queue = append(r.queue, state)
}

// update changes the state and queues a report.
func (r *reporter) update(change func(*Progress)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count()
	change(&r.state)
	if r.pass == nil {
		return
	}
	r.enqueue()
	select {
	case r.wake <- struct{}{}:
	default: // it is awake
	}
}

func (r *reporter) status(s string) {
	r.update(func(p *Progress) { p.Status = s })
}

// waits reports what the pull waits for; "" means that it goes on.
func (r *reporter) waits(missing string) {
	r.update(func(p *Progress) {
		p.Message = ""
		if missing != "" {
			p.Message = "waiting for " + missing
		}
		switch {
		case missing == "" && p.Status == "waiting":
			p.Status = r.before
		case missing != "" && p.Status != "waiting":
			r.before, p.Status = p.Status, "waiting"
		}
	})
}

func (r *reporter) warn(text string) {
	r.update(func(p *Progress) { p.Warnings = append(slices.Clip(p.Warnings), text) })
}

func (r *reporter) retried() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Retries++
	r.changed = true
}

// layers sets the layers of the image, of which the first are present. A digest that is
// listed twice is two layers.
func (r *reporter) layers(all []layer, present int) {
	received := make([]atomic.Int64, len(all))
	r.mu.Lock()
	r.received, r.state.Layers = received, nil
	r.mu.Unlock()
	r.update(func(p *Progress) {
		p.Status, p.Total, p.Done = "downloading", 0, 0
		p.Layers = make([]LayerProgress, len(all))
		for i, l := range all {
			p.Layers[i] = LayerProgress{Digest: l.desc.Digest.String(), Status: "waiting", Total: l.desc.Size}
			if i < present {
				received[i].Store(l.desc.Size)
				p.Layers[i].Status, p.Layers[i].Done = "present", l.desc.Size
			}
			p.Total += l.desc.Size
			p.Done += p.Layers[i].Done
		}
	})
}

// layerBegins starts the count of a layer's bytes at 0. The function that it returns adds
// to the count.
func (r *reporter) layerBegins(i int) func(n int) {
	received := &r.received[i]
	r.layer(i, "downloading", 0)
	return func(n int) { received.Add(int64(n)) }
}

// layerDone marks a layer as committed.
func (r *reporter) layerDone(i int) {
	r.mu.Lock()
	size := r.state.Layers[i].Total
	r.mu.Unlock()
	r.layer(i, "done", size)
}

// layer sets the status of a layer and the number of its bytes that are done.
func (r *reporter) layer(i int, status string, done int64) {
	r.received[i].Store(done)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Layers[i].Status = status
	r.changed = true
}

// stop reports what is queued. There is no report after it.
func (r *reporter) stop() {
	close(r.end)
	r.passing.Wait()
}

// layer is one layer of an image that is being pulled.
type layer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
	chain  digest.Digest
	parent digest.Digest // the chain below, "" for the first
}
