package runtime

import (
	"context"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/careen-project/careen/runtime/shim"
)

// keeper makes containers of what containerd has on record and reaches them
// afterwards, also those that an earlier agent made. An error for a container that
// has no shim any more is errdefs.ErrNotFound.
//
// With an external containerd it is that one's task service. With the embedded one
// it is [shims]: in the same process there is no need for a program that starts a
// program, and a shim can start while the image is still being asked for.
type keeper interface {
	// expect says that a container is going to be created soon.
	expect()
	// create makes a container up to the point where its init waits, and returns
	// the init's pid.
	create(ctx context.Context, c newContainer) (int, error)
	// start runs its command.
	start(ctx context.Context, id string) (int, error)
	// wait returns when it has ended. An error means that nobody may have seen it.
	wait(ctx context.Context, id, dir string) error
	// kill signals its first process, or all.
	kill(ctx context.Context, id string, sig syscall.Signal, all bool) error
	resize(ctx context.Context, id string, columns, rows uint16) error
	// endInput is the end of its standard input.
	endInput(ctx context.Context, id string) error
	// look says how it is, and cleans up where its shim died.
	look(ctx context.Context, id, dir string) (Existing, error)
	// remove ends it if it runs and removes it and its shim.
	remove(ctx context.Context, id, dir string) error
	// close lets go of all of them.
	close() error
}

// newContainer is what a keeper makes a container of.
type newContainer struct {
	id     string
	spec   *specs.Spec
	mounts []mount.Mount
	target shim.Target
}
