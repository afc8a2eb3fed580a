package exec

import (
	"encoding/json"
	"sync"

	"github.com/careen-project/careen/agent/machine"
)

// mark guards the reboot marker: setting it for one run and clearing it for another may
// meet.
type mark struct {
	mu  sync.Mutex
	run string
}

// setMark has the reboot marker say that a container is about to start. With several slots
// it names the last one. set is false where there is no marker.
func (x *Executor) setMark(m *machine.Mark) (set bool, err error) {
	if x.cfg.Marker == nil || m == nil {
		return false, nil
	}
	x.mark.mu.Lock()
	defer x.mark.mu.Unlock()
	data, err := json.Marshal(m)
	if err == nil {
		err = x.cfg.Marker.Write(data)
	}
	if err != nil {
		return false, err
	}
	x.mark.run = m.Run
	return true, nil
}

// clearMark clears the reboot marker if it still names the run.
func (x *Executor) clearMark(id string) machine.Event {
	x.mark.mu.Lock()
	defer x.mark.mu.Unlock()
	if x.cfg.Marker == nil || x.mark.run != id {
		return nil
	}
	if err := x.cfg.Marker.Clear(); err != nil {
		x.cfg.Log.WithError(err).Warn("cannot clear the reboot marker")
		return nil
	}
	x.mark.run = ""
	return machine.MarkCleared{ID: id}
}

// readMark returns what the reboot marker says, nil for nothing. One that careen did not
// write is cleared.
func (x *Executor) readMark() *machine.Mark {
	if x.cfg.Marker == nil {
		return nil
	}
	data, err := x.cfg.Marker.Read()
	if err != nil {
		x.cfg.Log.WithError(err).Warn("cannot read the reboot marker")
		return nil
	}
	if data == nil {
		return nil
	}
	m := new(machine.Mark)
	if err := json.Unmarshal(data, m); err != nil || !validID().MatchString(m.Run) {
		x.cfg.Log.Warn("the reboot marker is not careen's; it is cleared")
		_ = x.cfg.Marker.Clear()
		return nil
	}
	x.mark.run = m.Run
	return m
}
