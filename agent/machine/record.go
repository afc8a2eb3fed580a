package machine

import (
	"encoding/json"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/careen-project/careen/runtime/container"
)

// RunState is the state of a run:
//
//	queued → pulling → creating → running → succeeded | failed | aborted | timed_out | lost
//
// with stopping before the final state where the agent ends the run.
type RunState string

// The states of a run. They are stored in the journal and shown by the API.
const (
	Queued    RunState = "queued"
	Pulling   RunState = "pulling"
	Creating  RunState = "creating"
	Running   RunState = "running"
	Stopping  RunState = "stopping"
	Succeeded RunState = "succeeded"
	Failed    RunState = "failed"
	Aborted   RunState = "aborted"
	TimedOut  RunState = "timed_out"
	Lost      RunState = "lost"
)

// Final reports whether a run in state s has ended.
func (s RunState) Final() bool {
	switch s {
	case Succeeded, Failed, Aborted, TimedOut, Lost:
		return true
	default:
		return false
	}
}

// moves are the allowed changes of a run's state; see the diagram in doc.go.
var moves = map[RunState][]RunState{
	Queued:   {Pulling, Aborted, Failed, Lost},
	Pulling:  {Creating, Stopping, Failed, Lost, Queued},
	Creating: {Running, Stopping, Failed, Lost, Queued},
	Running:  {Pulling, Stopping, Succeeded, Failed, Lost},
	Stopping: {Aborted, TimedOut, Failed, Lost},
}

// Known reports whether s is a state of a run.
func (s RunState) Known() bool { _, ok := moves[s]; return ok || s.Final() }

// Info is what a run shows of itself. It is part of a [Record]: the JSON names are
// the journal's format, version 1, and do not follow the API.
type Info struct {
	ID    string   `json:"id"`
	Name  string   `json:"name,omitempty"`
	State RunState `json:"state"`
	// Step, Phase and Node are as requested.
	Step  string `json:"step,omitempty"`
	Phase string `json:"phase,omitempty"`
	Node  string `json:"node,omitempty"`
	// Image is the reference as requested, Digest the manifest that ran (sha256:...).
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	// Trusted says that the step came from the steps file.
	Trusted bool `json:"trusted,omitempty"`
	// RebootRequested says that the step's definition asks for a reboot.
	RebootRequested bool `json:"reboot_requested,omitempty"`
	Abortable       bool `json:"abortable"`
	// Part counts from 1 in a sequence of Parts containers; 0 for one alone.
	Part  int `json:"part,omitempty"`
	Parts int `json:"parts,omitempty"`

	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	// BootID is the kernel's boot id when the run was accepted.
	BootID string `json:"boot_id,omitempty"`
	// Pid is the container's first process on the node while it runs.
	Pid int `json:"pid,omitempty"`
	// StopReason says why the agent ends the run.
	StopReason string   `json:"stop_reason,omitempty"`
	Warnings   []string `json:"warnings,omitempty"`
	Outcome    *Outcome `json:"outcome,omitempty"`
}

// Outcome is how a run ended. Every run in a final state has one. The fields are
// those of api.Outcome.
type Outcome struct {
	Code            string            `json:"code,omitempty"`
	Message         string            `json:"message,omitempty"`
	Remedy          string            `json:"remedy,omitempty"`
	ExitCode        *int              `json:"exit_code,omitempty"`
	Signal          int               `json:"signal,omitempty"`
	OOMKilled       bool              `json:"oom_killed,omitempty"`
	RebootRequested bool              `json:"reboot_requested,omitempty"`
	RebootReason    string            `json:"reboot_reason,omitempty"`
	Duration        string            `json:"duration,omitempty"`
	Phases          map[string]string `json:"phases,omitempty"`
	LogTail         []string          `json:"log_tail,omitempty"`
	Result          json.RawMessage   `json:"result,omitempty"`
	Leftovers       []string          `json:"leftovers,omitempty"`
	Attrs           map[string]any    `json:"attrs,omitempty"`
}

// Peer is the process that asked for a run, as the kernel named it.
type Peer struct {
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	PID     int32  `json:"pid"`
	Command string `json:"command,omitempty"`
}

// Record is what the journal keeps of a run. It holds no secret: options are
// redacted, and the request itself stays in the run directory of this boot.
type Record struct {
	Run Info `json:"run"`
	// Hash tells a repeated request from another one with the same id.
	Hash string `json:"hash,omitempty"`
	Peer Peer   `json:"peer"`
	// Route is as in the request.
	Route string `json:"route,omitempty"`
	// Audit are the containers so far, for the audit record.
	Audit []AuditContainer `json:"audit,omitempty"`

	// Part is the index of the present container, ContainerID its id once it may exist.
	Part        int    `json:"part"`
	ContainerID string `json:"container_id,omitempty"`
	// Starting says that the container may have been started: it is never created again.
	Starting bool `json:"starting,omitempty"`
	// Exit is how the container ended, End what it left, once known.
	Exit *container.Exit `json:"exit,omitempty"`
	End  *End            `json:"end,omitempty"`

	StopSignal  syscall.Signal `json:"stop_signal,omitempty"`
	StopTimeout *time.Duration `json:"stop_timeout,omitempty"`
	// Timeout bounds the whole run, Part* the present container; 0 is none.
	Timeout         time.Duration `json:"timeout,omitempty"`
	PartTimeout     time.Duration `json:"part_timeout,omitempty"`
	PartSilence     time.Duration `json:"part_silence,omitempty"`
	ProcessTimeout  time.Duration `json:"process_timeout,omitempty"`
	RebootExitCodes []int         `json:"reboot_exit_codes,omitempty"`
	CriticalPart    bool          `json:"critical_part,omitempty"`

	// Stop is why the agent ends the run, nil while nothing asks for that.
	Stop *Stop `json:"stop,omitempty"`

	// Readings of the boot clock: when the run was accepted, left the queue, began its
	// part, its process and its present state. They hold for one boot only.
	Accepted     time.Duration `json:"accepted"`
	Began        time.Duration `json:"began,omitempty"`
	PartBegan    time.Duration `json:"part_began,omitempty"`
	ProcessBegan time.Duration `json:"process_began,omitempty"`
	PhaseBegan   time.Duration `json:"phase_began,omitempty"`
	// Phases are the durations of the states that are over.
	Phases map[string]time.Duration `json:"phases,omitempty"`

	// Previous are the earlier containers of a sequence, until the run has ended.
	Previous []Input `json:"previous,omitempty"`
	// Leftovers are what the containers so far left behind.
	Leftovers container.Leftovers `json:"leftovers"`
	// Reboot is why an earlier container of the sequence asked for a reboot, "" for none.
	Reboot string `json:"reboot,omitempty"`
	// RebootClaim is set while this run keeps others from starting.
	RebootClaim bool `json:"reboot_claim,omitempty"`
	// Audited: the audit record is written. Kept: logs and events are in the state
	// directory. Dropped: retention removed them again.
	Audited bool `json:"audited,omitempty"`
	Kept    bool `json:"kept,omitempty"`
	Dropped bool `json:"dropped,omitempty"`
	// Unpushed says that the run's bundle is still to be pushed.
	Unpushed bool `json:"unpushed,omitempty"`
	// Seq counts changes of state; a new agent numbers events from it.
	Seq int64 `json:"seq"`
}

// AuditContainer is one container of a run in the audit record. The fields are
// those of api.AuditContainer.
type AuditContainer struct {
	Image       string   `json:"image"`
	Digest      string   `json:"digest,omitempty"`
	Decision    string   `json:"decision,omitempty"`
	Trusted     bool     `json:"trusted,omitempty"`
	SignedBy    []Signer `json:"signed_by,omitempty"`
	RunOptions  []string `json:"run_options,omitempty"`
	PullOptions []string `json:"pull_options,omitempty"`
	SpecSHA256  string   `json:"spec_sha256,omitempty"`
	Started     bool     `json:"started"`
}

// Signer is who signed an image.
type Signer struct {
	// Key is the fingerprint of the public key, Identity the name that was signed.
	Key      string `json:"key"`
	Identity string `json:"identity"`
}

// End is what was read of a container when it had ended.
type End struct {
	Result   []byte   `json:"result,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Tail     []string `json:"tail,omitempty"`
}

// Input is what a container reads in previous.json about one container before it: an
// earlier part of its sequence, or the last run of a step that its definition names.
type Input struct {
	Part  int      `json:"part,omitempty"`
	Step  string   `json:"step,omitempty"`
	Run   string   `json:"run,omitempty"`
	Image string   `json:"image"`
	State RunState `json:"state"`
	// Digest and ExitCode are absent where there are none.
	Digest   string          `json:"digest,omitempty"`
	ExitCode *int            `json:"exit_code,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	// ResultOmitted says that the result had no room.
	ResultOmitted bool `json:"result_omitted,omitempty"`
}

// Stop is a wish to end a run. From Applied on the run is being ended.
type Stop struct {
	Cause  Cause         `json:"cause"`
	Reason string        `json:"reason,omitempty"`
	Grace  time.Duration `json:"grace,omitempty"`
	// Limit is the limit that passed, for timeouts.
	Limit time.Duration `json:"limit,omitempty"`
	// At is the boot clock when the wish came.
	At      time.Duration `json:"at,omitempty"`
	Applied bool          `json:"applied,omitempty"`
}

// Cause is why the agent ends a run.
type Cause string

// The causes.
const (
	CauseAbort    Cause = "abort"
	CauseClient   Cause = "client_gone"
	CauseDrain    Cause = "drain"
	CauseShutdown Cause = "node_shutdown"
	CauseTimeout  Cause = "timeout"
	CauseProcess  Cause = "process_timeout" // podman's --timeout
	CauseSilence  Cause = "silence"
	CauseStall    Cause = "pull_stall"
)

// clone copies everything that a change may write to.
func (rec Record) clone() Record {
	rec.Phases = maps.Clone(rec.Phases)
	rec.Audit, rec.Previous = slices.Clone(rec.Audit), slices.Clone(rec.Previous)
	rec.Leftovers.Undone = slices.Clone(rec.Leftovers.Undone)
	rec.Leftovers.Left = slices.Clone(rec.Leftovers.Left)
	rec.Run.Warnings = slices.Clone(rec.Run.Warnings)
	if rec.Stop != nil {
		stop := *rec.Stop
		rec.Stop = &stop
	}
	return rec
}

// warn adds lines that are not there yet, up to a limit.
func (rec *Record) warn(lines ...string) {
	const most = 100
	for _, line := range lines {
		if len(rec.Run.Warnings) < most && !slices.Contains(rec.Run.Warnings, line) {
			rec.Run.Warnings = append(rec.Run.Warnings, line)
		}
	}
}

// audit returns the audit entry of the present container.
func (rec *Record) audit() *AuditContainer {
	for len(rec.Audit) <= rec.Part {
		rec.Audit = append(rec.Audit, AuditContainer{})
	}
	return &rec.Audit[rec.Part]
}

// subject names what the run does, for errors.
func (rec *Record) subject() string {
	if rec.Run.Step != "" {
		return "step " + rec.Run.Step
	}
	return "the run of " + rec.Run.Image
}

// leaveState adds the time since the present state began to that state's duration.
func (rec *Record) leaveState(now time.Duration) {
	if rec.Phases == nil {
		rec.Phases = map[string]time.Duration{}
	}
	if d := now - rec.PhaseBegan; d > 0 {
		rec.Phases[string(rec.Run.State)] += d
	}
	rec.PhaseBegan = now
}
