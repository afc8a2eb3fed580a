package agent

import (
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
)

// Config is what an agent is made of. Runner, Resolver, RunDir and StateDir are
// required; other zero values mean the defaults named at the fields.
type Config struct {
	Runner   Runner
	Resolver Resolver
	// RunDir holds the directories of runs and lies on a file system that does not
	// survive a reboot, such as /run/careen: it sees secrets.
	RunDir string
	// StateDir holds the journal, the audit record and what is kept of ended runs.
	// No secret gets there.
	StateDir string
	// Persistent says that the operator gave StateDir to survive a reboot. Then an
	// agent whose StateDir cannot be used does not start; without it, it works from
	// memory and says so in its health.
	Persistent bool

	// Beacon, if not nil, tells after a reboot which container was being run where
	// StateDir does not survive it.
	Beacon Beacon

	// AllowedUIDs may use the socket, beside root and the agent's own user.
	AllowedUIDs []uint32
	// Slots is how many runs execute at once (1).
	Slots int
	// QueueLimit is how many may wait (16); negative means none.
	QueueLimit int

	// Grace is the time between stop signal and SIGKILL (10s).
	Grace time.Duration
	// StuckAfter is how long a killed container may take to go (30s).
	StuckAfter time.Duration
	// PullStall ends a pull that gets no bytes for so long (10m); negative never. The
	// registry client has shorter limits of its own for one connection.
	PullStall time.Duration
	// CriticalMax is the longest critical section that a container may claim (30m);
	// negative means none.
	CriticalMax time.Duration
	// CallTimeout bounds single calls of the Runner that ought to be quick: signals,
	// deletion (60s).
	CallTimeout time.Duration
	// LostAfter is how long to ask again when the Runner cannot tell about a running
	// container, before it is lost (30s).
	LostAfter time.Duration
	// StopOnDrain makes [Agent.Drain] stop containers by the ladder; otherwise they
	// go on without the agent and are adopted by the next one.
	StopOnDrain bool

	// LogLimit bounds one run's output in bytes (16 MiB).
	LogLimit int64
	// TailLines are how many lines of output an outcome carries (25).
	TailLines int
	// KeepRuns is how many ended runs are remembered (1000): so long the same id is the
	// same run. Of KeepIDs before those (10000) the id is refused; negative of none.
	// KeepLogs is of how many runs the output, events and result are kept (50), within
	// KeepBytes (64 MiB).
	KeepRuns, KeepIDs, KeepLogs int
	KeepBytes                   int64

	// Push, if not nil, takes the bundle of each run when it has ended. One attempt may
	// take PushTime (60s). PushLast is for how long the node's end waits for the rest (30s).
	Push               Pusher
	PushTime, PushLast time.Duration

	// Version is what GET /v1/version answers; BootID and StartedAt are filled in.
	Version api.Version
	// Checks are the findings of GET /v1/health beside the agent's own. It may be nil.
	Checks func() []api.Check
	// Gauges are figures for /metrics beside the agent's own. It may be nil.
	Gauges func() []httpd.Gauge
	// NodeState are files for a bundle beside the agent's own, name to content. It
	// may be nil.
	NodeState func() map[string][]byte
	// Log takes what an operator should see (logrus's standard logger).
	Log logrus.FieldLogger

	// Clock returns a monotonic time that goes on over suspend and over restarts of
	// the agent: CLOCK_BOOTTIME. Tests replace it.
	Clock func() time.Duration
	// BootID is the kernel's boot id, read from /proc if empty.
	BootID string
	// Failpoint is called with a name between any two steps that a crash may come
	// between. Tests end the process there. It may be nil.
	Failpoint func(name string)
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	if c.Runner == nil || c.Resolver == nil || c.RunDir == "" || c.StateDir == "" {
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
		c.Clock = bootClock
	}
	if c.Failpoint == nil {
		c.Failpoint = func(string) {}
	}
	if c.BootID == "" {
		id, err := bootID()
		if err != nil {
			return c, err
		}
		c.BootID = id
	}
	c.Version.BootID = c.BootID
	return c, nil
}

// set gives *v its default if it is zero.
func set[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (c Config) runDir(id string) string      { return filepath.Join(c.RunDir, "runs", id) }
func (c Config) requestPath(id string) string { return filepath.Join(c.RunDir, "requests", id+".json") }
func (c Config) diaryPath(id string) string   { return filepath.Join(c.RunDir, "events", id+".jsonl") }
func (c Config) keptDir(id string) string     { return filepath.Join(c.StateDir, "runs", id) }
