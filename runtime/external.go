package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/shim"
)

// externalTasks is the task service of a containerd in another process, which starts
// the shims.
type externalTasks struct {
	client *containerd.Client

	mu    sync.Mutex
	tasks map[string]containerd.Task
}

// taskIO hands the shim its target. The shim does all the copying, so there is
// nothing here to wait for or to close.
type taskIO struct{ config cio.Config }

func targetIO(target shim.Target, terminal bool) cio.Creator {
	return func(string) (cio.IO, error) {
		return taskIO{cio.Config{Terminal: terminal, Stdout: target.String()}}, nil
	}
}

func (t taskIO) Config() cio.Config { return t.config }
func (taskIO) Cancel()              {}
func (taskIO) Wait()                {}
func (taskIO) Close() error         { return nil }

func (x *externalTasks) prestart() {}

func (x *externalTasks) create(ctx context.Context, c newTask) (int, error) {
	ctr, err := x.client.LoadContainer(ctx, c.id)
	if err != nil {
		return 0, err
	}
	task, err := ctr.NewTask(ctx, targetIO(c.target, c.spec.Process.Terminal))
	if err != nil {
		return 0, err
	}
	x.mu.Lock()
	x.tasks[c.id] = task
	x.mu.Unlock()
	return int(task.Pid()), nil
}

// task returns the task of a container, also after the agent was restarted.
func (x *externalTasks) task(ctx context.Context, id string) (containerd.Task, error) {
	x.mu.Lock()
	task := x.tasks[id]
	x.mu.Unlock()
	if task != nil {
		return task, nil
	}
	ctr, err := x.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, err
	}
	// The shim keeps the streams: attaching means knowing that.
	return ctr.Task(ctx, func(*cio.FIFOSet) (cio.IO, error) { return taskIO{}, nil })
}

func (x *externalTasks) start(ctx context.Context, id string) (int, error) {
	task, err := x.task(ctx, id)
	if err == nil {
		err = task.Start(ctx)
	}
	if err != nil {
		return 0, err
	}
	return int(task.Pid()), nil
}

func (x *externalTasks) wait(ctx context.Context, id, _ string) error {
	task, err := x.task(ctx, id)
	if err != nil {
		return err
	}
	statuses, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	select {
	case status := <-statuses:
		return status.Error()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *externalTasks) kill(ctx context.Context, id, _ string, sig syscall.Signal, all bool) error {
	task, err := x.task(ctx, id)
	if err != nil {
		return err
	}
	var opts []containerd.KillOpts
	if all {
		opts = append(opts, containerd.WithKillAll)
	}
	return task.Kill(ctx, sig, opts...)
}

func (x *externalTasks) resize(ctx context.Context, id string, columns, rows uint16) error {
	task, err := x.task(ctx, id)
	if err != nil {
		return err
	}
	return task.Resize(ctx, uint32(columns), uint32(rows))
}

func (x *externalTasks) closeStdin(ctx context.Context, id string) error {
	task, err := x.task(ctx, id)
	if err != nil {
		return err
	}
	return task.CloseIO(ctx, containerd.WithStdinCloser)
}

func (x *externalTasks) state(ctx context.Context, id, _ string) (container.State, int, error) {
	task, err := x.task(ctx, id)
	if err != nil {
		return "", 0, err
	}
	status, err := task.Status(ctx)
	if err != nil {
		return "", 0, err
	}
	switch status.Status {
	case containerd.Running, containerd.Paused:
		return container.StateRunning, int(task.Pid()), nil
	case containerd.Created:
		return container.StateCreated, int(task.Pid()), nil
	default:
		return container.StateStopped, int(task.Pid()), nil
	}
}

func (x *externalTasks) remove(ctx context.Context, id, dir string) error {
	var errs []error
	if task, err := x.task(ctx, id); err == nil {
		if _, err := task.Delete(ctx, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	} else if !errdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	x.mu.Lock()
	delete(x.tasks, id)
	x.mu.Unlock()
	// Where the shim died, containerd starts another process to clean up, and does
	// not wait for it here: without the state in dir, which goes next, that one
	// could find neither the container's processes nor its cgroups.
	if dir != "" {
		errs = append(errs, shim.RemoveStray(container.Dir(dir), id))
	}
	return errors.Join(errs...)
}

func (x *externalTasks) shimPid(string) int { return 0 }

func (x *externalTasks) close() error { return nil }

// linkShim puts a name in place under which the binary acts as shim, and returns
// its absolute path. It is a symbolic link: containerd reads only its name.
func linkShim(binary, state string) (string, error) {
	dir := filepath.Join(state, "bin")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", err
	}
	path := filepath.Join(dir, shim.Name)
	if have, err := os.Readlink(path); err == nil && have == binary {
		return path, nil
	}
	_ = os.Remove(path)
	return path, os.Symlink(binary, path)
}
