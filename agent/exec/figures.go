package exec

import (
	"maps"
	"slices"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
)

// Figures are what the executor counts. A value is never changed.
type Figures struct {
	// Runs counts the runs that ended.
	Runs map[RunEnd]int64
	// Phases are the times that ended runs spent in each state.
	Phases map[string]Histogram
	// Refusals counts refused requests for runs by code, Pushes pushed bundles by result:
	// delivered or failed.
	Refusals, Pushes map[string]int64
	// Started counts containers, Aborts requests to abort, Pulls pulls that succeeded, with
	// their compressed bytes and repeated requests.
	Started, Aborts, Pulls, PullBytes, PullRetries int64
}

// RunEnd is how a run ended.
type RunEnd struct {
	State machine.RunState
	Code  string
}

// Histogram is a distribution of durations in seconds.
type Histogram struct {
	// Counts are how many values were at most the bound of [Buckets] with the same index.
	Counts []int64
	Sum    float64
	Count  int64
}

// Buckets are upper bounds in seconds: a warm start takes a second, a disk wipe half a day.
var Buckets = []float64{0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43200}

func newFigures() *Figures { return &Figures{Pushes: map[string]int64{"delivered": 0, "failed": 0}} }

// count replaces the figures by changed ones.
func (x *Executor) count(change func(*Figures)) {
	for {
		old := x.figures.Load()
		next := *old
		change(&next)
		if x.figures.CompareAndSwap(old, &next) {
			return
		}
	}
}

func add[K comparable](m map[K]int64, key K) map[K]int64 {
	m = maps.Clone(m)
	if m == nil {
		m = map[K]int64{}
	}
	m[key]++
	return m
}

func (f *Figures) ended(r *machine.Run) {
	f.Runs = add(f.Runs, RunEnd{r.Run.State, r.Run.Outcome.Code})
	f.Phases = maps.Clone(f.Phases)
	if f.Phases == nil {
		f.Phases = map[string]Histogram{}
	}
	for phase, d := range r.Phases {
		f.Phases[phase] = f.Phases[phase].with(d)
	}
}

func (h Histogram) with(d time.Duration) Histogram {
	s := d.Seconds()
	h.Counts = slices.Clone(h.Counts)
	if h.Counts == nil {
		h.Counts = make([]int64, len(Buckets))
	}
	h.Sum += s
	h.Count++
	for i, upper := range Buckets {
		if s <= upper {
			h.Counts[i]++
		}
	}
	return h
}

// refused counts a request that did not become a run.
func (f *Figures) refused(code fault.Code) { f.Refusals = add(f.Refusals, string(code)) }
