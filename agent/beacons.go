package agent

import (
	"encoding/json"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Beacon keeps a small text over a reboot where there is no place for a journal.
// Package beacon has the kinds there are.
type Beacon interface {
	Write(data []byte) error
	// Read returns nil when nothing is kept.
	Read() ([]byte, error)
	Clear() error
}

// beaconRecord is what a beacon says: the container that was being run.
type beaconRecord struct {
	Run    string    `json:"run"`
	Step   string    `json:"step,omitempty"`
	Phase  string    `json:"phase,omitempty"`
	Node   string    `json:"node,omitempty"`
	Image  string    `json:"image,omitempty"`
	BootID string    `json:"boot_id"`
	At     time.Time `json:"at"`
}

// light has the beacon say that r's container is about to start. With several
// slots it names the last one. The lock is held. That it fails is a warning: the
// journal has the run.
func (a *Agent) light(r *run) {
	if a.cfg.Beacon == nil {
		return
	}
	run := r.rec.Run
	data, err := json.Marshal(beaconRecord{Run: run.ID, Step: cut(run.Step, 100), Phase: cut(run.Phase, 20),
		Node: cut(run.Node, 100), Image: cut(run.Image, 300), BootID: a.cfg.BootID, At: time.Now().UTC()})
	if err == nil {
		err = a.cfg.Beacon.Write(data)
	}
	if err != nil {
		a.cfg.Log.WithField("run", r.id).WithError(err).Warn("the beacon is not lit")
		_ = a.update(r, false, func(rec *record) { rec.warn("a reboot would not be told: " + oneLine(err.Error())) })
		return
	}
	a.lit = r.id
}

// dim takes the beacon back when the run that it names has ended. The lock is held.
func (a *Agent) dim(r *run) {
	if a.cfg.Beacon == nil || a.lit != r.id || r.stuck {
		return
	}
	if err := a.cfg.Beacon.Clear(); err != nil {
		a.cfg.Log.WithError(err).Warn("the beacon is not put out")
		return
	}
	a.lit = ""
}

// findBeacon makes a lost run of what the beacon says that the journal does not
// know. The lock is held.
func (a *Agent) findBeacon() {
	if a.cfg.Beacon == nil {
		return
	}
	data, err := a.cfg.Beacon.Read()
	if err != nil {
		a.cfg.Log.WithError(err).Warn("the beacon cannot be read")
		return
	}
	if data == nil {
		return
	}
	var found beaconRecord
	if err := json.Unmarshal(data, &found); err != nil || !validID().MatchString(found.Run) {
		a.cfg.Log.Warn("the beacon says something that is not careen's; it is put out")
		_ = a.cfg.Beacon.Clear()
		return
	}
	if r := a.runs[found.Run]; r != nil && !r.state().Final() {
		a.lit = found.Run // adopted: its end puts it out
		return
	}
	if a.runs[found.Run] == nil && found.BootID != a.cfg.BootID {
		a.adoptBeacon(found)
	}
	if err := a.cfg.Beacon.Clear(); err != nil {
		a.cfg.Log.WithError(err).Warn("the beacon is not put out")
	}
}

// adoptBeacon makes the record that the journal would have had.
func (a *Agent) adoptBeacon(found beaconRecord) {
	rec := &record{
		Run: api.Run{ID: found.Run, State: api.Creating, Step: found.Step, Phase: found.Phase, Node: found.Node,
			Image: found.Image, CreatedAt: found.At, StartedAt: &found.At, BootID: found.BootID, Abortable: true},
		Route: "beacon", Starting: true,
	}
	rec.audit().Image, rec.audit().Started = found.Image, true
	rec.warn("only the beacon knows of this run: the state directory did not survive the reboot")
	r := a.newRun(rec)
	a.know(r)
	a.lostInReboot(r)
}

// interrupted is the error of a run that was under way when the node went down.
func (a *Agent) interrupted(rec *record) error {
	reason := "the node was rebooted while the container was at work"
	if !rec.Starting {
		reason = "the node was rebooted before the container was started"
	}
	return &fault.Error{Code: fault.Lost, Op: "complete " + rec.subject(), Reason: reason,
		Remedy: "Look at the node before you run the step again: nobody can know what was done",
		Attrs: map[string]any{"reason": "interrupted_by_reboot", "boot_id_then": rec.Run.BootID,
			"boot_id_now": a.cfg.BootID, "started": rec.Starting}}
}
