package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/pull"
	"github.com/careen-project/careen/runtime/shim"
)

// Labels of careen's containers in containerd.
const (
	labelRun = "io.careen.run"
	labelDir = "io.careen.dir"
	// labelCIDFile and labelImage name what goes with the container: the file of
	// --cidfile, the image of --rmi.
	labelCIDFile = "io.careen.cidfile"
	labelImage   = "io.careen.rmi"
)

// cleanUpTimeout bounds what is undone after a failure or an abort.
const cleanUpTimeout = 30 * time.Second

// createTimeout bounds what an abort may have to wait for. It is shorter than the
// time after which a shim that was started for nothing ends.
const createTimeout = 25 * time.Second

// leaseTime is how long what a container is made from is kept if this process is
// killed while it makes one.
const leaseTime = 10 * time.Minute

// CreateSpec is what a container is made from.
type CreateSpec struct {
	// ID is the container's id, 64 hexadecimal digits; RunID the agent's.
	ID, RunID string
	Run       *oci.Run
	Image     *pull.Image
	Node      oci.Node
	Host      oci.Host
	// Dir is the run's directory, which exists.
	Dir string
	// Previous is a file that the container sees as /run/careen/previous.json, "" for none.
	Previous string
	// Environ are the caller's variables.
	Environ map[string]string
	// LogLimit bounds the output that is kept, in bytes; 0 is the default.
	LogLimit int64
	// Stdin keeps standard input open; see [Engine.Stdin].
	Stdin bool
	// Columns and Rows are the terminal's first size; 0 leaves it to the kernel.
	Columns, Rows uint16
}

// Created is a container that waits to be started.
type Created struct {
	Plan *oci.Plan
	Pid  int
}

// Create makes a container up to the point where its init waits. On an error
// nothing is left of it but the run's directory.
func (e *Engine) Create(ctx context.Context, spec CreateSpec) (_ *Created, err error) {
	ctx = e.context(ctx)
	hastenMigration()
	if err := container.Dir(spec.Dir).Reset(); err != nil {
		return nil, runtimeError("prepare", spec.Dir, err)
	}
	defer func() {
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
			defer cancel()
			err = errors.Join(err, e.Delete(undo, spec.ID, spec.Dir))
		}
	}()
	ctx, release, err := e.client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return nil, runtimeError("create container", spec.RunID, err)
	}
	defer func() { _ = release(context.WithoutCancel(ctx)) }()
	e.cfg.Failpoint("runtime.leased")

	plan, mounts, err := e.prepare(ctx, spec)
	if err != nil {
		return nil, err
	}
	// Not to be cut short: a shim that is killed while it starts leaves a socket, or
	// a process that nobody knows.
	creating, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	pid, err := e.newTask(creating, spec, plan, mounts)
	e.cfg.Failpoint("runtime.task-made")
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if err := writeIDs(spec, pid); err != nil {
		return nil, err
	}
	e.rest.Reset(restTime)
	return &Created{Plan: plan, Pid: pid}, nil
}

// prepare makes the writable layer, translates the options with the image's own
// files in view, and puts on the node what the spec's mounts refer to.
func (e *Engine) prepare(ctx context.Context, spec CreateSpec) (plan *oci.Plan, mounts []mount.Mount, err error) {
	mounts, err = e.client.SnapshotService(e.cfg.Snapshotter).Prepare(ctx, spec.ID, spec.Image.ChainID,
		snapshots.WithLabels(map[string]string{labelRun: spec.RunID}))
	if err != nil {
		return nil, nil, runtimeError("prepare the writable layer of", spec.RunID, err)
	}
	e.cfg.Failpoint("runtime.layer-made")
	root := container.Dir(spec.Dir).Root()
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, nil, runtimeError("prepare", spec.Dir, err)
	}
	if err := mount.All(mounts, root); err != nil {
		return nil, nil, runtimeError("mount the image", spec.Image.Name, err)
	}
	e.cfg.Failpoint("runtime.layer-mounted")
	defer func() {
		// The shim mounts the layer anew: two mounts of one upper directory at once
		// are undefined in overlayfs.
		if uerr := unix.Unmount(root, unix.MNT_DETACH); uerr != nil && err == nil {
			err = runtimeError("unmount the image from", root, uerr)
		}
		_ = os.Remove(root)
	}()
	control, err := makeControl(container.Dir(spec.Dir))
	if err != nil {
		return nil, nil, runtimeError("prepare", spec.Dir, err)
	}
	e.cfg.Failpoint("runtime.control-mounted")
	plan, err = spec.Run.Build(oci.BuildInput{
		ID: spec.ID,
		Image: oci.Image{
			Reference: spec.Image.Name, Digest: spec.Image.Digest,
			Config: spec.Image.Config, Annotations: spec.Image.Annotations, Files: imageFiles{root},
		},
		Node: spec.Node, Host: spec.Host, Environ: spec.Environ,
		Dir: spec.Dir, ControlDir: control, Previous: spec.Previous, VolumeDir: e.volumeDir(), InitPath: e.cfg.Binary, RootFS: "rootfs",
	})
	if err != nil {
		return nil, nil, err
	}
	if p := plan.Spec.Process; p != nil && p.Terminal && spec.Columns > 0 {
		p.ConsoleSize = consoleSize(spec.Columns, spec.Rows)
	}
	return plan, mounts, materialise(plan, root)
}

// volumeDir holds named volumes: they live as long as the store.
func (e *Engine) volumeDir() string {
	if e.cfg.ContainerdAddress != "" {
		return filepath.Join(e.cfg.State, "volumes")
	}
	return filepath.Join(e.cfg.Root, "volumes")
}

func (e *Engine) newTask(ctx context.Context, spec CreateSpec, plan *oci.Plan, mounts []mount.Mount) (int, error) {
	_, err := e.client.NewContainer(ctx, spec.ID,
		containerd.WithContainerLabels(spec.labels()),
		containerd.WithSnapshotter(e.cfg.Snapshotter),
		containerd.WithSnapshot(spec.ID),
		containerd.WithRuntime(e.runtimeName, nil),
		containerd.WithSpec(plan.Spec),
	)
	if err != nil {
		return 0, runtimeError("create container", spec.RunID, err)
	}
	e.cfg.Failpoint("runtime.container-made")
	target := shim.Target{Dir: container.Dir(spec.Dir), LogLimit: spec.LogLimit, Stdin: spec.Stdin, Filters: filepath.Join(e.cfg.State, "seccomp")}
	if spec.Stdin {
		if err := unix.Mkfifo(target.Dir.Stdin(), 0o600); err != nil {
			return 0, runtimeError("make standard input for", spec.RunID, err)
		}
	}
	pid, err := e.keeper.create(ctx, newContainer{id: spec.ID, spec: plan.Spec, mounts: mounts, target: target})
	if err != nil {
		return 0, startError(spec.RunID, plan.Spec.Process.Args[0], err)
	}
	return pid, nil
}

// labels say what the next agent has to know of a container.
func (spec CreateSpec) labels() map[string]string {
	labels := map[string]string{labelRun: spec.RunID, labelDir: spec.Dir}
	if file := spec.Run.Options.CIDFile; file != "" {
		labels[labelCIDFile] = file
	}
	if spec.Run.Options.RemoveImage {
		labels[labelImage] = spec.Image.Name
	}
	return labels
}

// writeIDs writes the files of --cidfile, which must be new, and --pidfile.
func writeIDs(spec CreateSpec, pid int) error {
	if path := spec.Run.Options.CIDFile; path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = file.WriteString(spec.ID)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			return fileError("--cidfile", path, err)
		}
	}
	if path := spec.Run.Options.PIDFile; path != "" {
		if err := os.WriteFile(path, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fileError("--pidfile", path, err)
		}
	}
	return nil
}

func fileError(option, path string, err error) error {
	return &fault.Error{Code: fault.BadOption, Op: "write the file of", Subject: option + "=" + path, Err: err,
		Remedy: "Name a file that does not exist, in a directory that does"}
}

// makeControl mounts the directory through which a container talks to careen:
// its result, its critical section. It is small and of its own, so that a
// container cannot fill the node through it.
func makeControl(dir container.Dir) (string, error) {
	control := dir.Control()
	if err := os.MkdirAll(control, 0o700); err != nil {
		return "", err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("careen", control, "tmpfs", flags, "size=1m,nr_inodes=64,mode=0777"); err != nil {
		return "", fmt.Errorf("mount tmpfs on %s: %w", control, err)
	}
	return control, nil
}

// runtimeError is a failure that is neither the operator's nor the image's.
func runtimeError(op, subject string, err error) error {
	var known *fault.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	code, remedy := fault.Runtime, "Run careen doctor; the agent's log has the details"
	if errors.Is(err, unix.ENOSPC) {
		code, remedy = fault.Space, "Give the store more room (--store-size), or remove images that are not needed"
	}
	if errdefs.IsUnavailable(err) {
		code, remedy = fault.Unreachable, "Check that containerd runs"
	}
	return &fault.Error{Code: code, Op: op, Subject: subject, Err: err, Remedy: remedy}
}
