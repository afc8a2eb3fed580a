package rootfs

import (
	"context"
	"path/filepath"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/procfs"
)

// PrepareOptions are the options of [Prepare]. The zero value suits an agent.
type PrepareOptions struct {
	// RunDir is the directory for the state of this boot; "" is [DefaultRunDir].
	RunDir string
	// StoreDir is the directory for images and containers; "" is [DefaultStoreDir].
	StoreDir string
	// Store says whether the store gets a separate tmpfs.
	Store StoreMode
	// StoreSize limits that tmpfs, in bytes; 0 means three quarters of the memory
	// that is available now. More than the node's total memory is an error.
	StoreSize int64
	// StoreInodes limits the number of files in it; 0 derives it from the size.
	StoreInodes int64
	// CgroupParent is where containers' cgroups go; "" is [DefaultCgroupParent].
	CgroupParent string
	// ModulesDir has a directory of modules for each kernel release; "" stands for
	// /lib/modules and /usr/lib/modules.
	ModulesDir string
}

// WithDefaults returns the options with defaults for empty fields.
func (o PrepareOptions) WithDefaults() PrepareOptions {
	if o.RunDir == "" {
		o.RunDir = DefaultRunDir
	}
	if o.StoreDir == "" {
		o.StoreDir = DefaultStoreDir
	}
	if o.CgroupParent == "" {
		o.CgroupParent = DefaultCgroupParent
	}
	if o.Store == "" {
		o.Store = StoreAuto
	}
	return o
}

// Prepare makes the node ready for containers. It mounts missing file systems, delegates
// the controllers of cgroup v2, loads the overlay module and makes the store. It does
// not change existing mounts, so it may be called any number of times and on any host.
// There is nothing to undo.
//
// The actions are those of [Enter] and of Prepare, in order, including failed ones. An
// error is returned only for what every container needs: /proc, /sys, /dev, the run
// directory and the store. Its code is [fault.Node], [fault.Memory] for a store without
// enough memory, or [fault.BadConfig] for an unknown store mode. Other lacks (no cgroups,
// no overlay) are in the layout.
func Prepare(ctx context.Context, opts PrepareOptions) (*Layout, []Action, error) {
	opts = opts.WithDefaults()
	done := carried
	carried = nil
	if err := prepareNode(ctx, opts, &done); err != nil {
		return nil, done, err
	}
	if err := lockedStore(opts, &done); err != nil {
		return nil, done, err
	}
	layout, err := layoutOf(opts)
	return layout, done, err
}

func lockedStore(opts PrepareOptions, done *actions) error {
	unlock, err := lock(filepath.Join(opts.RunDir, "prepare.lock"))
	if err != nil {
		return nodeError("prepare the store", opts.StoreDir, err, "Give another directory with --run-dir")
	}
	defer unlock()
	return prepareStore(opts, done)
}

// prepareNode does the part that concerns the whole node, not only careen.
func prepareNode(ctx context.Context, opts PrepareOptions, done *actions) error {
	opts = opts.WithDefaults()
	if err := mountMissing(ctx, opts, done); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(opts.RunDir, "prepare.lock"))
	if err != nil {
		return nodeError("prepare the node", opts.RunDir, err, "Give another directory with --run-dir")
	}
	defer unlock()
	prepareCgroups(opts.CgroupParent, done)
	if err := ctx.Err(); err != nil {
		return err
	}
	if !procfs.HasFilesystem("overlay") {
		// Without overlay the layout says so; the error is in the actions.
		_ = LoadModule("overlay", opts.ModulesDir, (*[]Action)(done))
	}
	return nil
}

// layoutOf reads the layout of the node.
func layoutOf(opts PrepareOptions) (*Layout, error) {
	opts = opts.WithDefaults()
	l := &Layout{
		CgroupMode:   DetectCgroups(),
		CgroupParent: opts.CgroupParent,
		StoreDir:     opts.StoreDir,
		RunDir:       opts.RunDir,
		PivotRoot:    TryPivot() == nil,
		Entered:      pinAt(opts.RunDir).inside(),
	}
	l.CgroupControllers = controllers(l.CgroupMode)
	if err := l.inspectStore(); err != nil {
		return nil, &fault.Error{
			Code: fault.Node, Op: "examine the store", Subject: opts.StoreDir, Err: err,
			Remedy: "Give a directory that careen can write to with --root",
		}
	}
	return l, nil
}
