package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/docker/go-units"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/agent/marker"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/careen-project/careen/steps"
)

// node is an agent with all its parts, in this process.
type node struct {
	opts     Options
	log      *logrus.Logger
	locks    []*os.File
	layout   *rootfs.Layout
	trust    *trust
	engine   *runtime.Engine
	agent    *agent.Agent
	listener net.Listener
	served   chan error
	stop     context.CancelFunc
}

// gcPercent is low because an agent stays: garbage is memory that steps cannot use.
const gcPercent = 50

// open prepares the node, starts containerd and the agent, recovers earlier runs, and
// listens. On an error everything is closed. With persistent the agent may outlive the
// runs of one command, so it pushes what ended runs leave.
func open(ctx context.Context, opts Options, log *logrus.Logger, persistent bool) (_ *node, err error) {
	// podman's library finds the user's registries.conf by HOME, then by /etc/passwd, and
	// fails if both are missing. A ramdisk may have neither.
	if os.Getenv("HOME") == "" {
		_ = os.Setenv("HOME", "/root")
	}
	debug.SetGCPercent(gcPercent)
	n := &node{opts: opts, log: log, served: make(chan error, 1)}
	defer func() {
		if err != nil {
			_ = n.close()
		}
	}()
	if err := n.prepare(ctx); err != nil {
		return nil, err
	}
	if err := n.lockDirs(); err != nil {
		return nil, err
	}
	if err := n.assemble(ctx, persistent); err != nil {
		return nil, err
	}
	if err := n.agent.Recover(ctx); err != nil {
		return nil, err
	}
	if n.listener, err = httpd.Listen(opts.Socket, os.Geteuid()); err != nil {
		return nil, err
	}
	// Serving ends with stop, not with ctx: a signal drains first.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	go func() { n.served <- n.agent.Serve(serving, n.listener) }()
	return n, nil
}

func (n *node) prepare(ctx context.Context) error {
	p := rootfs.PrepareOptions{RunDir: n.opts.RunDir, StoreDir: n.opts.Root, StoreSize: n.opts.StoreSize}
	if n.opts.NoStore || n.opts.Containerd != "" {
		p.Store = rootfs.StoreDirectory
	}
	layout, actions, err := rootfs.Prepare(ctx, p)
	for _, action := range actions {
		if action.Err != "" {
			n.log.Warn(action.String())
		} else {
			n.log.Info(action.String())
		}
	}
	n.layout = layout
	return err
}

// assemble reads the configuration and makes engine and agent of it.
func (n *node) assemble(ctx context.Context, persistent bool) error {
	cfg, warnings, err := loadConfig(n.opts.Config)
	if err != nil {
		return err
	}
	userAgent := "careen/" + n.opts.Version.Version
	n.trust = newTrust(cfg, n.log)
	pulls, more, err := readPullTable(cfg)
	if err != nil {
		return err
	}
	warnings = append(warnings, more...)
	pusher, more, err := readPush(cfg, userAgent, n.trust.roots)
	if err != nil {
		return err
	}
	if !persistent {
		pusher = nil // the command would have to wait for it
	}
	warnings = append(warnings, more...)
	advice := slices.Concat(warnings, cfg.Unclaimed())
	// A steps file with an error refuses steps later, and GET /v1/config shows why: the
	// agent starts all the same, since the file may be mended while it runs.
	if catalog, err := cfg.LoadSteps(nil); err == nil {
		advice = append(advice, catalog.Warnings...)
	}
	for _, warning := range advice {
		n.log.Warn(warning.String())
	}
	if n.engine, err = n.openEngine(ctx, n.trust.pullConfig(cfg.Node, pulls, userAgent)); err != nil {
		return err
	}
	n.agent, err = n.newAgent(cfg, warnings, pusher)
	return err
}

// The engine runs the agent's containers.
var (
	_ exec.Runner     = (*runtime.Engine)(nil)
	_ exec.Prestarter = (*runtime.Engine)(nil)
)

func (n *node) openEngine(ctx context.Context, pull image.Config) (*runtime.Engine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, &fault.Error{Code: fault.Node, Op: "find careen's own executable", Err: err, Remedy: "Mount /proc"}
	}
	cfg := runtime.Config{
		Root: filepath.Join(n.opts.Root, "containerd"), State: filepath.Join(n.opts.RunDir, "containerd"),
		ContainerdAddress: n.opts.Containerd, Binary: self, Snapshotter: n.opts.Snapshotter,
		StoreInMemory: n.layout.StoreFS == "tmpfs" || n.layout.StoreFS == "ramfs",
		Own:           []string{n.opts.Root, n.opts.RunDir, n.opts.stateDir()},
		ImagePolicy:   imagePolicy(verify.File), Pull: pull, Failpoint: failpoint(),
	}
	if cfg.Snapshotter == "" && n.opts.Containerd == "" && !n.layout.Overlay {
		n.log.Warnf("no overlayfs on this node (%s): every layer is a full copy of the one below", n.layout.OverlayError)
		cfg.Snapshotter = "native"
	}
	return runtime.Open(ctx, cfg)
}

func (n *node) newAgent(cfg *steps.Config, warnings []steps.Warning, pusher exec.Pusher) (*agent.Agent, error) {
	critical := n.opts.Critical
	if critical == 0 {
		critical = -1 // none
	}
	var reboot exec.Marker
	if n.opts.Marker != "" {
		opened, err := marker.Open(n.opts.Marker)
		if err != nil {
			return nil, err
		}
		reboot = opened
	}
	decides := policy.New(policy.Config{
		Steps: cfg, Warnings: warnings, Host: rootfs.Host(), Node: rootfs.GatherNode, Images: imagePolicy(verify.File),
		ConductorFile: filepath.Join(n.opts.RunDir, "conductor.json"), Extra: n.trust.settings,
	})
	n.trust.ipa.Store(decides)
	return agent.New(agent.Config{
		Config: exec.Config{
			Runner: n.engine, RunDir: n.opts.RunDir, StateDir: n.opts.stateDir(), Persistent: n.opts.State != "",
			Grace: n.opts.Grace, QueueLimit: n.opts.Queue, StopOnDrain: n.opts.StopOnExit, LogLimit: n.opts.LogLimit,
			CriticalMax: critical, Marker: reboot, Push: pusher, Checks: n.checks, Log: n.log, Failpoint: failpoint(),
		},
		Resolver: decides, Version: n.opts.Version, AllowedUIDs: n.opts.AllowedUIDs,
		Gauges: n.gauges, NodeState: nodeState,
	})
}

// nodeState has files of the node for a bundle.
func nodeState() map[string][]byte {
	files := map[string][]byte{}
	for name, path := range map[string]string{"cpuinfo": "/proc/cpuinfo", "routes": "/proc/net/route"} {
		if data, err := rootfs.Host().ReadFile(path, 1<<20); err == nil {
			files[name] = data
		}
	}
	return files
}

// checks are the node's part of GET /v1/health: what can change while the agent runs.
// "careen doctor" checks the rest.
func (n *node) checks() []api.Check {
	free, size := space(n.opts.Root)
	check := api.Check{Name: "store", Status: doctor.StatusOK, Detail: sizeText(free) + " of " + sizeText(size) + " free"}
	if size > 0 && free < size/20 {
		check.Status, check.Remedy = doctor.StatusWarning, "Remove images that are not needed (careen rmi), or give --store-size"
	}
	return append([]api.Check{check}, n.trust.checks()...)
}

func (n *node) gauges() []httpd.Gauge {
	free, size := space(n.opts.Root)
	return []httpd.Gauge{
		{Name: "careen_store_size_bytes", Help: "Size of the store's file system.", Value: float64(size)},
		{Name: "careen_store_free_bytes", Help: "Free space in the store.", Value: float64(free)},
	}
}

func space(dir string) (free, size int64) {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0, 0
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize
}

func sizeText(n int64) string { return units.HumanSize(float64(n)) }

// lockDirs keeps a second agent away from this agent's state and store: containerd would
// wait for its database there without an end.
func (n *node) lockDirs() error {
	err := n.lock(n.opts.RunDir, filepath.Join(n.opts.RunDir, "lock"), os.O_CREATE|os.O_RDWR)
	if err != nil || n.opts.Containerd != "" {
		return err
	}
	return n.lock(n.opts.Root, n.opts.Root, os.O_RDONLY)
}

// lock locks a file or directory, for dir, until the node is closed.
func (n *node) lock(dir, path string, flags int) error {
	file, err := os.OpenFile(path, flags|unix.O_CLOEXEC, 0o600)
	if err == nil {
		if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			n.locks = append(n.locks, file)
			return nil
		}
		_ = file.Close()
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return &fault.Error{Code: fault.Conflict, Op: "start an agent in", Subject: dir,
			Reason: "another agent runs there", Remedy: "Use that agent, or give another --run-dir, --root and --socket"}
	}
	return &fault.Error{Code: fault.Node, Op: "lock", Subject: path, Err: err, Remedy: "Run careen as root"}
}
