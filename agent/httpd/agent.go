package httpd

import (
	"context"
	"io"

	"github.com/careen-project/careen/agent/api"
)

// Agent is what the API needs of runs. Methods that only read never wait for a record to
// reach the disk. Errors are [fault.Error] values; an unknown run is [fault.NotFound].
type Agent interface {
	// Submit accepts a run. isNew is false when the same id was accepted before with the
	// same request.
	Submit(ctx context.Context, req *api.RunRequest, peer api.Peer) (run api.Run, isNew bool, err error)
	// Abort asks for a run's end and returns without waiting for it.
	Abort(ctx context.Context, id string, req api.AbortRequest) (api.Run, error)
	// Delete forgets a run that has ended.
	Delete(ctx context.Context, id string) error
	// Run returns one run, Runs all of them, the oldest first.
	Run(id string) (api.Run, error)
	Runs() []api.Run
	// Wait returns a run when it has ended, or as it is when ctx ends.
	Wait(ctx context.Context, id string) (api.Run, error)
	// Events returns the events of a run, also of one that ended under an earlier agent.
	Events(id string) (EventLog, error)
	// Output opens the output of a run for reading. The error is [fault.NotFound] when
	// retention has removed it.
	Output(id string) (*Output, error)
	// Spec returns the runtime-spec of a run's container as JSON, without the values of
	// its environment.
	Spec(id string) ([]byte, error)
	// Input opens the standard input of a run's container; [fault.Conflict] when none runs.
	Input(ctx context.Context, id string) (Input, error)
	// Resize sets the terminal size of a run's container; [fault.Conflict] when none runs.
	Resize(ctx context.Context, id string, size api.TerminalSize) error
	// Audit writes the audit record as JSON lines, the oldest first.
	Audit(w io.Writer) error
	// Health reports whether the agent can run steps.
	Health() api.Health
	// Metrics returns the agent's figures.
	Metrics() Metrics
}

// EventLog is the events of one run.
type EventLog interface {
	// After returns the events that follow seq, whether events between seq and the first
	// one were dropped, and a channel that is closed when there may be more; more is nil
	// when there will be none.
	After(seq int64) (events []api.Event, missed bool, more <-chan struct{})
}

// Output is the output of one run, kept in place until Release is called.
type Output struct {
	// Dir is the directory of its log files, as package runtime/logs reads them.
	Dir string
	// Events is the file with all events of a run that has ended, one JSON object a
	// line. The file may not exist.
	Events string
	// Done is closed when the run has ended.
	Done <-chan struct{}
	// Release lets the files be moved and removed. It is called once.
	Release func()
}

// Input is the standard input of one container.
type Input interface {
	io.Writer
	// Close ends the input. It also ends a Write that waits for the container.
	Close() error
	// Done is closed when the run has ended.
	Done() <-chan struct{}
}

// Images is what the API needs of the image store and of pulls that belong to no run.
type Images interface {
	// Images lists the images in the store.
	Images(ctx context.Context) ([]api.Image, error)
	// RemoveImage removes one; [fault.NotFound] or [fault.Conflict] where it cannot.
	RemoveImage(ctx context.Context, ref string) error
	// StartPull begins a pull and returns without waiting for it.
	StartPull(ctx context.Context, req *api.PullRequest, peer api.Peer) (api.Pull, error)
	// Pull returns a pull when it has ended, or as it is when ctx ends.
	Pull(ctx context.Context, id string) (api.Pull, error)
	// CancelPull ends a pull. A pull that has ended stays as it is.
	CancelPull(id string) (api.Pull, error)
}

// Policy is what the API needs of the configuration.
type Policy interface {
	// Steps returns the steps of a phase: clean, deploy or service. Names in reserved are
	// left out.
	Steps(phase string, reserved []string) ([]api.Step, error)
	// Config returns the configuration in force.
	Config() api.Config
	// SetConductor replaces the conductor's settings and returns the configuration that
	// results.
	SetConductor(options map[string]any) (api.Config, error)
}
