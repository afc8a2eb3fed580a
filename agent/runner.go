package agent

import (
	"context"
	"io"
	"syscall"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/container"
)

// Runner executes containers. Package runtime does behind an adapter in main;
// package agenttest fakes it. Every method may be called from several
// goroutines, for different containers.
//
// A Runner keeps containers while the agent is away: it is asked with [Existing]
// what there is after a restart, and none of its methods may end a container
// because a context ended, except Image and Create, which undo what they began.
type Runner interface {
	// Image makes the image present as the pull policy in pull says, and reports how
	// it goes. A cancelled ctx ends it at once and leaves nothing half-done.
	Image(ctx context.Context, pull *oci.Pull, progress func(api.PullProgress)) (ImageInfo, error)
	// Create makes a container up to the point where its first process waits. On an
	// error nothing is left of it.
	Create(ctx context.Context, spec CreateSpec) (Created, error)
	// Start lets the first process run and returns its pid on the node. A container
	// starts at most once, however often Start is called.
	Start(ctx context.Context, c Container) (pid int, err error)
	// Wait returns how the container ended, also when it did before the call. An
	// error says that it cannot be known, not that the container failed: with code
	// lost nobody ever will, with any other it may be asked again.
	Wait(ctx context.Context, c Container) (Exit, error)
	// Signal sends sig to the first process, or to every process of the container.
	Signal(ctx context.Context, c Container, sig syscall.Signal, all bool) error
	// Delete removes a container in whatever state it is, with its processes, mounts,
	// writable layer and all of its directory but the log. It may be called again,
	// and for a container that never was.
	Delete(ctx context.Context, c Container) (Leftovers, error)
	// Existing lists the containers that careen made and that still exist.
	Existing(ctx context.Context) ([]Existing, error)
	// Stdin opens the container's standard input; closing it ends the input.
	Stdin(ctx context.Context, c Container) (io.WriteCloser, error)
	// Resize sets the size of the container's terminal.
	Resize(ctx context.Context, c Container, size api.TerminalSize) error

	// Images lists what is stored.
	Images(ctx context.Context) ([]api.Image, error)
	// RemoveImage removes an image by name, digest or id. One in use by a container
	// is a conflict, an unknown one not_found.
	RemoveImage(ctx context.Context, ref string) error
}

// Prestarter is a [Runner] that can prepare for a container while the registry is still
// asked for its image. Nothing of that stays if no container follows.
type Prestarter interface{ Prestart() }

// The words that a [Runner] is spoken to in are package container's.
type (
	Container     = container.Container
	ImageInfo     = container.ImageInfo
	CreateSpec    = container.CreateSpec
	Created       = container.Created
	Exit          = container.Exit
	Existing      = container.Existing
	ExistingState = container.State
	Leftovers     = container.Leftovers
)

// The states of a container that was found.
const (
	ContainerCreated = container.StateCreated
	ContainerRunning = container.StateRunning
	ContainerStopped = container.StateStopped
)

// Resolver decides which requests may run; policy.Policy implements it. Nothing runs that
// it did not return.
type Resolver interface {
	// Resolve decides on all containers of a request, or refuses it. local says that
	// root on this node sent it.
	Resolve(req *api.RunRequest, local bool) (*Resolved, error)
	// ResolvePull decides on the pull of an image that does not run now.
	ResolvePull(req *api.PullRequest, local bool) (*oci.Pull, error)
	// Steps lists the steps of a phase. The caller has methods of the names in reserved.
	Steps(phase string, reserved []string) ([]api.Step, error)
	// Config returns the settings in force.
	Config() api.Config
	// SetConductor replaces the options that the conductor sent before.
	SetConductor(options map[string]any) (api.Config, error)
}

// What a [Resolver] returns.
type (
	Resolved = policy.Resolved
	Part     = policy.Part
)
