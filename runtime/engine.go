package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/careen-project/careen/runtime/shim"
)

// Namespace is the containerd namespace that everything of careen's is in.
const Namespace = "careen"

// Config says which containerd an [Engine] uses and where it keeps things.
type Config struct {
	// Root is the store of the embedded containerd, State its state of this boot.
	// With an external containerd only State is used.
	Root, State string
	// ContainerdAddress is the socket of an external containerd; "" embeds one.
	ContainerdAddress string
	// Binary is careen's own executable, absolute: it is the shim and the init.
	Binary string
	// Snapshotter is "overlayfs" if empty.
	Snapshotter string
	// StoreInMemory says that Root is in RAM, where syncing is of no use.
	StoreInMemory bool
	// Own are directories of careen's besides Root and State. What is mounted below any
	// of them is no leftover of a container.
	Own []string
	// ImagePolicy decides whether an image may be used, once its manifest is known. nil
	// admits every image.
	ImagePolicy *verify.Policy
	// Failpoint is called with a name between any two steps of making and removing a
	// container. Tests kill the process there. It may be nil.
	Failpoint func(name string)
	// Pull configures how images are fetched. Its Snapshotter, StoreDir and
	// DirectApply are set by [Open].
	Pull image.Config
}

// Engine runs containers. Its methods may be called from several goroutines.
type Engine struct {
	cfg      Config
	embedded *embedded
	client   *containerd.Client
	puller   *image.Puller
	tasks    taskService
	// runtimeName is what containerd has on record as a container's runtime.
	runtimeName string
	// trim runs [trimMemory] when no container was made or removed for a while.
	trim *time.Timer
}

// Open starts the embedded containerd, or connects to the external one, which
// has to be of version 1.7 or newer. Errors are node, unreachable (no external
// containerd answers) or unsupported (it is too old).
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	if cfg.Snapshotter == "" {
		cfg.Snapshotter = "overlayfs"
	}
	if cfg.Failpoint == nil {
		cfg.Failpoint = func(string) {}
	}
	e := &Engine{cfg: cfg, runtimeName: shim.Name, trim: time.AfterFunc(trimDelay, trimMemory)}
	if cfg.ContainerdAddress == "" {
		e.embedded, e.client, err = openEmbedded(ctx, cfg)
		if err != nil {
			return nil, nodeError("start containerd", cfg.Root, err)
		}
		e.tasks = patient{newShimManager(cfg.Binary, socketDir(cfg.State))}
		cfg.Pull.DirectApply, cfg.Pull.StoreDir = true, cfg.Root
	} else {
		if e.client, err = openExternal(ctx, cfg.ContainerdAddress); err != nil {
			return nil, err
		}
		e.tasks = patient{&externalTasks{client: e.client, tasks: map[string]containerd.Task{}}}
		if e.runtimeName, err = linkShim(cfg.Binary, cfg.State); err != nil {
			return nil, errors.Join(nodeError("prepare the shim", cfg.State, err), e.Close())
		}
	}
	cfg.Pull.Snapshotter = cfg.Snapshotter
	e.puller = image.New(e.client, cfg.Pull)
	// Before the first pull: what those of a killed agent left in the store.
	if err := e.puller.Recover(e.context(ctx)); err != nil {
		return nil, errors.Join(nodeError("tidy the store in", cfg.Root, err), e.Close())
	}
	return e, nil
}

func nodeError(op, subject string, err error) error {
	return &fault.Error{Code: fault.Node, Op: op, Subject: subject, Err: err,
		Remedy: "Run careen doctor to see what the node lacks"}
}

// openExternal connects to a containerd that runs already and refuses one that
// is too old for the shim protocol and the API that careen uses.
func openExternal(ctx context.Context, address string) (*containerd.Client, error) {
	unreachable := func(err error) error {
		return &fault.Error{Code: fault.Unreachable, Op: "connect to containerd at", Subject: address, Err: err,
			Remedy: "Start containerd, give the right --containerd-address, or leave it out to use the embedded one"}
	}
	if _, err := os.Stat(strings.TrimPrefix(address, "unix://")); err != nil {
		return nil, unreachable(err)
	}
	client, err := containerd.New(strings.TrimPrefix(address, "unix://"), containerd.WithDefaultNamespace(Namespace))
	if err != nil {
		return nil, unreachable(err)
	}
	v, err := client.Version(ctx)
	if err != nil {
		_ = client.Close()
		return nil, unreachable(err)
	}
	if !supported(v.Version) {
		_ = client.Close()
		return nil, &fault.Error{Code: fault.Unsupported, Op: "use containerd at", Subject: address,
			Reason: fmt.Sprintf("it is version %s, and 1.7 is the oldest that works", v.Version),
			Remedy: "Leave out --containerd-address to use the embedded containerd"}
	}
	return client, nil
}

// supported reports whether a version such as "v2.0.1" or "1.7.2~ds1" will do.
func supported(version string) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return false
	}
	minor, _ := strconv.Atoi(parts[1])
	return major > 1 || major == 1 && minor >= 7
}

// Close ends the embedded containerd, or the connection to the external one. Containers go
// on. The error has no fault code.
func (e *Engine) Close() error {
	e.trim.Stop()
	err := errors.Join(e.tasks.close(), e.client.Close())
	if e.embedded != nil {
		e.embedded.close()
	}
	return err
}

// Prestart says that a container is going to be created soon: its shim starts while
// the registry is still asked for the image. The shim ends if no container follows.
func (e *Engine) Prestart() { e.tasks.prestart() }

// Puller returns what fetches and lists images.
func (e *Engine) Puller() *image.Puller { return e.puller }

// Client returns the containerd client, for tests and diagnosis.
func (e *Engine) Client() *containerd.Client { return e.client }

func (e *Engine) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}
