package exec

import (
	"context"
	"io"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/agent/store/journal"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs/procfs"
	"github.com/careen-project/careen/runtime/container"
)

// Runner executes containers. Package runtime does, package agenttest fakes it, and the
// suite of package containertest says what both do. Every method may be called from
// several goroutines, for different containers.
//
// A Runner keeps containers while the agent is away: Existing says after a restart what
// there is. No method ends a container because a context ended, except Image and Create,
// which undo what they began.
type Runner interface {
	// Image makes the image present as the pull policy in pull says, and reports how it
	// goes. A cancelled ctx ends it at once and leaves nothing incomplete.
	Image(ctx context.Context, pull *oci.Pull, progress func(api.PullProgress)) (container.ImageInfo, error)
	// Create makes a container up to the point where its first process waits. On an error
	// nothing is left of it.
	Create(ctx context.Context, spec container.CreateSpec) (container.Created, error)
	// Start lets the first process run and returns its pid on the node. A container starts
	// at most once, however often Start is called.
	Start(ctx context.Context, c container.Container) (pid int, err error)
	// Wait returns how the container ended, also when it did before the call. An error says
	// that it cannot be known: with code lost it never will be, with any other code Wait may
	// be called again.
	Wait(ctx context.Context, c container.Container) (container.Exit, error)
	// Signal sends sig to the first process, or to every process of the container.
	Signal(ctx context.Context, c container.Container, sig syscall.Signal, all bool) error
	// Delete removes a container in whatever state it is, with its processes, mounts,
	// writable layer and all of its directory but the log. It may be called again, and for
	// a container that never was.
	Delete(ctx context.Context, c container.Container) (container.Leftovers, error)
	// Existing lists the containers that careen made and that still exist.
	Existing(ctx context.Context) ([]container.Existing, error)
	// Stdin opens the container's standard input; closing it ends the input.
	Stdin(ctx context.Context, c container.Container) (io.WriteCloser, error)
	// Resize sets the size of the container's terminal.
	Resize(ctx context.Context, c container.Container, size api.TerminalSize) error

	// Images lists the stored images.
	Images(ctx context.Context) ([]api.Image, error)
	// RemoveImage removes an image by name, digest or id. The error has code conflict for
	// one that a container uses, not_found for an unknown one.
	RemoveImage(ctx context.Context, ref string) error
}

// Prestarter is a [Runner] that can prepare for a container while its image is still being
// asked for. Nothing of that stays where no container follows.
type Prestarter interface{ Prestart() }

// Resolver decides whether and how a request may run. Package policy has it.
type Resolver interface {
	// Resolve decides on all containers of a request, or refuses it. local says that root
	// on this node asks.
	Resolve(req *api.RunRequest, local bool) (*policy.Resolved, error)
	// ResolvePull decides on a pull.
	ResolvePull(req *api.PullRequest, local bool) (*oci.Pull, error)
}

// Marker keeps a small text over a reboot where there is no place for a journal. Package
// marker has the kinds there are.
type Marker interface {
	Write(data []byte) error
	// Read returns nil when nothing is kept.
	Read() ([]byte, error)
	Clear() error
}

// Pusher delivers the bundle of a run to where it outlives the node; package push has one.
type Pusher interface {
	// Put delivers size bytes. An error that is a [push.Refused] is not tried again.
	Put(ctx context.Context, node, run string, body io.Reader, size int64) error
	// Target is where bundles go, without what may be a secret.
	Target(node, run string) string
}

// Config is what an executor is made of. Runner, RunDir and StateDir are
// required; other zero values mean the defaults named at the fields.
type Config struct {
	Runner Runner
	// resolver is given to [Config.WithDefaults].
	resolver Resolver
	// RunDir and StateDir are the directories of package store, which explains them.
	RunDir, StateDir string
	// Persistent says that the operator gave StateDir to survive a reboot. Then an agent
	// whose StateDir cannot be used does not start.
	Persistent bool
	// Disk is the file system of the journal (the operating system's).
	Disk journal.Disk

	// Marker, if not nil, tells after a reboot which container was being run where StateDir
	// does not survive it.
	Marker Marker

	// Slots is how many runs execute at once (1), QueueLimit how many may wait (16);
	// negative for none.
	Slots, QueueLimit int

	// Grace is the time between stop signal and SIGKILL (10s).
	Grace time.Duration
	// StuckAfter is how long a killed container may take to end (30s).
	StuckAfter time.Duration
	// PullStall ends a pull that gets no bytes for so long (10m); negative for never. The
	// registry client has shorter limits for one connection.
	PullStall time.Duration
	// CriticalMax is the longest critical section that a container may claim (30m);
	// negative for none.
	CriticalMax time.Duration
	// CallTimeout bounds calls of the Runner that ought to be quick: start, signals,
	// deletion (60s).
	CallTimeout time.Duration
	// LostAfter is how long the Runner is asked about a container that it cannot tell
	// about, before the container is lost (30s).
	LostAfter time.Duration
	// StopOnDrain makes [Executor.Drain] end containers; otherwise they go on without the
	// agent, and the next one adopts them.
	StopOnDrain bool

	// LogLimit bounds the output of one run in bytes (16 MiB).
	LogLimit int64
	// TailLines are how many lines of output an outcome carries (25).
	TailLines int
	// KeepRuns is how many ended runs are kept (1000): for so long the same id is the same
	// run. KeepIDs is how many ids before those are refused (10000); negative for none.
	// KeepLogs is of how many runs output, events and result are kept (50), within
	// KeepBytes (64 MiB).
	KeepRuns, KeepIDs, KeepLogs int
	KeepBytes                   int64

	// Push, if not nil, takes the bundle of each run that has ended, which Bundle writes.
	// One attempt may take PushTime (60s). PushLast is how long the node's end waits for
	// the rest (30s).
	Push               Pusher
	Bundle             func(w io.Writer, id string) error
	PushTime, PushLast time.Duration

	// Problem makes the problem document of an error, for a pull that failed.
	Problem func(err error) *api.Problem
	// Checks are findings of GET /v1/health beside the executor's. It may be nil.
	Checks func() []api.Check
	// Log takes what an operator should see (logrus's standard logger).
	Log logrus.FieldLogger

	// Clock returns a monotonic time that goes on over suspend and over restarts of the
	// agent: CLOCK_BOOTTIME. Tests replace it.
	Clock func() time.Duration
	// BootID is the kernel's boot id, read from /proc if empty.
	BootID string
	// Failpoint is called with a name between any two effects on the world. Tests end the
	// process there. It may be nil.
	Failpoint func(name string)
}

// WithDefaults fills in what was left out, and the policy. The error has code internal for a missing
// required field, node where /proc is missing.
func (c Config) WithDefaults(r Resolver) (Config, error) {
	c.resolver = r
	if c.Runner == nil || c.resolver == nil || c.RunDir == "" || c.StateDir == "" {
		return c, &fault.Error{Code: fault.Internal, Op: "start the agent",
			Reason: "it lacks a runner, a resolver or a directory"}
	}
	set(&c.Slots, 1)
	set(&c.QueueLimit, 16)
	set(&c.Grace, 10*time.Second)
	set(&c.StuckAfter, 30*time.Second)
	set(&c.PullStall, 10*time.Minute)
	set(&c.CriticalMax, 30*time.Minute)
	set(&c.CallTimeout, time.Minute)
	set(&c.LostAfter, 30*time.Second)
	set(&c.LogLimit, 16<<20)
	set(&c.TailLines, 25)
	set(&c.KeepRuns, 1000)
	set(&c.KeepIDs, 10_000)
	set(&c.KeepLogs, 50)
	set(&c.KeepBytes, 64<<20)
	set(&c.PushTime, time.Minute)
	set(&c.PushLast, 30*time.Second)
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	if c.Clock == nil {
		c.Clock = procfs.BootClock
	}
	if c.Failpoint == nil {
		c.Failpoint = func(string) {}
	} else if c.Disk == nil {
		c.Disk = journal.Faulty{Disk: journal.OS{}, Failpoint: c.Failpoint}
	}
	if c.BootID == "" {
		id, err := procfs.BootID()
		if err != nil {
			return c, &fault.Error{Code: fault.Node, Op: "read the boot id", Err: err, Remedy: "Mount /proc before the agent starts"}
		}
		c.BootID = id
	}
	return c, nil
}

// set gives *v its default if it is zero.
func set[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (c Config) machine() machine.Config {
	return machine.Config{
		BootID: c.BootID, Slots: c.Slots, QueueLimit: c.QueueLimit, Grace: c.Grace, StuckAfter: c.StuckAfter,
		PullStall: c.PullStall, CriticalMax: c.CriticalMax, LostAfter: c.LostAfter,
		KeepRuns: c.KeepRuns, KeepLogs: c.KeepLogs, KeepBytes: c.KeepBytes, Push: c.Push != nil,
	}
}
