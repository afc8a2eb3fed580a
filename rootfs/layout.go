package rootfs

import (
	"fmt"
	"strings"
)

// Default directories and cgroup of careen on a node.
const (
	// DefaultRunDir holds the state of this boot.
	DefaultRunDir = "/run/careen"
	// DefaultStoreDir holds images and the containers' writable layers.
	DefaultStoreDir = "/var/lib/careen"
	// DefaultCgroupParent is the cgroup below which containers get theirs.
	DefaultCgroupParent = "/careen"
)

// CgroupMode is how the node's control groups are laid out.
type CgroupMode string

// The layouts. CgroupHybrid is v1 with a v2 hierarchy beside it that has no
// controllers of use; the runtime treats it as v1.
const (
	CgroupV2     CgroupMode = "v2"
	CgroupV1     CgroupMode = "v1"
	CgroupHybrid CgroupMode = "hybrid"
	CgroupNone   CgroupMode = "none"
)

// Layout is what a prepared node offers.
type Layout struct {
	// CgroupMode is the layout of the control groups.
	CgroupMode CgroupMode `json:"cgroup_mode"`
	// CgroupControllers are those a container can be limited with.
	CgroupControllers []string `json:"cgroup_controllers,omitempty"`
	// CgroupParent is where containers' cgroups go, from the hierarchy's root.
	CgroupParent string `json:"cgroup_parent"`
	// StoreDir is the directory for images and containers.
	StoreDir string `json:"store_dir"`
	// StoreFS is the type of file system that holds StoreDir, as in "tmpfs".
	StoreFS string `json:"store_fs"`
	// StoreTmpfs says that StoreDir is a mounted tmpfs: its content uses memory, up to a
	// limit.
	StoreTmpfs bool `json:"store_tmpfs"`
	// StoreSize and StoreFree are bytes, StoreInodes and StoreInodesFree numbers
	// of files; file systems that have no such limit report 0 inodes.
	StoreSize       int64 `json:"store_size"`
	StoreFree       int64 `json:"store_free"`
	StoreInodes     int64 `json:"store_inodes"`
	StoreInodesFree int64 `json:"store_inodes_free"`
	// PivotRoot says that a container can leave this root by pivot_root(2).
	PivotRoot bool `json:"pivot_root"`
	// Overlay says that a trial in StoreDir mounted an overlay, and replaced and deleted a
	// file in it.
	Overlay bool `json:"overlay"`
	// OverlayError says why not.
	OverlayError string `json:"overlay_error,omitempty"`
	// Entered says that the process runs in the namespace that [Enter] made.
	Entered bool `json:"entered"`
	// RunDir is the directory for the state of this boot.
	RunDir string `json:"run_dir"`
}

// Action is one change that [Prepare] or [Enter] made to the node, or failed to make.
// What was there already is not an action.
type Action struct {
	// Op is mount, remount, load, create, write or move.
	Op string `json:"op"`
	// Subject is on what: a directory, a module, a control file.
	Subject string `json:"subject"`
	// Detail says with what: the file system and its options, or a value.
	Detail string `json:"detail,omitempty"`
	// Err is the reason of a failure, "" if there is none. Only a failure that makes
	// containers impossible is also returned as an error.
	Err string `json:"error,omitempty"`
}

// String returns the action on one line: "mount /proc: proc", or "cannot mount
// /dev/mqueue: no such device".
func (a Action) String() string {
	if a.Err != "" {
		return fmt.Sprintf("cannot %s %s: %s", a.Op, a.Subject, a.Err)
	}
	return strings.TrimSuffix(fmt.Sprintf("%s %s: %s", a.Op, a.Subject, a.Detail), ": ")
}

// actions collects the actions in order.
type actions []Action

func (l *actions) add(op, subject, detail string, err error) error {
	a := Action{Op: op, Subject: subject, Detail: detail}
	if err != nil {
		a.Err = err.Error()
	}
	*l = append(*l, a)
	return err
}
