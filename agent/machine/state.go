package machine

import (
	"slices"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/runtime/container"
)

// Config are the settings that decisions depend on. The executor fills in defaults;
// the machine has none.
type Config struct {
	// BootID is the kernel's boot id of this boot.
	BootID string
	// Slots is how many runs execute at once, QueueLimit how many may wait; a negative
	// limit allows none.
	Slots, QueueLimit int
	// Grace is the time between stop signal and SIGKILL, StuckAfter the time after
	// SIGKILL until the container counts as stuck.
	Grace, StuckAfter time.Duration
	// PullStall ends a pull that gets no bytes for so long; negative for never.
	PullStall time.Duration
	// CriticalMax is the longest critical section; negative allows none.
	CriticalMax time.Duration
	// LostAfter is how long a container that seems gone is asked about after a restart.
	LostAfter time.Duration
	// KeepRuns, KeepLogs and KeepBytes bound what retention keeps of runs that ended.
	KeepRuns, KeepLogs int
	KeepBytes          int64
	// Push says that bundles of runs are pushed.
	Push bool
}

// State is all that the agent knows of its runs. It is a value: [Step] returns a new
// one and changes nothing that an older one refers to, so a reader may keep any State
// without a lock.
type State struct {
	Config Config
	// Runs are the runs in the order of their acceptance. A Run is never changed.
	Runs []*Run
	// Queue are the ids of runs that wait, first in line first.
	Queue []string
	// RebootBy is the run whose wish for a reboot keeps others from starting, "" for none.
	RebootBy string
	// Marked is the run that the reboot marker names, "" for none.
	Marked string
	// Removing and Unremoved are containers of earlier agents, by id, with their run:
	// those that are being removed before the agent answers, and those that did not go.
	Removing, Unremoved map[string]string
	// Loaded says that earlier runs were read, Recovered that recovery is over: before
	// it, no run is accepted.
	Loaded, Recovered bool
	recovery          *recovery
	// Draining says that no run is accepted or started any more, Detached that the
	// agent lets go of its runs.
	Draining, Detached bool
}

// Run is one run: its record, and what holds for this life of the agent only.
type Run struct {
	Record
	// Plan is what there is still to start; nil when the request is gone.
	Plan *Plan
	// Active says that the run holds a slot.
	Active bool
	// Doing is the effect that the run waits for.
	Doing Doing
	// Call numbers the effects of the run: an answer to an older one does not count.
	Call int

	// Pull is the progress of the present pull. PullAt is the clock when it last got
	// bytes, PullEventAt when an event last said so.
	Pull                *Progress
	PullAt, PullEventAt time.Duration
	// Claim is the critical section that the container claims, nil for none.
	Claim *Claim
	// Ended says that the container's end was noticed: it is too late to abort.
	Ended bool
	// Found is the container as recovery found it, nil if there is none. Gone says that
	// it is known to be gone, and Since when limits count again after recovery.
	Found *container.Existing
	Gone  bool
	Since time.Duration
	// Output is the end of the log at the last observation, SilentAt the clock when it
	// last changed.
	Output   string
	SilentAt time.Duration
	// ObserveAt is when the container is observed next.
	ObserveAt time.Duration
	// The stop escalation: which signals were sent, since when, and when the next step
	// is due.
	Signalled, Killed bool
	StopBegan, Due    time.Duration
	// ExitSeen is how the container ended, until that is on record. WaitCall is the
	// number of the [Wait] that goes on while the container is stuck.
	ExitSeen *container.Exit
	WaitCall int
	// Failure is why the present container did not end by itself.
	Failure error
	// Verdict is the outcome that waits for the log to be kept.
	Verdict *Verdict
	// Stuck says that the container survived SIGKILL and still holds the slot.
	Stuck bool
	// LogBytes is the size of the kept output.
	LogBytes int64
	// Tidied says that all files of the run are in order after its end.
	Tidied bool
}

// Doing is what a run waits for.
type Doing string

// What a run may wait for.
const (
	Idle        Doing = ""
	DoPull      Doing = "pull"
	DoCreate    Doing = "create"
	DoStart     Doing = "start"
	DoSupervise Doing = "supervise"
	DoReadEnd   Doing = "read the end"
	DoDelete    Doing = "delete"
	DoKeepLog   Doing = "keep the log"
)

// Plan is what a run has to start: its containers, and what only the request knows.
type Plan struct {
	Parts []policy.Part
	// Stdin keeps standard input open, Terminal is the first size of a terminal.
	Stdin    bool
	Terminal *api.TerminalSize
	// Environ are the caller's variables.
	Environ map[string]string
}

// Progress is how a pull goes. Done and Total count the compressed bytes of all layers.
// The JSON names are part of the event log's format.
type Progress struct {
	// Status is resolving, waiting, downloading, unpacking or done.
	Status string `json:"status"`
	Done   int64  `json:"done"`
	Total  int64  `json:"total"`
	// Message says what a pull waits for whose status is waiting.
	Message string `json:"message,omitempty"`
	// Rate is bytes per second over the last seconds.
	Rate     int64           `json:"rate,omitempty"`
	Warnings []string        `json:"warnings,omitempty"`
	Layers   []LayerProgress `json:"layers,omitempty"`
	// Retries counts repeated requests.
	Retries int `json:"retries,omitempty"`
}

// LayerProgress is how the pull of one layer goes: waiting, downloading, done or present.
type LayerProgress struct {
	Digest string `json:"digest"`
	Status string `json:"status"`
	Done   int64  `json:"done"`
	Total  int64  `json:"total"`
}

// Claim is a container's claim not to be stopped, on the boot clock.
type Claim struct{ Since, Until time.Duration }

// Find returns the run with an id, nil if there is none. The newest come first: they
// are asked for most.
func (s State) Find(id string) *Run {
	for i := len(s.Runs) - 1; i >= 0; i-- {
		if s.Runs[i].Run.ID == id {
			return s.Runs[i]
		}
	}
	return nil
}

// Active counts the runs that hold a slot.
func (s State) Active() (n int) {
	for _, r := range s.Runs {
		if r.Active {
			n++
		}
	}
	return n
}

// QueuePosition returns the place of a run in the queue, counted from 1; 0 if it does
// not wait.
func (s State) QueuePosition(id string) int { return slices.Index(s.Queue, id) + 1 }

// StuckRun returns a run whose container does not go, "" if there is none.
func (s State) StuckRun() string {
	for _, r := range s.Runs {
		if r.Stuck {
			return r.Run.ID
		}
	}
	for _, id := range s.Unremoved {
		return id
	}
	return ""
}

// Holder returns the oldest run that holds a slot, "" if there is none.
func (s State) Holder() string {
	for _, r := range s.Runs {
		if r.Active {
			return r.Run.ID
		}
	}
	return ""
}

// container names the present container for the runtime. The executor knows its directory.
func (r *Run) container() container.Container {
	return container.Container{Run: r.Run.ID, ID: r.ContainerID}
}

// CriticalUntil returns until when, by the clock, the run holds off its end; 0 for not.
func (s State) CriticalUntil(r *Run) time.Duration {
	until := s.wholePart(r)
	if r.Claim != nil {
		until = max(until, r.Claim.Until)
	}
	return until
}

// wholePart returns until when a container that is critical as a whole holds off its
// end. The operator's limit bounds it, or a container that hangs would never end.
func (s State) wholePart(r *Run) time.Duration {
	if !r.CriticalPart || r.Stop == nil || r.Stop.Applied || s.Config.CriticalMax < 0 {
		return 0
	}
	return r.Stop.At + s.Config.CriticalMax
}
