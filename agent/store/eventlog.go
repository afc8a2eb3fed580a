package store

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/rootfs/file"
)

const (
	// ringSize bounds the events that are kept of a run while it goes on, endedRing those
	// in memory after its end where they cannot be kept in the state directory: enough for
	// every change of state.
	ringSize, endedRing = 256, 48
	// maxLines is when the file begins anew with the newest events.
	maxLines = 4 * ringSize
	// maxEventFile bounds a file of events that is read, in bytes.
	maxEventFile = 16 << 20
)

// Event is one entry of a run's event log. The JSON names are the format of events.jsonl.
type Event struct {
	Seq     int64             `json:"seq"`
	Time    time.Time         `json:"time"`
	Run     string            `json:"run"`
	Type    string            `json:"type"`
	State   machine.RunState  `json:"state,omitempty"`
	From    machine.RunState  `json:"from,omitempty"`
	Took    string            `json:"took,omitempty"`
	Pull    *machine.Progress `json:"pull,omitempty"`
	Message string            `json:"message,omitempty"`
	Outcome *machine.Outcome  `json:"outcome,omitempty"`
}

// EventLog keeps the newest events of one run, in memory and in a file of this boot, so
// that they outlive the agent. Readers take no lock and hold up no writer.
type EventLog struct {
	run  string
	path string
	view atomic.Pointer[events]

	mu    sync.Mutex // orders writers
	seq   int64
	lines int
	// broken says that something could not be written. Then there is no file: the next
	// agent would number events from it, and give out numbers twice.
	broken bool
}

// events is an immutable view. changed is closed when there is a newer one. kept is the
// file in the state directory with the events before list, "" for none.
type events struct {
	list    []Event
	kept    string
	changed chan struct{}
	closed  bool
}

// all returns the events of the view.
func (v *events) all() []Event {
	if v.kept == "" {
		return v.list
	}
	return append(readEvents(v.kept), v.list...)
}

// EventLog makes the event log of a new run. seq is the number of its last event.
func (s *Store) EventLog(id string, seq int64) *EventLog {
	l := &EventLog{run: id, path: s.Files(id).Events, seq: seq}
	l.view.Store(&events{changed: make(chan struct{})})
	return l
}

// RestoreEventLog makes the event log of a run of an earlier agent, and goes on with the
// numbers of its events. Where there are none, clock makes the numbers higher than any
// that a client can have seen.
func (s *Store) RestoreEventLog(rec machine.Record, clock time.Duration) *EventLog {
	id := rec.Run.ID
	l := s.EventLog(id, rec.Seq)
	if rec.Kept || rec.Dropped {
		l.Unload(s.Files(id))
		return l
	}
	list := readEvents(l.path)
	if len(list) == 0 {
		l.seq = rec.Seq*ringSize + clock.Milliseconds()
		if rec.Seq == 0 && rec.Run.State == machine.Queued {
			l.Add(machine.Entry{Type: "state", State: machine.Queued})
		}
		return l
	}
	l.restore(list)
	// A torn line goes; and a killed agent may have recorded a move, and no more.
	l.broken = l.rewrite(list) != nil
	var last machine.RunState
	for _, e := range list {
		if e.Type == "state" {
			last = e.State
		}
	}
	if rec.Run.State != last {
		l.Add(machine.Entry{Type: "state", State: rec.Run.State, From: last, Message: rec.Run.StopReason, Outcome: rec.Run.Outcome})
	}
	return l
}

// Add numbers an entry, writes it down for the next agent, and then shows it to readers.
func (l *EventLog) Add(entry machine.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e := Event{Seq: l.seq, Time: time.Now().UTC(), Run: l.run, Type: entry.Type, State: entry.State, From: entry.From,
		Took: entry.Took, Pull: entry.Pull, Message: entry.Message, Outcome: entry.Outcome}
	l.write(e)
	view := l.view.Load()
	// Readers see only what their view's length covers.
	list := append(view.list, e)
	l.show(events{list: list[max(0, len(list)-ringSize):], kept: view.kept, closed: view.closed})
}

// noChange is the changed channel of views that are closed: no reader waits on it.
var noChange = make(chan struct{})

func (l *EventLog) show(view events) {
	view.changed = noChange
	if !view.closed {
		view.changed = make(chan struct{})
	}
	if old := l.view.Swap(&view); !old.closed {
		close(old.changed)
	}
}

// After returns the events that follow seq, whether some before them are gone, and a
// channel that is closed when there may be more; nil when there never will.
func (l *EventLog) After(seq int64) (list []Event, missed bool, more <-chan struct{}) {
	view := l.view.Load()
	list = view.all()
	i := 0
	for i < len(list) && list[i].Seq <= seq {
		i++
	}
	list = list[i:]
	missed = len(list) > 0 && list[0].Seq > seq+1
	if !view.closed {
		more = view.changed
	}
	return list, missed, more
}

// End closes the log for readers, keeps one event of each state and phase in memory, and
// returns all events. Next, the caller writes them with [Files.Keep] and calls
// [EventLog.Unload].
func (l *EventLog) End() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	view := l.view.Load()
	all := view.list
	// Of a pull, the last event with each status.
	lastOf := map[string]int64{}
	for _, e := range all {
		if e.Type == "pull" {
			lastOf[e.Pull.Status] = e.Seq
		}
	}
	var list []Event
	for _, e := range all {
		if e.Type != "pull" || lastOf[e.Pull.Status] == e.Seq {
			list = append(list, e)
		}
	}
	l.show(events{list: slices.Clone(list[max(0, len(list)-endedRing):]), kept: view.kept, closed: true})
	return all
}

// Unload closes the log and drops its events from memory: f has them. Retention keeps a
// thousand runs, and their events are rarely read again.
func (l *EventLog) Unload(f Files) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.show(events{kept: f.KeptEvents(), closed: true})
}

// Keep writes events of a run that has ended into the state directory. Errors are those
// of the file system.
func (f Files) Keep(list []Event) error {
	if len(list) == 0 {
		return nil // an earlier agent may have kept them
	}
	data, err := eventLines(list)
	if err != nil {
		return err
	}
	return f.keep(keptEvents, data)
}

// Remove removes the file.
func (l *EventLog) Remove() { _ = os.Remove(l.path) }

func (l *EventLog) restore(list []Event) {
	for _, e := range list {
		l.seq = max(l.seq, e.Seq)
	}
	l.show(events{list: list[max(0, len(list)-ringSize):]})
}

// write appends an event to the file. RunDir is memory, so there is no fsync.
func (l *EventLog) write(e Event) {
	if l.broken {
		return
	}
	text, err := json.Marshal(e)
	if err == nil && l.lines >= maxLines {
		err = l.rewrite(readEvents(l.path))
	}
	if err == nil {
		err = appendTo(l.path, append(text, '\n'))
	}
	if err != nil {
		l.broken = true
		l.Remove()
		return
	}
	l.lines++
}

// rewrite has the file hold the newest events of a list and nothing else.
func (l *EventLog) rewrite(list []Event) error {
	list = list[max(0, len(list)-ringSize):]
	data, err := eventLines(list)
	if err == nil {
		err = file.Replace(l.path, data, 0o600, file.Volatile)
	}
	l.lines = len(list)
	return err
}

// appendTo adds to a file in one system call, as far as the kernel takes it at once.
func appendTo(path string, data []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func eventLines(list []Event) ([]byte, error) {
	var all bytes.Buffer
	enc := json.NewEncoder(&all)
	for _, e := range list {
		if err := enc.Encode(e); err != nil {
			return nil, err
		}
	}
	return all.Bytes(), nil
}

// readEvents reads a file of events. A torn line is left out.
func readEvents(path string) []Event {
	data, err := file.ReadLimited(path, maxEventFile)
	if err != nil {
		return nil
	}
	var list []Event
	for text := range bytes.Lines(data) {
		var e Event
		if json.Unmarshal(text, &e) == nil {
			list = append(list, e)
		}
	}
	return list
}
