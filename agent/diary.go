package agent

import (
	"bytes"
	"encoding/json"
	"os"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
)

// diaryLines is how many events a diary may have: when there are more it begins anew
// with the newest, as many as a ring has.
const diaryLines = 4 * ringSize

// diary is the file that the events of a run are in while it goes on, so that they
// outlive the agent: JSON lines, in memory as all of RunDir, and therefore never
// waited for. Its methods may be called on nil, which keeps nothing.
type diary struct {
	path  string
	lines int
	// broken says that something could not be written. Then there is no file, since
	// the next agent would give out numbers of events a second time.
	broken bool
}

func (d *diary) write(e api.Event) {
	if d == nil || d.broken {
		return
	}
	line, err := json.Marshal(e)
	if err == nil && d.lines >= diaryLines {
		err = d.begin(readEvents(d.path))
	}
	if err == nil {
		err = appendTo(d.path, append(line, '\n'))
	}
	if err != nil {
		d.broken = true
		d.remove()
		return
	}
	d.lines++
}

// begin has the diary hold the newest of events and nothing else.
func (d *diary) begin(events []api.Event) error {
	events = events[max(0, len(events)-ringSize):]
	data, err := eventLines(events)
	if err == nil {
		err = writeFile(d.path, data)
	}
	d.lines = len(events)
	return err
}

func (d *diary) remove() {
	if d != nil {
		_ = os.Remove(d.path)
	}
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

func eventLines(events []api.Event) ([]byte, error) {
	var all bytes.Buffer
	enc := json.NewEncoder(&all)
	for _, e := range events {
		if err := enc.Encode(e); err != nil {
			return nil, err
		}
	}
	return all.Bytes(), nil
}

// readEvents reads a file of events; none is none, and half a line is none either.
func readEvents(path string) []api.Event {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var events []api.Event
	for line := range bytes.Lines(data) {
		var e api.Event
		if json.Unmarshal(line, &e) == nil {
			events = append(events, e)
		}
	}
	return events
}

// remember gives a run that an earlier agent began its events back, and goes on with
// their numbers. Where there are none the numbers are higher than any that a client
// can have seen.
func (a *Agent) remember(r *run) {
	d, run := r.events.diary, r.rec.Run
	var events []api.Event
	if !r.rec.Kept && !r.rec.Dropped {
		events = readEvents(d.path)
	}
	if len(events) == 0 {
		r.events.seq = r.rec.Seq*ringSize + a.cfg.Clock().Milliseconds()
		if r.rec.Seq == 0 && run.State == api.Queued {
			r.events.add(api.Event{Type: "state", State: api.Queued})
		}
		return
	}
	r.events.restore(events)
	// What a crash cut short goes; and a killed agent may have come to the record of a
	// move, and no further.
	d.broken = d.begin(events) != nil
	var from api.State
	for _, e := range events {
		if e.Type == "state" {
			from = e.State
		}
	}
	if run.State != from {
		r.events.add(api.Event{Type: "state", State: run.State, From: from, Message: run.StopReason, Outcome: run.Outcome})
	}
}
