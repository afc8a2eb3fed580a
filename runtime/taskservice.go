package runtime

import (
	"context"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/shim"
)

// taskService makes tasks for the containers on containerd's record and reaches them
// afterwards, including those that an earlier agent made. A task is containerd's word
// for the processes of a container. The error for a container without a shim is
// errdefs.ErrNotFound.
//
// With an external containerd it is that daemon's task service. With the embedded one
// it is [shimManager]: this process starts the shims itself, which saves a program
// that starts a program, and lets a shim start while the registry is still asked.
type taskService interface {
	// prestart says that a container is going to be created soon.
	prestart()
	// create makes a container up to the point where its init waits, and returns
	// the init's pid.
	create(ctx context.Context, c newTask) (int, error)
	// start runs the container's command.
	start(ctx context.Context, id string) (int, error)
	// wait returns when the container has ended. After an error its end may be unknown.
	wait(ctx context.Context, id, dir string) error
	// kill signals the first process, or all.
	kill(ctx context.Context, id, dir string, sig syscall.Signal, all bool) error
	// resize sets the size of the terminal in characters.
	resize(ctx context.Context, id string, columns, rows uint16) error
	// closeStdin ends the container's standard input.
	closeStdin(ctx context.Context, id string) error
	// state returns the container's state and the pid of its first process. Where the
	// shim died it removes what the shim left.
	state(ctx context.Context, id, dir string) (container.State, int, error)
	// remove kills the container if it runs, and removes it and its shim.
	remove(ctx context.Context, id, dir string) error
	// shimPid is the process of the container's shim, 0 if it is unknown.
	shimPid(id string) int
	// close lets go of all containers. They go on running.
	close() error
}

// newTask is what a task is made of.
type newTask struct {
	id     string
	spec   *specs.Spec
	mounts []mount.Mount
	target shim.Target
}
