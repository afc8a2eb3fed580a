package runtime

import (
	"context"
	"errors"
	"os"
	"sort"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

// Delete removes a container in whatever state it is, with its processes, its writable
// layer, its mounts and all of its directory but log and exit record, and returns what
// is on the node that was not there before. It may be called again, and for a container
// that was never made. Errors are runtime or unreachable (an external containerd); the
// call may be repeated after any of them.
func (e *Engine) Delete(ctx context.Context, c container.Container) (container.Leftovers, error) {
	if err := e.remove(ctx, c.ID, c.Dir); err != nil || c.Dir == "" {
		return container.Leftovers{}, err
	}
	return e.leftovers(container.Dir(c.Dir)), nil
}

// remove removes a container and what belongs to it.
func (e *Engine) remove(ctx context.Context, id, dir string) error {
	ctx = e.context(ctx)
	var errs []error
	// Absent where an earlier call got this far, or nothing was made.
	record, recordErr := e.client.ContainerService().Get(ctx, id)
	if dir == "" && recordErr == nil {
		dir = record.Labels[labelDir]
	}
	if err := e.tasks.remove(ctx, id, dir); err != nil {
		errs = append(errs, err)
	}
	e.cfg.Failpoint("runtime.task-deleted")
	if err := e.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	e.cfg.Failpoint("runtime.container-deleted")
	if err := e.client.SnapshotService(e.cfg.Snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	e.cfg.Failpoint("runtime.layer-deleted")
	errs = append(errs, clearDir(dir))
	e.cfg.Failpoint("runtime.dir-cleared")
	if recordErr == nil {
		errs = append(errs, e.deleteWith(ctx, record.Labels))
	}
	if e.embedded != nil {
		e.embedded.collect(ctx)
	}
	e.trim.Reset(trimDelay)
	return runtimeError("remove container", id, errors.Join(errs...))
}

// deleteWith removes what was to go with the container.
func (e *Engine) deleteWith(ctx context.Context, labels map[string]string) error {
	var errs []error
	if file := labels[labelCIDFile]; file != "" {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if image := labels[labelImage]; image != "" {
		// Another container may be of the same image; podman's --rmi keeps it then.
		if err := e.RemoveImage(ctx, image); err != nil && fault.CodeOf(err) != fault.Conflict && fault.CodeOf(err) != fault.NotFound {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// clearDir unmounts everything below a run's directory and removes what does not
// outlive the container.
func clearDir(dir string) error {
	if dir == "" {
		return nil
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	return container.Dir(dir).Clear()
}

// unmountBelow detaches every mount at or below dir, the deepest first. Removing
// files only happens after it: a bind that is left would lead RemoveAll into the
// node's own directories.
func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	sort.Slice(mounts, func(i, j int) bool { return len(mounts[i].Mountpoint) > len(mounts[j].Mountpoint) })
	var errs []error
	for _, m := range mounts {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
			errs = append(errs, &os.PathError{Op: "unmount", Path: m.Mountpoint, Err: err})
		}
	}
	return errors.Join(errs...)
}
