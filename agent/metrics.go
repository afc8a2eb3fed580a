package agent

import (
	"maps"
	"sync"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
)

// metrics are the agent's figures since it was started. The agent's lock guards
// them.
type metrics struct {
	refusedMu sync.Mutex // guards refusals, which also count before there is a run
	started   int64
	aborts    int64
	runs      map[httpd.RunEnd]int64
	refusals  map[string]int64 // by code
	phases    map[string]httpd.Histogram
	bytes     int64
	peerBytes int64
	retries   int64
	pulls     int64
}

// buckets are the upper bounds of durations in seconds: a warm start takes a
// second, a disk wipe half a day.
var buckets = []float64{0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43200}

func newMetrics() *metrics {
	return &metrics{runs: map[httpd.RunEnd]int64{}, refusals: map[string]int64{}, phases: map[string]httpd.Histogram{}}
}

func (m *metrics) ended(rec *record) {
	m.runs[httpd.RunEnd{State: rec.Run.State, Code: rec.Run.Outcome.Code}]++
	for phase, d := range rec.Phases {
		m.phases[phase] = observe(m.phases[phase], d.Seconds())
	}
}

// observe returns h with one more duration, in seconds. It changes nothing that an
// earlier h shares.
func observe(h httpd.Histogram, s float64) httpd.Histogram {
	counts := make([]int64, len(buckets))
	copy(counts, h.Counts)
	for i, upper := range buckets {
		if s <= upper {
			counts[i]++
		}
	}
	return httpd.Histogram{Upper: buckets, Counts: counts, Sum: h.Sum + s, Count: h.Count + 1}
}

// pulled adds what a finished pull transferred.
func (m *metrics) pulled(p *api.PullProgress) {
	m.pulls++
	if p != nil {
		m.bytes += p.Done
		m.peerBytes += p.FromPeers
		m.retries += int64(p.Retries)
	}
}

// refusal counts a request that did not become a run. The agent's lock may be held
// or not.
func (m *metrics) refusal(code fault.Code) {
	m.refusedMu.Lock()
	defer m.refusedMu.Unlock()
	m.refusals[string(code)]++
}

// Metrics returns the agent's figures as they are now.
func (a *Agent) Metrics() httpd.Metrics {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.metrics
	out := httpd.Metrics{
		Runs: maps.Clone(m.runs), Phases: maps.Clone(m.phases),
		ContainersStarted: m.started, Aborts: m.aborts, Pulls: m.pulls, PullBytes: m.bytes, PullPeerBytes: m.peerBytes,
		PullRetries: m.retries, Active: len(a.active), Queued: len(a.queue), Known: len(a.runs),
		RebootPending: a.rebootBy != "", RecordsUnwritten: len(a.records.dirty),
	}
	m.refusedMu.Lock()
	out.Refusals = maps.Clone(m.refusals)
	m.refusedMu.Unlock()
	if a.cfg.Push != nil {
		out.Pushes = map[string]int64{"delivered": a.pushes.done["delivered"], "failed": a.pushes.done["failed"]}
	}
	return out
}
