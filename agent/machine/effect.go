package machine

import (
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/runtime/container"
)

// Output is what a step asks for. The executor first makes Records durable, then
// writes Entries, publishes the state, and only then carries out Effects.
type Output struct {
	// KeepRequest is a run whose request is to be kept for this boot before the records.
	KeepRequest string
	// Records are the runs whose records changed. With Must, an error means that the
	// state does not hold: the executor drops it and steps [Unrecorded]. Without Must
	// the state holds, and the executor writes the records as soon as it can.
	Records []Record
	Must    bool
	Entries []Entry
	Logs    []LogLine
	Effects []Effect
	// Then are events that follow at once, before any other.
	Then []Event
	// Reply answers a request.
	Reply *Reply
}

// Reply answers a request: the run that it is about, or why not.
type Reply struct {
	ID  string
	New bool
	Err error
	// Runs are the runs to wait for, for [Drain] and [PrepareReboot].
	Runs []string
}

// Entry is one line of a run's event log. The event log numbers it.
type Entry struct {
	Run string
	// Type is state, policy, pull, signal, exit, result, cleanup, warning or critical.
	Type        string
	State, From RunState
	Took        string
	Pull        *Progress
	Message     string
	Outcome     *Outcome
}

// LogLine is a line for the agent's log.
type LogLine struct {
	Level  Level
	Run    string
	Text   string
	Err    error
	Fields map[string]any
}

// Level is the level of a [LogLine].
type Level string

// The levels.
const (
	LevelInfo    Level = "info"
	LevelWarning Level = "warning"
	LevelError   Level = "error"
)

// Effect is something to be done to the world. Each one that has an answer sends an
// event back.
type Effect interface{ effect() }

// Effects.
type (
	// Pull makes a part's image present.
	Pull struct {
		ID   string
		Call int
		Part policy.Part
	}
	// Create makes the container. Inputs are what it reads of those before it.
	Create struct {
		ID     string
		Call   int
		Spec   container.CreateSpec
		Inputs []Input
	}
	// Cancel ends the call of a run that pulls or creates.
	Cancel struct{ ID string }
	// Start sets the reboot marker and starts the container.
	Start struct {
		ID        string
		Call      int
		Container container.Container
		Mark      *Mark
	}
	// Wait waits for the end of the container. Once says that an error is final.
	Wait struct {
		ID        string
		Call      int
		Container container.Container
		Once      bool
	}
	// Observe reads the critical section and the end of the log, at once. Survivors is a
	// process that survived SIGKILL and is to be described, 0 for none.
	Observe struct {
		ID        string
		Claim     *Claim
		Survivors int
	}
	// Signal sends a signal to the first process, or to all.
	Signal struct {
		ID        string
		Container container.Container
		Signal    syscall.Signal
		All       bool
	}
	// ReadEnd reads what the container left, before it is removed.
	ReadEnd struct {
		ID   string
		Call int
	}
	// Remove deletes the container.
	Remove struct {
		ID        string
		Call      int
		Container container.Container
	}
	// RemoveLeft deletes a container of an earlier agent; Retry says to go on until it
	// is gone.
	RemoveLeft struct {
		Container container.Container
		Retry     bool
	}
	// KeepLog brings the output of a run to the state directory.
	KeepLog struct{ ID string }
	// Conclude tells waiters that the run has ended.
	Conclude struct{ ID string }
	// Audit writes the audit record of a run. Check says that it may be there already.
	Audit struct {
		ID    string
		Check bool
	}
	// DropRequest removes the kept request of a run, which holds secrets.
	DropRequest struct{ ID string }
	// Tidy keeps the events of a run that has ended and removes its request.
	Tidy struct{ ID string }
	// DropFiles removes the run directory and event log of a run whose files are kept.
	DropFiles struct{ ID string }
	// RemoveOutput removes what a run wrote, Forget the whole run; Tombstone keeps its id.
	RemoveOutput struct{ ID string }
	Forget       struct {
		ID        string
		Tombstone bool
	}
	// ClearMark clears the reboot marker, if it names the run.
	ClearMark struct{ ID string }
	// RequestReboot hands a run's wish for a reboot out.
	RequestReboot struct{ ID, Reason string }
	// GivenUp says that the bundle of a run is not pushed any more.
	GivenUp struct{ ID string }
	// Sweep removes files of runs that are not known any more.
	Sweep struct{}
	// Recovered tells waiters that recovery is over.
	Recovered struct{}
)

func (Pull) effect()          {}
func (Create) effect()        {}
func (Cancel) effect()        {}
func (Start) effect()         {}
func (Wait) effect()          {}
func (Observe) effect()       {}
func (Signal) effect()        {}
func (ReadEnd) effect()       {}
func (Remove) effect()        {}
func (RemoveLeft) effect()    {}
func (KeepLog) effect()       {}
func (Conclude) effect()      {}
func (Audit) effect()         {}
func (DropRequest) effect()   {}
func (Tidy) effect()          {}
func (DropFiles) effect()     {}
func (RemoveOutput) effect()  {}
func (Forget) effect()        {}
func (ClearMark) effect()     {}
func (RequestReboot) effect() {}
func (GivenUp) effect()       {}
func (Sweep) effect()         {}
func (Recovered) effect()     {}

// inWords formats a duration for an entry; "" where a reboot came between.
func inWords(d time.Duration) string {
	if d < 0 {
		return ""
	}
	return d.Round(time.Microsecond).String()
}
