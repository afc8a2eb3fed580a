package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
)

const (
	// ringSize bounds the events that are kept of one run while it goes on.
	ringSize = 256
	// endedRing is how many stay when it has ended: enough for every change of state.
	endedRing = 48
	// pullEvery is the shortest time between two events of one pull.
	pullEvery = 200 * time.Millisecond
)

// ring keeps the last events of one run. Readers fetch what they have not seen
// whenever they are ready for more, so a slow one costs nothing but its own
// completeness.
type ring struct {
	// adding orders those who add, and guards diary; mu is for those who read, too.
	adding sync.Mutex
	diary  *diary

	mu      sync.Mutex
	run     string
	seq     int64
	events  []api.Event
	changed chan struct{} // closed and replaced with each event
	closed  bool
}

func newRing(run string, seq int64) *ring {
	return &ring{run: run, seq: seq, changed: make(chan struct{})}
}

// add numbers e, writes it down for the agent that comes after this one, and then
// shows it to the readers: none has seen an event that the next agent does not know.
func (r *ring) add(e api.Event) {
	r.adding.Lock()
	defer r.adding.Unlock()
	r.mu.Lock()
	r.seq++
	e.Seq, e.Run, e.Time = r.seq, r.run, time.Now().UTC()
	r.mu.Unlock()
	r.diary.write(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == ringSize {
		r.events = slices.Delete(r.events, 0, 1)
	}
	r.events = append(r.events, e)
	close(r.changed)
	r.changed = make(chan struct{})
}

// After returns the events that follow seq, whether some before them are gone,
// and a channel that is closed when there may be more; nil when there never will.
func (r *ring) After(seq int64) (events []api.Event, missed bool, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := 0
	for i < len(r.events) && r.events[i].Seq <= seq {
		i++
	}
	events = slices.Clone(r.events[i:])
	missed = len(events) > 0 && events[0].Seq > seq+1
	if !r.closed {
		more = r.changed
	}
	return events, missed, more
}

// end keeps the events that tell the story and lets the readers go.
func (r *ring) end() []api.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.events
	// Of a pull the last event with each status: resolved, downloaded, unpacked when.
	lastOf := map[string]int64{}
	for _, e := range all {
		if e.Type == "pull" {
			lastOf[e.Pull.Status] = e.Seq
		}
	}
	kept := slices.DeleteFunc(slices.Clone(all), func(e api.Event) bool {
		return e.Type == "pull" && lastOf[e.Pull.Status] != e.Seq
	})
	r.events = slices.Clip(slices.Clone(kept[max(0, len(kept)-endedRing):]))
	if !r.closed {
		r.closed = true
		close(r.changed)
	}
	return all
}

// restore puts back the events of a run under another agent.
func (r *ring) restore(events []api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = events[max(0, len(events)-ringSize):]
	for _, e := range events {
		r.seq = max(r.seq, e.Seq)
	}
}
