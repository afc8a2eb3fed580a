package agent

import (
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/api"
)

// record is all that the journal keeps of a run. It holds no secret: options are
// redacted, and the request itself stays in RunDir. A record that is visible to
// others is never changed; transition and update replace it.
type record struct {
	Run api.Run `json:"run"`
	// Hash tells a repeated request from a different one under the same id.
	Hash string   `json:"hash,omitempty"`
	Peer api.Peer `json:"peer"`
	// Route is as in the request.
	Route string `json:"route,omitempty"`
	// Audit are the containers so far, for the audit record.
	Audit []api.AuditContainer `json:"audit,omitempty"`

	// Part is the index of the container at hand, ContainerID its id once it may exist.
	Part        int    `json:"part"`
	ContainerID string `json:"container_id,omitempty"`
	// Starting says that the container may have been started: from here on it is
	// never made again.
	Starting bool `json:"starting,omitempty"`
	// Exit is how it ended, once known.
	Exit *Exit `json:"exit,omitempty"`
	// Result and its problem are read with the exit, before the container goes.
	End *endState `json:"end,omitempty"`

	StopSignal  syscall.Signal `json:"stop_signal,omitempty"`
	StopTimeout *time.Duration `json:"stop_timeout,omitempty"`
	// Timeout bounds the whole run, Part* the container at hand; 0 is none.
	Timeout         time.Duration `json:"timeout,omitempty"`
	PartTimeout     time.Duration `json:"part_timeout,omitempty"`
	PartSilence     time.Duration `json:"part_silence,omitempty"`
	ProcessTimeout  time.Duration `json:"process_timeout,omitempty"`
	RebootExitCodes []int         `json:"reboot_exit_codes,omitempty"`
	CriticalPart    bool          `json:"critical_part,omitempty"`

	// Stop is why the run is being ended, once somebody or something wants it.
	Stop *stop `json:"stop,omitempty"`

	// The clock's readings: when it was accepted, when it left the queue, when the
	// part, its process and the present phase began. They hold for one boot only.
	Accepted     time.Duration `json:"accepted"`
	Began        time.Duration `json:"began,omitempty"`
	PartBegan    time.Duration `json:"part_began,omitempty"`
	ProcessBegan time.Duration `json:"process_began,omitempty"`
	PhaseBegan   time.Duration `json:"phase_began,omitempty"`
	// Phases are the durations of the phases that are over.
	Phases map[string]time.Duration `json:"phases,omitempty"`

	// Previous are the containers of a sequence so far, until the run has ended.
	Previous []previous `json:"previous,omitempty"`

	// Leftovers are what the containers so far left behind.
	Leftovers Leftovers `json:"leftovers"`
	// Reboot is what the containers so far asked for, "" for nothing.
	Reboot string `json:"reboot,omitempty"`
	// RebootClaim is set while this run keeps others from starting.
	RebootClaim bool `json:"reboot_claim,omitempty"`
	// Audited, Kept and Dropped: the audit record is written; logs and events are in
	// StateDir; they have been removed again by retention.
	Audited bool `json:"audited,omitempty"`
	Kept    bool `json:"kept,omitempty"`
	Dropped bool `json:"dropped,omitempty"`
	// Unpushed says that the run's bundle is still to be pushed.
	Unpushed bool `json:"unpushed,omitempty"`
	// Seq counts moves; the events' numbers follow on from it after a restart.
	Seq int64 `json:"seq"`
}

// endState is what was seen of a container at its end.
type endState struct {
	Result   []byte   `json:"result,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Tail     []string `json:"tail,omitempty"`
}

// stop is a wish to end a run, and from Applied on the ending itself.
type stop struct {
	Cause  stopCause     `json:"cause"`
	Reason string        `json:"reason,omitempty"`
	Grace  time.Duration `json:"grace,omitempty"`
	// Limit is the limit that was passed, for timeouts.
	Limit time.Duration `json:"limit,omitempty"`
	// At is the clock's reading when it was wished.
	At      time.Duration `json:"at,omitempty"`
	Applied bool          `json:"applied,omitempty"`
}

// stopCause is why a run is ended by the agent.
type stopCause string

const (
	causeAbort  stopCause = "abort"
	causeClient stopCause = "client_gone"
	causeDrain  stopCause = "drain"
	// causeDown is a drain because the node goes down.
	causeDown    stopCause = "node_shutdown"
	causeTimeout stopCause = "timeout"
	causeProcess stopCause = "process_timeout"
	causeSilence stopCause = "silence"
	causeStall   stopCause = "pull_stall"
)

// clone copies everything that a change may write to.
func (r *record) clone() *record {
	c := *r
	c.Phases = maps.Clone(r.Phases)
	c.Audit, c.Previous = slices.Clone(r.Audit), slices.Clone(r.Previous)
	c.Leftovers.Undone, c.Leftovers.Left = slices.Clone(r.Leftovers.Undone), slices.Clone(r.Leftovers.Left)
	c.Run.Warnings = slices.Clone(r.Run.Warnings)
	if r.Stop != nil {
		stopped := *r.Stop
		c.Stop = &stopped
	}
	if r.End != nil {
		end := *r.End
		c.End = &end
	}
	return &c
}

// leavePhase adds the time since the phase began to the state that is left.
func (r *record) leavePhase(from api.State, now time.Duration) {
	if r.Phases == nil {
		r.Phases = map[string]time.Duration{}
	}
	if d := now - r.PhaseBegan; d > 0 {
		r.Phases[string(from)] += d
	}
	r.PhaseBegan = now
}

// warn adds a line that is not there yet; at most so many are kept.
func (r *record) warn(lines ...string) {
	const most = 100
	for _, line := range lines {
		if len(r.Run.Warnings) < most && !slices.Contains(r.Run.Warnings, line) {
			r.Run.Warnings = append(r.Run.Warnings, line)
		}
	}
}

// audit returns the audit record of the container at hand to be changed.
func (r *record) audit() *api.AuditContainer {
	for len(r.Audit) <= r.Part {
		r.Audit = append(r.Audit, api.AuditContainer{})
	}
	return &r.Audit[r.Part]
}

func (r *record) container(cfg Config) Container {
	return Container{Run: r.Run.ID, ID: r.ContainerID, Dir: cfg.runDir(r.Run.ID)}
}
