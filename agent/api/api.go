package api

import (
	"encoding/json"
	"time"
)

// State is the state of a run:
//
//	queued → pulling → creating → running → succeeded | failed | aborted | timed_out | lost
//
// with stopping before the final state where the agent ends the run.
type State string

// The states of a run.
const (
	Queued    State = "queued"
	Pulling   State = "pulling"
	Creating  State = "creating"
	Running   State = "running"
	Stopping  State = "stopping"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Aborted   State = "aborted"
	TimedOut  State = "timed_out"
	Lost      State = "lost"
)

// Final reports whether a run in state s has ended.
func (s State) Final() bool {
	switch s {
	case Succeeded, Failed, Aborted, TimedOut, Lost:
		return true
	default:
		return false
	}
}

// Known reports whether s is one of the states.
func (s State) Known() bool {
	switch s {
	case Queued, Pulling, Creating, Running, Stopping:
		return true
	default:
		return s.Final()
	}
}

// MaxDepth bounds how deep JSON nests, in a request's body and in a container's result.
const MaxDepth = 32

// Peer is the process at the other end of a connection, as the kernel reports it.
type Peer struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	PID int32  `json:"pid"`
	// Command is the process's name, as /proc had it when the connection was made.
	Command string `json:"command,omitempty"`
}

// RunRequest is the body of POST /v1/runs. Either Step or Image is set.
type RunRequest struct {
	// ID makes the request idempotent: a second request with the same ID returns
	// the run that exists. 1 to 64 of [a-zA-Z0-9_.-], not starting with a dot or
	// dash. The agent makes one up when it is empty.
	ID string `json:"id,omitempty"`
	// Step names a step of the steps file or a built-in one.
	Step string `json:"step,omitempty"`
	// Phase is clean, deploy or service, for the audit record and for priorities.
	Phase string `json:"phase,omitempty"`
	// Args are the step's arguments as the conductor sends them.
	Args map[string]any `json:"args,omitempty"`
	// Node is Ironic's node object. Only uuid, name and instance_uuid are kept.
	Node map[string]any `json:"node,omitempty"`

	// Image runs an image with no step: for the command line and the drop-in.
	Image string `json:"image,omitempty"`
	// Command replaces the image's CMD.
	Command []string `json:"command,omitempty"`
	// RunOptions are podman run options: a string, or a list of strings.
	RunOptions any `json:"run_options,omitempty"`
	// PullOptions are podman pull options: a string, or a list of strings.
	PullOptions any `json:"pull_options,omitempty"`
	// ExactOptions says that RunOptions and PullOptions are lists whose elements
	// are words already, so that a value may hold spaces. IPA's options are not:
	// each element is split on white space, as IPA does.
	ExactOptions bool `json:"exact_options,omitempty"`
	// Env are variables that the caller's shell has; "-e NAME", "-e 'NAME*'" and
	// --env-host read them. The agent's own environment is never used for that.
	Env map[string]string `json:"env,omitempty"`
	// WorkDir is the caller's directory, which relative paths in options start from.
	WorkDir string `json:"workdir,omitempty"`

	// Timeout bounds the whole run, pull included, counted from its start.
	Timeout string `json:"timeout,omitempty"`
	// SilenceTimeout ends a container that writes no output for so long.
	SilenceTimeout string `json:"silence_timeout,omitempty"`
	// RebootExitCodes are exit codes that mean success, and that the node must
	// reboot.
	RebootExitCodes []int `json:"reboot_exit_codes,omitempty"`
	// Route names the client for the audit record: cli, podman, ipa or the client's
	// choice; "socket" when empty.
	Route string `json:"route,omitempty"`
	// Stdin keeps the container's standard input open for POST /v1/runs/{id}/stdin.
	Stdin bool `json:"stdin,omitempty"`
	// TerminalSize is the first size of the terminal with -t: columns, rows.
	TerminalSize *TerminalSize `json:"terminal_size,omitempty"`
}

// TerminalSize is a terminal's size in characters.
type TerminalSize struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// Run is a run as the agent reports it.
type Run struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"`
	State State  `json:"state"`
	// Step, Phase and Node are as requested.
	Step  string `json:"step,omitempty"`
	Phase string `json:"phase,omitempty"`
	Node  string `json:"node,omitempty"`
	// Image is the reference as requested, Digest what was run (sha256:...).
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	// Trusted says that the step came from the steps file.
	Trusted bool `json:"trusted,omitempty"`
	// RebootRequested: the step's definition or the container asks for a reboot.
	RebootRequested bool `json:"reboot_requested,omitempty"`
	// Abortable is false for a step that Ironic may not abort.
	Abortable bool `json:"abortable"`
	// Part counts from 1 in a sequence of Parts containers; absent for one alone.
	Part  int `json:"part,omitempty"`
	Parts int `json:"parts,omitempty"`

	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	// BootID is the kernel's boot id when the run was accepted.
	BootID string `json:"boot_id,omitempty"`
	// Pid is the container's first process on the node, while it runs.
	Pid int `json:"pid,omitempty"`

	Pull *PullProgress `json:"pull,omitempty"`
	// StopReason says why the agent ends the run.
	StopReason string `json:"stop_reason,omitempty"`
	// CriticalUntil is set while the container holds off abort, timeout and reboot.
	CriticalUntil *time.Time `json:"critical_until,omitempty"`
	// QueuePosition counts from 1 while queued.
	QueuePosition int `json:"queue_position,omitempty"`
	// Warnings are options that careen ignored or found unsafe, one line each.
	Warnings []string `json:"warnings,omitempty"`

	Outcome *Outcome `json:"outcome,omitempty"`
}

// Outcome is how a run ended. It is present in every final state.
type Outcome struct {
	// Code is "" for success, else a stable code of package fault.
	Code string `json:"code,omitempty"`
	// Message is one line: what failed, on what, why.
	Message string `json:"message,omitempty"`
	// Remedy is one line: what to do next.
	Remedy string `json:"remedy,omitempty"`
	// ExitCode is the container's, 128+n for signal n, or 125/126/127 as podman
	// gives them when the container did not run. Nil when it cannot be known.
	ExitCode *int `json:"exit_code,omitempty"`
	// Signal is the signal's number if one ended the container.
	Signal int `json:"signal,omitempty"`
	// OOMKilled says that the kernel killed a process for the memory limit.
	OOMKilled bool `json:"oom_killed,omitempty"`
	// RebootRequested: the container asked for a reboot, and how.
	RebootRequested bool   `json:"reboot_requested,omitempty"`
	RebootReason    string `json:"reboot_reason,omitempty"`
	// Duration is the time from start to end, measured on the monotonic clock.
	Duration string `json:"duration,omitempty"`
	// Phases are the durations of pulling, creating, running and stopping.
	Phases map[string]string `json:"phases,omitempty"`
	// LogTail are the last lines of output, oldest first.
	LogTail []string `json:"log_tail,omitempty"`
	// Result is the JSON that the container wrote to its result file.
	Result json.RawMessage `json:"result,omitempty"`
	// Leftovers are what the step left on the node and careen does not remove.
	Leftovers []string `json:"leftovers,omitempty"`
	// Attrs are figures that belong to Code, such as needed_bytes.
	Attrs map[string]any `json:"attrs,omitempty"`
}

// PullProgress is the state of a pull.
type PullProgress struct {
	// Status is resolving, waiting, downloading, unpacking or done.
	Status string `json:"status"`
	// Done and Total count the compressed bytes of all layers.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Message says in words what a pull waits for whose status is waiting: a network, or
	// its turn.
	Message string `json:"message,omitempty"`
	// Rate is bytes per second over the last seconds.
	Rate int64 `json:"rate,omitempty"`
	// Warnings are what an operator should know of the pull, one line each.
	Warnings []string        `json:"warnings,omitempty"`
	Layers   []LayerProgress `json:"layers,omitempty"`
	// Retries counts repeated requests.
	Retries int `json:"retries,omitempty"`
}

// LayerProgress is the state of one layer.
type LayerProgress struct {
	Digest string `json:"digest"`
	// Status is waiting, downloading, done or present.
	Status string `json:"status"`
	Done   int64  `json:"done"`
	Total  int64  `json:"total"`
}

// Event is one entry of GET /v1/runs/{id}/events: the SSE data, as JSON.
type Event struct {
	// Seq grows by one; a client resumes with the Last-Event-ID header.
	Seq  int64     `json:"seq"`
	Time time.Time `json:"time"`
	Run  string    `json:"run"`
	// Type is state, policy, pull, signal, exit, result, cleanup, warning or critical.
	Type  string `json:"type"`
	State State  `json:"state,omitempty"`
	// From is the state before, with type state, and Took how long the run was in it;
	// with type cleanup, Took is how long it took to remove the container.
	From    State         `json:"from,omitempty"`
	Took    string        `json:"took,omitempty"`
	Pull    *PullProgress `json:"pull,omitempty"`
	Message string        `json:"message,omitempty"`
	Outcome *Outcome      `json:"outcome,omitempty"`
}

// LogLine is one line of GET /v1/runs/{id}/logs with Accept: application/x-ndjson.
type LogLine struct {
	Time time.Time `json:"time"`
	// Stream is stdout, stderr, or careen for a note of the agent.
	Stream string `json:"stream"`
	// Text is the line without its newline; invalid UTF-8 is in Base64 instead.
	Text   string `json:"text"`
	Base64 []byte `json:"base64,omitempty"`
	// Partial says that the line goes on in the next record.
	Partial bool `json:"partial,omitempty"`
	// Cursor is the place after this line; "?after=CURSOR" goes on from there, also
	// after the agent was restarted.
	Cursor string `json:"cursor,omitempty"`
}

// AbortRequest is the body of POST /v1/runs/{id}/abort.
type AbortRequest struct {
	Reason string `json:"reason,omitempty"`
	// Grace replaces the time between stop signal and SIGKILL.
	Grace string `json:"grace,omitempty"`
	// Force aborts a step that is not abortable, too. A critical section still delays
	// the abort, until its limit.
	Force bool `json:"force,omitempty"`
	// ClientGone says that the abort is because the command line that waited for the
	// run was interrupted: the outcome's code is client_gone in place of aborted.
	ClientGone bool `json:"client_gone,omitempty"`
}

// PullRequest is the body of POST /v1/images/pull. The answer is a Pull, 202.
type PullRequest struct {
	Image        string `json:"image"`
	PullOptions  any    `json:"pull_options,omitempty"`
	ExactOptions bool   `json:"exact_options,omitempty"`
	// Env are variables of the caller's shell; REGISTRY_AUTH_FILE is read.
	Env map[string]string `json:"env,omitempty"`
	// WorkDir is the caller's directory, which relative paths in options start from.
	WorkDir string `json:"workdir,omitempty"`
}

// Pull is an image being pulled, by POST /v1/images/pull or as it ended.
type Pull struct {
	ID    string `json:"id"`
	Image string `json:"image"`
	// State is pulling, succeeded, failed or aborted.
	State     State         `json:"state"`
	CreatedAt time.Time     `json:"created_at"`
	EndedAt   *time.Time    `json:"ended_at,omitempty"`
	Progress  *PullProgress `json:"progress,omitempty"`
	// Digest and ImageID are what the reference resolved to: the manifest's digest
	// and the digest of the image's configuration.
	Digest   string   `json:"digest,omitempty"`
	ImageID  string   `json:"image_id,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Problem says why it failed.
	Problem *Problem `json:"problem,omitempty"`
}

// Image is a stored image.
type Image struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	// ID is the digest of the image's configuration, as podman's image id.
	ID string `json:"id"`
	// Size is what the image takes in the store, unpacked.
	Size      int64     `json:"size"`
	Platform  string    `json:"platform"`
	CreatedAt time.Time `json:"created_at"`
	PulledAt  time.Time `json:"pulled_at"`
}

// Config is the answer of GET and PATCH /v1/config.
type Config struct {
	Settings []Setting `json:"settings"`
	// Warnings are what was ignored or is likely a mistake, one line each.
	Warnings []string `json:"warnings,omitempty"`
}

// Setting is one option in force and where it comes from.
type Setting struct {
	// Key is "container.NAME" for IPA's options, else the key of careen.toml.
	Key   string `json:"key"`
	Value string `json:"value"`
	// From is "FILE:LINE", "environment NAME", "conductor" or "default".
	From string `json:"from"`
}

// AuditRecord is one line of GET /v1/audit: what
// ran on the node, without secrets.
type AuditRecord struct {
	Time time.Time `json:"time"`
	// Event is run, or refused for a request that policy or a check refused.
	Event string `json:"event"`
	Run   string `json:"run,omitempty"`
	// PeerUID, PeerPID and PeerCommand are the process that asked, as the kernel
	// reported it for the connection.
	PeerUID     uint32           `json:"peer_uid"`
	PeerPID     int32            `json:"peer_pid"`
	PeerCommand string           `json:"peer_command,omitempty"`
	Route       string           `json:"route,omitempty"`
	Step        string           `json:"step,omitempty"`
	Phase       string           `json:"phase,omitempty"`
	Node        string           `json:"node,omitempty"`
	Containers  []AuditContainer `json:"containers,omitempty"`
	BootID      string           `json:"boot_id,omitempty"`
	CreatedAt   *time.Time       `json:"created_at,omitempty"`
	StartedAt   *time.Time       `json:"started_at,omitempty"`
	EndedAt     *time.Time       `json:"ended_at,omitempty"`
	State       State            `json:"state,omitempty"`
	Code        string           `json:"code,omitempty"`
	Message     string           `json:"message,omitempty"`
	ExitCode    *int             `json:"exit_code,omitempty"`
	Duration    string           `json:"duration,omitempty"`
}

// AuditContainer is one container of a run.
type AuditContainer struct {
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
	// Decision is the entry of the policy that allowed it.
	Decision string `json:"decision,omitempty"`
	Trusted  bool   `json:"trusted,omitempty"`
	// SignedBy are the keys whose signatures policy.json required and accepted.
	SignedBy []Signer `json:"signed_by,omitempty"`
	// Options are the run and pull options with secret values hidden.
	RunOptions  []string `json:"run_options,omitempty"`
	PullOptions []string `json:"pull_options,omitempty"`
	// SpecSHA256 is the digest of the runtime-spec as it was given to the runtime.
	SpecSHA256 string `json:"spec_sha256,omitempty"`
	// Started says that the container was started, or may have been.
	Started bool `json:"started"`
}

// Signer is who signed an image.
type Signer struct {
	// Key is the fingerprint of the public key: "sha256:" and the hexadecimal SHA-256 of
	// its DER encoding (PKIX), or "gpg:" and the fingerprint of the GPG key.
	Key string `json:"key"`
	// Identity is the name that the signature was made for.
	Identity string `json:"identity"`
}

// Step is one entry of GET /v1/steps, with the keys that IPA advertises.
type Step struct {
	Step            string         `json:"step"`
	Priority        int            `json:"priority"`
	Interface       string         `json:"interface"`
	RebootRequested bool           `json:"reboot_requested"`
	Abortable       bool           `json:"abortable"`
	ArgsInfo        map[string]Arg `json:"argsinfo,omitempty"`
}

// Arg describes one argument of a step.
type Arg struct {
	Description string `json:"description"`
	Required    bool   `json:"required"`
}

// Version is the answer of GET /v1/version.
type Version struct {
	Version      string `json:"version"`
	APIVersion   string `json:"api_version"`
	Commit       string `json:"commit,omitempty"`
	Containerd   string `json:"containerd"`
	Libcontainer string `json:"libcontainer"`
	Spec         string `json:"spec"`
	Go           string `json:"go"`
	Platform     string `json:"platform"`
	BootID       string `json:"boot_id"`
	StartedAt    string `json:"started_at,omitempty"`
}

// Health is the answer of GET /v1/health. Status 200 when Ready, else 503.
type Health struct {
	Ready bool `json:"ready"`
	// RebootPending names the run that asked for a reboot: no run starts.
	RebootPending string  `json:"reboot_pending,omitempty"`
	Checks        []Check `json:"checks,omitempty"`
}

// Check is one finding of careen doctor.
type Check struct {
	Name string `json:"name"`
	// Status is ok, warning or error; only an error keeps containers from running.
	Status string `json:"status"`
	// Detail says what was found, Remedy what to do.
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// Problem is an RFC 9457 problem document, application/problem+json.
type Problem struct {
	// Type is "https://careen-project.github.io/problems/" plus Code.
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Remedy string `json:"remedy,omitempty"`
	// Instance is the request's path.
	Instance string `json:"instance,omitempty"`
	// Field names the member of the body that is wrong.
	Field string `json:"field,omitempty"`
	// Holder is the id of the run in the way, for busy and conflict.
	Holder string         `json:"holder,omitempty"`
	Attrs  map[string]any `json:"attrs,omitempty"`
}
