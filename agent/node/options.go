package node

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
)

// Options are the flags of "careen agent". Paths must be absolute; see [Options.Absolute].
type Options struct {
	// Root is the directory of the store, RunDir has the state of this boot, Socket is
	// the agent's socket.
	Root, RunDir, Socket string
	// State is the directory of journal, audit record and logs; "" is RunDir/state,
	// which a reboot empties.
	State string
	// Config is careen's configuration file; "" is the default one, if it exists.
	Config string
	// Containerd is the socket of an external containerd; "" embeds one.
	Containerd string
	// Snapshotter is containerd's; "" chooses overlayfs, or native without overlayfs.
	Snapshotter string
	// StoreSize limits the store's tmpfs and LogLimit the output kept per run, in bytes;
	// 0 is the default.
	StoreSize, LogLimit int64
	// NoStore mounts no tmpfs on Root.
	NoStore bool
	// StopOnExit ends containers when the agent stops.
	StopOnExit bool
	// AllowReboot reboots the node after a run whose container requests it.
	AllowReboot bool
	// Grace is the time between stop signal and SIGKILL for steps that set none.
	Grace time.Duration
	// Critical is the maximum delay of an abort or timeout by a critical section; 0
	// allows none.
	Critical time.Duration
	// Queue is the maximum number of waiting runs; -1 allows none.
	Queue int
	// Marker is the place of the reboot marker, as [marker.Open] takes it; "" is none.
	Marker string
	// AllowedUIDs may use the socket beside root.
	AllowedUIDs []uint32
	// Version is careen's.
	Version api.Version
}

// Defaults returns the options of an agent whose flags are not set, without Socket and
// Version.
func Defaults() Options {
	return Options{
		Root: rootfs.DefaultStoreDir, RunDir: rootfs.DefaultRunDir,
		Grace: 10 * time.Second, Critical: 30 * time.Minute, Queue: 16,
	}
}

// Absolute makes the paths absolute: mounts and the OCI runtime need absolute paths.
// Errors have the code [fault.Node].
func (o *Options) Absolute() error {
	path, isFile := strings.CutPrefix(o.Marker, "file:")
	if !isFile {
		path = ""
	}
	if err := Absolute(&o.Root, &o.RunDir, &o.State, &o.Socket, &o.Config, &o.Containerd, &path); err != nil {
		return err
	}
	if isFile {
		o.Marker = "file:" + path
	}
	return nil
}

// Absolute makes paths absolute, relative to the working directory; "" stays "". Errors
// have the code [fault.Node].
func Absolute(paths ...*string) error {
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

// stateDir is where the agent keeps its journal.
func (o *Options) stateDir() string {
	if o.State != "" {
		return o.State
	}
	return filepath.Join(o.RunDir, "state")
}
