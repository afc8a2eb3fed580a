package exec

import (
	"slices"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/machine"
)

// reportEvery is the shortest time between two reports of one pull.
const reportEvery = 100 * time.Millisecond

// reporter passes the progress of one pull on. It takes no lock of the executor, and drops
// reports that come too close: the newest is passed on with the next, or by flush.
type reporter struct {
	clock func() time.Duration
	pass  func(machine.Progress)

	mu      sync.Mutex // the pull reports from several goroutines
	newest  api.PullProgress
	passed  api.PullProgress
	at      time.Duration
	waiting bool
}

func newReporter(clock func() time.Duration, pass func(machine.Progress)) *reporter {
	return &reporter{clock: clock, pass: pass, at: -reportEvery}
}

// progress takes a report of the pull.
func (r *reporter) progress(p api.PullProgress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest, r.waiting = p, true
	now := r.clock()
	changed := p.Status != r.passed.Status || p.Message != r.passed.Message || len(p.Warnings) != len(r.passed.Warnings)
	if changed || now-r.at >= reportEvery {
		r.passOn(now)
	}
}

// flush passes the newest report on, if it was not.
func (r *reporter) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting {
		r.passOn(r.clock())
	}
}

func (r *reporter) passOn(now time.Duration) {
	r.passed, r.waiting, r.at = r.newest, false, now
	r.pass(fromAPI(r.newest))
}

// last returns the newest report.
func (r *reporter) last() *api.PullProgress {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.newest
	return &p
}

func fromAPI(p api.PullProgress) machine.Progress {
	m := machine.Progress{Status: p.Status, Done: p.Done, Total: p.Total, Message: p.Message, Rate: p.Rate,
		Warnings: slices.Clone(p.Warnings), Retries: p.Retries}
	for _, l := range p.Layers {
		m.Layers = append(m.Layers, machine.LayerProgress(l))
	}
	return m
}

func toAPI(m *machine.Progress) *api.PullProgress {
	if m == nil {
		return nil
	}
	p := &api.PullProgress{Status: m.Status, Done: m.Done, Total: m.Total, Message: m.Message, Rate: m.Rate,
		Warnings: m.Warnings, Retries: m.Retries}
	for _, l := range m.Layers {
		p.Layers = append(p.Layers, api.LayerProgress(l))
	}
	return p
}
