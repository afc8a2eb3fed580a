package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/agent/marker"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/careen-project/careen/steps"
)

// nodeOptions are the flags of "careen agent"; "careen run" uses their defaults.
type nodeOptions struct {
	root, runDir, state, socket, config string
	containerd                          string
	storeSize, logLimit                 int64
	noStore                             bool
	snapshotter                         string
	stopOnExit, allowReboot             bool
	grace, critical                     time.Duration
	queue                               int
	beacon                              string
	allowedUIDs                         []uint32
	// stays says that the agent is there for more than one command.
	stays bool
}

func defaultNodeOptions(socket string) nodeOptions {
	return nodeOptions{
		root: rootfs.DefaultStoreDir, runDir: rootfs.DefaultRunDir, socket: socket,
		grace: 10 * time.Second, critical: 30 * time.Minute, queue: 16,
	}
}

// absolute makes the paths absolute. Mounts and the OCI runtime need absolute paths.
func (o *nodeOptions) absolute() error {
	marker, isFile := strings.CutPrefix(o.beacon, "file:")
	if err := absolute(&o.root, &o.runDir, &o.state, &o.socket, &o.config, &o.containerd, &marker); err != nil {
		return err
	}
	if isFile {
		o.beacon = "file:" + marker
	}
	return nil
}

// absolute makes paths absolute, relative to the working directory; "" stays "".
func absolute(paths ...*string) error {
	for _, path := range paths {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return &fault.Error{Code: fault.Node, Op: "make absolute", Subject: *path, Err: err, Remedy: "Give an absolute path"}
		}
		*path = abs
	}
	return nil
}

// node is an agent with all that it works with, in this process.
type node struct {
	opts     nodeOptions
	log      *logrus.Logger
	locks    []*os.File
	layout   *rootfs.Layout
	engine   *runtime.Engine
	pulls    pullTable
	pusher   exec.Pusher
	agent    *agent.Agent
	listener net.Listener
	served   chan error
	stop     context.CancelFunc
	trust    *nodeTrust
}

// agentGCPercent is how much an agent may have in garbage beside what it uses: what a
// command may have (see [dispatch]) would be too much for what stays.
const agentGCPercent = 50

// startNode makes the node fit for containers, starts containerd and the agent,
// lets it find what an earlier one left, and listens. On an error nothing runs.
func startNode(ctx context.Context, opts nodeOptions, log *logrus.Logger) (_ *node, err error) {
	// podman's library finds the user's registries.conf by HOME, then by /etc/passwd, and fails
	// if both are missing. A ramdisk may have neither.
	if os.Getenv("HOME") == "" {
		_ = os.Setenv("HOME", "/root")
	}
	debug.SetGCPercent(agentGCPercent)
	n := &node{opts: opts, served: make(chan error, 1)}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := n.prepare(ctx, log); err != nil {
		return nil, err
	}
	if err := n.lockDirs(); err != nil {
		return nil, err
	}
	cfg, warnings, err := n.loadConfig()
	if err != nil {
		return nil, err
	}
	n.trust = newNodeTrust(cfg, log)
	if n.engine, err = n.openEngine(ctx); err != nil {
		return nil, err
	}
	if n.agent, err = n.newAgent(log, cfg, warnings); err != nil {
		return nil, err
	}
	if err := n.agent.Recover(ctx); err != nil {
		return nil, err
	}
	if n.listener, err = httpd.Listen(opts.socket, os.Geteuid()); err != nil {
		return nil, err
	}
	// Serving ends with stop, not with ctx: a signal drains first.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	go func() { n.served <- n.agent.Serve(serving, n.listener) }()
	return n, nil
}

func (n *node) prepareOptions() rootfs.PrepareOptions {
	p := rootfs.PrepareOptions{RunDir: n.opts.runDir, StoreDir: n.opts.root, StoreSize: n.opts.storeSize}
	if n.opts.noStore || n.opts.containerd != "" {
		p.Store = rootfs.StoreDirectory
	}
	return p
}

func (n *node) prepare(ctx context.Context, log *logrus.Logger) error {
	n.log = log
	layout, actions, err := rootfs.Prepare(ctx, n.prepareOptions())
	for _, action := range actions {
		if action.Err != "" {
			log.Warn(action.String())
		} else {
			log.Info(action.String())
		}
	}
	n.layout = layout
	return err
}

// The engine runs the agent's containers.
var (
	_ exec.Runner     = (*runtime.Engine)(nil)
	_ exec.Prestarter = (*runtime.Engine)(nil)
)

func (n *node) openEngine(ctx context.Context) (*runtime.Engine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, &fault.Error{Code: fault.Node, Op: "find careen's own executable", Err: err, Remedy: "Mount /proc"}
	}
	cfg := runtime.Config{
		Root: filepath.Join(n.opts.root, "containerd"), State: filepath.Join(n.opts.runDir, "containerd"),
		ContainerdAddress: n.opts.containerd, Binary: self, Snapshotter: n.opts.snapshotter,
		StoreInMemory: n.layout.StoreFS == "tmpfs" || n.layout.StoreFS == "ramfs",
		Failpoint:     failpoint(),
		Own:           []string{n.opts.root, n.opts.runDir, n.stateDir()},
		Admit:         admission(verify.File),
		Pull:          image.Config{UserAgent: "careen/" + version.Version, Jitter: n.pulls.Jitter.Duration},
	}
	if cfg.Snapshotter == "" && n.opts.containerd == "" && !n.layout.Overlay {
		logrus.Warnf("no overlayfs on this node (%s): every layer is a full copy of the one below", n.layout.OverlayError)
		cfg.Snapshotter = "native"
	}
	n.trust.configure(&cfg.Pull)
	return runtime.Open(ctx, cfg)
}

// loadConfig reads careen.toml and IPA's files.
func (n *node) loadConfig() (*steps.Config, []steps.Warning, error) {
	cfg, warnings, err := steps.Load(steps.LoadOptions{
		File: n.opts.config, Getenv: os.LookupEnv, CanonicalRun: oci.CanonicalRun, CanonicalPull: oci.CanonicalPull,
	})
	if err != nil {
		return nil, nil, err
	}
	var more []steps.Warning
	if n.pulls, more, err = readPullTable(cfg); err != nil {
		return nil, nil, err
	}
	warnings = append(warnings, more...)
	if n.pusher, more, err = readPush(cfg, n.roots); err != nil {
		return nil, nil, err
	}
	return cfg, append(warnings, more...), nil
}

func (n *node) newAgent(log *logrus.Logger, cfg *steps.Config, warnings []steps.Warning) (*agent.Agent, error) {
	advice := slices.Concat(warnings, cfg.Unclaimed())
	if cat, err := cfg.LoadSteps(nil); err == nil {
		advice = append(advice, cat.Warnings...)
	}
	for _, warning := range advice {
		log.Warn(warning.String())
	}
	critical := n.opts.critical
	if critical == 0 {
		critical = -1 // none
	}
	marker, err := openMarker(n.opts.beacon)
	if err != nil {
		return nil, err
	}
	decides := policy.New(policy.Config{
		Steps: cfg, Warnings: warnings, Host: rootfs.Host(), Node: rootfs.GatherNode, Images: imagePolicy(verify.File),
		ConductorFile: filepath.Join(n.opts.runDir, "conductor.json"), Extra: n.trust.settings,
	})
	n.trust.ipa.Store(decides)
	pusher := n.pusher
	if !n.opts.stays {
		pusher = nil // a command that ends with its run would have to wait for it
	}
	return agent.New(agent.Config{
		Config: exec.Config{
			Runner: n.engine, RunDir: n.opts.runDir, StateDir: n.stateDir(), Persistent: n.opts.state != "",
			Grace: n.opts.grace, QueueLimit: n.opts.queue, StopOnDrain: n.opts.stopOnExit, LogLimit: n.opts.logLimit,
			CriticalMax: critical, Marker: marker, Push: pusher, Checks: n.checks, Log: log, Failpoint: failpoint(),
		},
		Resolver: decides,
		Version:  version.Get(), Gauges: n.gauges, NodeState: nodeState, AllowedUIDs: n.opts.allowedUIDs,
	})
}

// stateDir is where the agent keeps its journal.
func (n *node) stateDir() string {
	if n.opts.state != "" {
		return n.opts.state
	}
	return filepath.Join(n.opts.runDir, "state")
}

// openMarker opens the reboot marker, nil for none.
func openMarker(spec string) (exec.Marker, error) {
	if spec == "" {
		return nil, nil //nolint:nilnil // no marker is a choice
	}
	return marker.Open(spec)
}

// nodeState is what a bundle says of the node beside the agent's own.
func nodeState() map[string][]byte {
	files := map[string][]byte{}
	for name, path := range map[string]string{"cpuinfo": "/proc/cpuinfo", "routes": "/proc/net/route"} {
		if data, err := rootfs.Host().ReadFile(path, 1<<20); err == nil {
			files[name] = data
		}
	}
	return files
}

// failpoint ends the process, as SIGKILL would, at the points that a test names in
// the environment: "NAME" or "NAME=N" for the N-th time, with commas between.
func failpoint() func(string) {
	armed := map[string]*atomic.Int64{}
	for word := range strings.SplitSeq(os.Getenv("CAREEN_FAILPOINT"), ",") {
		name, count, _ := strings.Cut(word, "=")
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil {
			n = 1
		}
		if name != "" {
			armed[name] = new(atomic.Int64)
			armed[name].Store(n)
		}
	}
	if len(armed) == 0 {
		return nil
	}
	return func(name string) {
		if left := armed[name]; left != nil && left.Add(-1) == 0 {
			fmt.Fprintln(os.Stderr, "killed at failpoint", name)
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
}

// checks are the node's part of GET /v1/health: what can change while the agent
// runs. The rest is careen doctor's.
func (n *node) checks() []api.Check {
	free, size := space(n.opts.root)
	check := api.Check{Name: "store", Status: doctor.StatusOK, Detail: bytesText(free) + " of " + bytesText(size) + " free"}
	if size > 0 && free < size/20 {
		check.Status, check.Remedy = doctor.StatusWarning, "Remove images that are not needed (careen rmi), or give --store-size"
	}
	return append([]api.Check{check}, n.trust.checks()...)
}

func (n *node) gauges() []httpd.Gauge {
	free, size := space(n.opts.root)
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

// lockDirs keeps a second agent from this one's state, and from its store: containerd
// would wait for its database there without an end.
func (n *node) lockDirs() error {
	if err := n.lock(n.opts.runDir, filepath.Join(n.opts.runDir, "lock"), os.O_CREATE|os.O_RDWR); err != nil || n.opts.containerd != "" {
		return err
	}
	return n.lock(n.opts.root, n.opts.root, os.O_RDONLY)
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
			Reason: "another one runs there", Remedy: "Use that one, or give another --run-dir, --root and --socket"}
	}
	return &fault.Error{Code: fault.Node, Op: "lock", Subject: path, Err: err, Remedy: "Run careen as root"}
}
