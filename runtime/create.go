package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/leaks"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/image"
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

// creation is what goes through the steps of [Engine.Create].
type creation struct {
	container.CreateSpec
	image  *image.Image
	node   oci.Node
	dir    container.Dir
	plan   *oci.Plan
	mounts []mount.Mount
	pid    int
}

// runID is the id of the run; CreateSpec's own field Run hides that of Container.
func (c *creation) runID() string { return c.Container.Run }

// Create makes a container up to the point where its init waits. The run's directory
// exists. On an error nothing is left of the container but that directory.
//
// Errors are requirement (the node lacks what the image needs), command_absent,
// command_denied, bad_option or unsupported (an option), bad_image, space, node,
// unreachable (an external containerd), or runtime for what went wrong otherwise. A
// cancelled ctx is no [fault.Error].
func (e *Engine) Create(ctx context.Context, spec container.CreateSpec) (_ container.Created, err error) {
	c := &creation{CreateSpec: spec, dir: container.Dir(spec.Dir)}
	var ok bool
	if c.image, ok = spec.Image.Handle.(*image.Image); !ok {
		return container.Created{}, &fault.Error{Code: fault.Internal, Op: "create container", Subject: c.runID(),
			Reason: "its image did not come from this engine"}
	}
	// Before the node is looked at: a module that is loaded may bring a device.
	loaded, err := requirements(ctx, spec.Run, c.image)
	if err != nil {
		return container.Created{}, err
	}
	if c.node, err = rootfs.GatherNode(); err != nil {
		return container.Created{}, err
	}
	if err := leaks.Record(c.dir.Before(), e.own()...); err != nil {
		return container.Created{}, dirError(c.dir.Before(), err)
	}
	if err := e.create(e.context(ctx), c); err != nil {
		return container.Created{}, err
	}
	e.trim.Reset(trimDelay)
	grace := c.plan.StopTimeout // a copy: a pointer into the plan would keep the whole of it in memory
	return container.Created{
		Warnings: append(loaded, c.plan.Warnings...), StopSignal: syscall.Signal(c.plan.StopSignal),
		StopTimeout: &grace, Timeout: c.plan.Timeout,
	}, nil
}

// requirements compares the node with what the image says that it needs; the operator's
// --label takes precedence over the image's own. Modules are loaded only for a container
// that could load any module itself: an image's word is not enough for that.
func requirements(ctx context.Context, run *oci.Run, image *image.Image) (loaded []string, err error) {
	label, own := run.Options.Labels[doctor.RequiresLabel]
	if !own {
		label = image.Config.Config.Labels[doctor.RequiresLabel]
	}
	return doctor.Require(ctx, doctor.RequireOptions{Image: image.Name, Label: label, Load: run.Options.Privileged})
}

// dirError is a file of the run's directory that cannot be written.
func dirError(path string, err error) error {
	return &fault.Error{Code: fault.Space, Op: "write", Subject: path, Err: err,
		Remedy: "Make room on the file system that holds the run directory"}
}

// create makes what Create promises, or removes all of it again.
func (e *Engine) create(ctx context.Context, c *creation) (err error) {
	warmUpCgroups()
	if err := c.dir.Reset(); err != nil {
		return runtimeError("prepare", c.Dir, err)
	}
	defer func() {
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
			defer cancel()
			err = errors.Join(err, e.remove(undo, c.ID, c.Dir))
		}
	}()
	ctx, release, err := e.client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return runtimeError("create container", c.runID(), err)
	}
	defer func() { _ = release(context.WithoutCancel(ctx)) }()
	e.cfg.Failpoint("runtime.leased")

	if err := e.prepare(ctx, c); err != nil {
		return err
	}
	// An abort does not interrupt this: a shim that is killed while it starts leaves a
	// socket, or a process that is on no record.
	creating, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	err = e.newTask(creating, c)
	e.cfg.Failpoint("runtime.task-made")
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = c.writeIDs()
	}
	if err == nil {
		err = c.writeSpec()
	}
	return err
}

// writeSpec keeps the runtime-spec where GET /v1/runs/{id}/spec finds it.
func (c *creation) writeSpec() error {
	data, err := json.Marshal(c.plan.Spec)
	if err == nil {
		err = file.Replace(c.dir.Spec(), data, 0o600, file.Volatile)
	}
	if err != nil {
		return dirError(c.dir.Spec(), err)
	}
	return nil
}

// prepare makes the writable layer, translates the options with the image's own
// files in view, and sets up the bundle.
func (e *Engine) prepare(ctx context.Context, c *creation) (err error) {
	c.mounts, err = e.client.SnapshotService(e.cfg.Snapshotter).Prepare(ctx, c.ID, c.image.ChainID,
		snapshots.WithLabels(map[string]string{labelRun: c.runID()}))
	if err != nil {
		return runtimeError("prepare the writable layer of", c.runID(), err)
	}
	e.cfg.Failpoint("runtime.layer-made")
	root := c.dir.Root()
	if err := os.MkdirAll(root, 0o700); err != nil {
		return runtimeError("prepare", c.Dir, err)
	}
	if err := mount.All(c.mounts, root); err != nil {
		return runtimeError("mount the image", c.image.Name, err)
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
	control, err := makeControl(c.dir)
	if err != nil {
		return runtimeError("prepare", c.Dir, err)
	}
	e.cfg.Failpoint("runtime.control-mounted")
	c.plan, err = c.Run.Build(oci.BuildInput{
		ID: c.ID,
		Image: oci.Image{
			Reference: c.image.Name, Digest: c.image.Digest,
			Config: c.image.Config, Annotations: c.image.Annotations, Files: imageFiles{root},
		},
		Node: c.node, Host: rootfs.Host(), Environ: c.Environ,
		Dir: c.Dir, ControlDir: control, Previous: c.Previous, VolumeDir: e.volumeDir(), InitPath: e.cfg.Binary, RootFS: "rootfs",
	})
	if err != nil {
		return err
	}
	if p, size := c.plan.Spec.Process, c.TerminalSize; p != nil && p.Terminal && size != nil && size.Columns > 0 {
		p.ConsoleSize = &specs.Box{Width: uint(size.Columns), Height: uint(size.Rows)}
	}
	return setUpBundle(c.plan, root)
}

// volumeDir holds named volumes: they live as long as the store.
func (e *Engine) volumeDir() string {
	if e.cfg.ContainerdAddress != "" {
		return filepath.Join(e.cfg.State, "volumes")
	}
	return filepath.Join(e.cfg.Root, "volumes")
}

// newTask puts the container on containerd's record and makes its task.
func (e *Engine) newTask(ctx context.Context, c *creation) error {
	_, err := e.client.NewContainer(ctx, c.ID,
		containerd.WithContainerLabels(c.labels()),
		containerd.WithSnapshotter(e.cfg.Snapshotter),
		containerd.WithSnapshot(c.ID),
		containerd.WithRuntime(e.runtimeName, nil),
		containerd.WithSpec(c.plan.Spec),
	)
	if err != nil {
		return runtimeError("create container", c.runID(), err)
	}
	e.cfg.Failpoint("runtime.container-made")
	target := shim.Target{Dir: c.dir, LogLimit: c.LogLimit, Stdin: c.Stdin, SeccompDir: filepath.Join(e.cfg.State, "seccomp")}
	if c.Stdin {
		if err := unix.Mkfifo(c.dir.Stdin(), 0o600); err != nil {
			return runtimeError("make standard input for", c.runID(), err)
		}
	}
	c.pid, err = e.tasks.create(ctx, newTask{id: c.ID, spec: c.plan.Spec, mounts: c.mounts, target: target})
	if err != nil {
		return startError(c.runID(), c.plan.Spec.Process.Args[0], err)
	}
	return nil
}

// labels say what the next agent has to know of a container.
func (c *creation) labels() map[string]string {
	labels := map[string]string{labelRun: c.runID(), labelDir: c.Dir}
	if file := c.Run.Options.CIDFile; file != "" {
		labels[labelCIDFile] = file
	}
	if c.Run.Options.RemoveImage {
		labels[labelImage] = c.image.Name
	}
	return labels
}

// writeIDs writes the files of --cidfile, which must be new, and --pidfile.
func (c *creation) writeIDs() error {
	if path := c.Run.Options.CIDFile; path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.WriteString(c.ID)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return fileError("--cidfile", path, err)
		}
	}
	if path := c.Run.Options.PIDFile; path != "" {
		if err := os.WriteFile(path, []byte(strconv.Itoa(c.pid)), 0o644); err != nil {
			return fileError("--pidfile", path, err)
		}
	}
	return nil
}

func fileError(option, path string, err error) error {
	return &fault.Error{Code: fault.BadOption, Op: "write the file of", Subject: option + "=" + path, Err: err,
		Remedy: "Name a file that does not exist, in a directory that does"}
}

// makeControl mounts the directory through which a container talks to careen: its
// result, its critical section. It is a small tmpfs, so that a container cannot fill
// the node's memory through it.
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
