package machine

import (
	"syscall"
	"time"

	"github.com/careen-project/careen/runtime/container"
)

// Now is the time of a step: the boot clock, which decides, and the wall clock, which
// is only recorded.
type Now struct {
	Clock time.Duration
	Wall  time.Time
}

// Event is something that happened: a request, an answer to an effect, or time.
type Event interface{ event() }

// Requests. The step's reply answers them.
type (
	// Submit asks for a run. Record is the run as it would be queued. Known is an error
	// if the id belongs to a run that retention has removed.
	Submit struct {
		Record Record
		Plan   *Plan
		Known  error
	}
	// Abort asks for a run's end.
	Abort struct {
		ID, Reason string
		Grace      time.Duration
		// Force aborts a step that is not abortable, ClientGone names the cause.
		Force, ClientGone bool
	}
	// Delete asks to forget a run that has ended.
	Delete struct{ ID string }
	// Drain ends acceptance. Stop ends the runs too; Shutdown says that the node goes down.
	Drain struct{ Stop, Shutdown bool }
	// PrepareReboot ends acceptance, and the queue with reboot_pending.
	PrepareReboot struct{}
	// Detach lets go of all runs without ending them.
	Detach struct{}
)

// Recovery.
type (
	// Load gives the machine what earlier agents left.
	Load struct {
		Records  []Record
		Existing []container.Existing
		// Plans are the plans of runs that may still start something, or why there is none.
		Plans map[string]PlanOrError
		// Tails are the last lines of output of runs that had not ended.
		Tails map[string][]string
		// LogBytes are the sizes of the kept logs.
		LogBytes map[string]int64
		// Mark is what the reboot marker says, nil for nothing.
		Mark *Mark
	}
	// Resume goes on with the runs when nothing is being removed any more.
	Resume struct{}
	// Removed says whether a container of an earlier agent is gone.
	Removed struct {
		ID  string
		Err error
	}
)

// PlanOrError is a plan, or why a request cannot be carried out any more.
type PlanOrError struct {
	Plan *Plan
	Err  error
}

// Mark is what the reboot marker keeps: the container that was being run.
type Mark struct {
	Run    string    `json:"run"`
	Step   string    `json:"step,omitempty"`
	Phase  string    `json:"phase,omitempty"`
	Node   string    `json:"node,omitempty"`
	Image  string    `json:"image"`
	BootID string    `json:"boot_id"`
	At     time.Time `json:"at"`
}

// Answers to effects. Call is the number that the effect had.
type (
	// PullProgress reports progress of a run's pull.
	PullProgress struct {
		ID       string
		Call     int
		Progress Progress
	}
	// Pulled answers [Pull].
	Pulled struct {
		ID   string
		Call int
		Err  error
		// ContainerID is the id for the container, Image and SignedBy what was pulled.
		ContainerID string
		Image       container.ImageInfo
		SignedBy    []Signer
	}
	// Created answers [Create].
	Created struct {
		ID   string
		Call int
		Err  error
		container.Created
		// SpecSHA256 is the digest of the runtime-spec, Warning why it was not kept.
		SpecSHA256, Warning string
	}
	// Started answers [Start]. MarkErr says why the reboot marker was not set.
	Started struct {
		ID      string
		Call    int
		Err     error
		Pid     int
		Marked  bool
		MarkErr error
	}
	// Observed answers [Observe].
	Observed struct {
		ID     string
		Claim  *Claim
		Output string
		// Survivors describe the processes that survived SIGKILL.
		Survivors string
	}
	// Exited answers [Wait]. An error says that how the container ended cannot be known.
	Exited struct {
		ID   string
		Call int
		Exit container.Exit
		Err  error
	}
	// EndRead answers [ReadEnd].
	EndRead struct {
		ID   string
		Call int
		End  End
	}
	// Deleted answers [Remove].
	Deleted struct {
		ID        string
		Call      int
		Leftovers container.Leftovers
		Err       error
		Took      time.Duration
	}
	// LogKept answers [KeepLog].
	LogKept struct{ ID string }
	// Tidied answers [Tidy]. LogBytes is the size of the kept output.
	Tidied struct {
		ID       string
		LogBytes int64
	}
	// Audited answers [Audit].
	Audited struct{ ID string }
	// Pushed says that a bundle was delivered, or why it was given up.
	Pushed struct {
		ID      string
		Warning string
	}
	// OutputRemoved answers [RemoveOutput], Forgotten answers [Forget].
	OutputRemoved struct{ ID string }
	Forgotten     struct{ ID string }
	// MarkCleared says that the reboot marker is empty.
	MarkCleared struct{ ID string }
)

// Time, and what a step leaves to the next one.
type (
	// Tick says that time has passed.
	Tick struct{}
	// Schedule gives a free slot to the run that waits first.
	Schedule struct{}
	// Next begins the next part of a sequence, or ends the run.
	Next struct{ ID string }
	// Retain applies the limits of retention.
	Retain struct{}
	// Unrecorded says that the record of an event could not be made durable. The event
	// has had no effect.
	Unrecorded struct {
		Event Event
		Err   error
	}
)

func (Submit) event()        {}
func (Abort) event()         {}
func (Delete) event()        {}
func (Drain) event()         {}
func (PrepareReboot) event() {}
func (Detach) event()        {}
func (Load) event()          {}
func (Resume) event()        {}
func (Removed) event()       {}
func (PullProgress) event()  {}
func (Pulled) event()        {}
func (Created) event()       {}
func (Started) event()       {}
func (Observed) event()      {}
func (Exited) event()        {}
func (EndRead) event()       {}
func (Deleted) event()       {}
func (LogKept) event()       {}
func (Tidied) event()        {}
func (Audited) event()       {}
func (Pushed) event()        {}
func (OutputRemoved) event() {}
func (Forgotten) event()     {}
func (MarkCleared) event()   {}
func (Tick) event()          {}
func (Schedule) event()      {}
func (Next) event()          {}
func (Retain) event()        {}
func (Unrecorded) event()    {}

// stopSignal returns the polite signal of a container.
func (rec *Record) stopSignal() syscall.Signal {
	if rec.StopSignal == 0 {
		return syscall.SIGTERM
	}
	return rec.StopSignal
}

// grace returns the time between stop signal and SIGKILL.
func (rec *Record) grace(def time.Duration) time.Duration {
	switch {
	case rec.Stop.Cause == CauseProcess:
		return 0
	case rec.Stop.Grace > 0:
		return rec.Stop.Grace
	case rec.StopTimeout != nil:
		return *rec.StopTimeout
	default:
		return def
	}
}
