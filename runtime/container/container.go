package container

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/oci"
)

// Container names a container.
type Container struct {
	// Run is the run's id.
	Run string
	// ID is the container's id: 64 hexadecimal digits.
	ID string
	// Dir is the run's directory on the node, absolute; see [Dir].
	Dir string
}

// ImageInfo is an image that is present.
type ImageInfo struct {
	// Reference is the name that was asked for, Digest its manifest's digest, ID the
	// digest of its configuration.
	Reference, Digest, ID string
	// Pulled says that something was transferred.
	Pulled bool
	// Warnings are one line each.
	Warnings []string
	// SignedBy are the keys that vouched for it, if it had to be signed.
	SignedBy []api.Signer
	// Handle belongs to the engine that made the image present. The same engine gets it
	// back in [CreateSpec].
	Handle any
}

// CreateSpec is what a container is made from.
type CreateSpec struct {
	Container
	Run   *oci.Run
	Image ImageInfo
	// Stdin keeps standard input open for a later writer.
	Stdin bool
	// TerminalSize is the first size of a terminal, nil for the kernel's default.
	TerminalSize *api.TerminalSize
	// Environ are the caller's variables.
	Environ map[string]string
	// LogLimit bounds the output that is kept, in bytes; 0 is the default of package logs.
	LogLimit int64
	// Previous is a file that the container sees as /run/careen/previous.json and cannot
	// change; "" for none. See [Dir.Inputs].
	Previous string
}

// Created is a container that waits to be started.
type Created struct {
	// Warnings are one line each.
	Warnings []string
	// StopSignal asks the container to end; 0 means SIGTERM.
	StopSignal syscall.Signal
	// StopTimeout is the time between StopSignal and SIGKILL, nil for the agent's.
	StopTimeout *time.Duration
	// Timeout is podman's --timeout, counted from the start of the container; 0 is none.
	Timeout time.Duration
	// Digest is the digest that the container was made from, if it is not the image's.
	Digest string
}

// Exit is how a container ended. Its JSON is part of the agent's journal; for the form
// in a run's directory see [Dir.WriteExit].
type Exit struct {
	// Code is the exit code, 128+n for signal n.
	Code int `json:"code"`
	// Signal is the signal that ended the first process, or 0.
	Signal int `json:"signal,omitempty"`
	// OOMKilled says that the kernel killed a process for the container's memory limit.
	OOMKilled bool `json:"oom_killed,omitempty"`
	// ExitedAt is the wall clock at the end; Ran is the time from start to end on the
	// monotonic clock, in nanoseconds, 0 if the container never started.
	ExitedAt time.Time     `json:"exited_at"`
	Ran      time.Duration `json:"ran,omitempty"`
	// Reboot is "restart" or "halt" if the container called reboot(2) in its own PID
	// namespace, "" otherwise. The kernel then ends the first process with SIGHUP or
	// SIGINT, which nothing else inside the container can do (pid_namespaces(7)).
	Reboot string `json:"reboot,omitempty"`
	// Killed counts processes that outlived the first one and were killed.
	Killed int `json:"killed,omitempty"`
}

// String describes the end in a few words, as in "ended by SIGKILL, the kernel killed
// for its memory".
func (e Exit) String() string {
	text := fmt.Sprintf("exit code %d", e.Code)
	if e.Signal != 0 {
		name := unix.SignalName(syscall.Signal(e.Signal))
		if name == "" {
			name = "unknown"
		}
		text = "ended by " + name
	}
	if e.OOMKilled {
		text += ", the kernel killed for its memory"
	}
	if e.Reboot != "" {
		text += ", it called reboot(2)"
	}
	if e.Killed > 0 {
		text += fmt.Sprintf(", %d processes outlived the first", e.Killed)
	}
	return text
}

// State is the state of a container that exists.
type State string

// The states of a container that exists.
const (
	// StateCreated: the container was created and not started.
	StateCreated State = "created"
	// StateRunning: its first process runs.
	StateRunning State = "running"
	// StateStopped: it has ended, or its shim is gone.
	StateStopped State = "stopped"
)

// Existing is a container that exists after a restart of the agent.
type Existing struct {
	Container
	State State
	// Pid is the first process while it runs.
	Pid int
	// Exit is how a stopped container ended, nil when the end is unknown.
	Exit *Exit
}

// WasStarted reports whether the container runs, or is known to have run.
func (e Existing) WasStarted() bool {
	return e.State == StateRunning || e.State == StateStopped && e.Exit != nil && e.Exit.Ran > 0
}

// Leftovers are what a container left behind on the node, one line each.
type Leftovers struct {
	// Undone belonged to careen and is removed now.
	Undone []string
	// Left does not belong to careen, which does not undo it.
	Left []string
}
