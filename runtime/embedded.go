package runtime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/services"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/sirupsen/logrus"

	"github.com/careen-project/careen/runtime/shim"
)

// socketDirLimit leaves room for the name of a shim's socket (64 digits and a
// slash) in the 107 bytes of a unix socket's path.
const socketDirLimit = 42

// collectTimeout bounds the wait for the garbage collector; the collector goes on after it.
const collectTimeout = 20 * time.Second

// embedded is a containerd that lives in this process.
type embedded struct {
	server *server.Server
	gc     collector
	// end ends what containerd does in the background.
	end context.CancelFunc
}

// bridge is a plugin of containerd. Only a plugin gets the instances of the other
// plugins, so this one makes the client.
var bridge struct {
	once   sync.Once
	mu     sync.Mutex
	client *containerd.Client
	gc     collector
	stores []snapshots.Cleaner
}

func registerBridge() {
	registry.Register(&plugin.Registration{
		Type: "io.careen.client.v1",
		ID:   "in-process",
		Requires: []plugin.Type{
			plugins.EventPlugin, plugins.LeasePlugin, plugins.ServicePlugin, plugins.GCPlugin,
			plugins.SnapshotPlugin,
		},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			scheduler, err := ic.GetSingle(plugins.GCPlugin)
			if err != nil {
				return nil, err
			}
			// One that the node cannot have is missing here, which is no failure.
			snapshotters, err := ic.GetByType(plugins.SnapshotPlugin)
			if err != nil {
				return nil, err
			}
			for _, snapshotter := range snapshotters {
				if cleaner, ok := snapshotter.(snapshots.Cleaner); ok {
					bridge.stores = append(bridge.stores, cleaner)
				}
			}
			client, err := inProcessClient(ic)
			bridge.client, bridge.gc = client, scheduler.(collector)
			return client, err
		},
	})
}

// openEmbedded starts containerd with its stores in root and state and returns
// a client of it. Only shims have sockets. containerd does not end with ctx but with
// close: an agent that stops still deletes containers, which needs the garbage collector.
func openEmbedded(ctx context.Context, cfg Config) (_ *embedded, _ *containerd.Client, err error) {
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			end()
		}
	}()
	// Some of containerd logs without a context.
	log.L = logrus.NewEntry(containerdLogger())
	ctx = log.WithLogger(ctx, log.L)
	config := &srvconfig.Config{
		Version: version.ConfigVersion,
		Root:    cfg.Root,
		State:   cfg.State,
		Plugins: map[string]any{
			// The addresses are never listened on.
			"io.containerd.server.v1.grpc":  map[string]any{"address": filepath.Join(cfg.State, "in-process")},
			"io.containerd.server.v1.ttrpc": map[string]any{"address": filepath.Join(cfg.State, "in-process.ttrpc")},
			// In RAM there is nothing to sync, and on a disk a store that a crash
			// tore is only a cache: the next pull fills it again.
			"io.containerd.metadata.v1.bolt": map[string]any{"no_sync": cfg.StoreInMemory},
		},
		RequiredPlugins: []string{"io.careen.client.v1.in-process"},
	}
	if err := server.CreateTopLevelDirectories(config); err != nil {
		return nil, nil, err
	}
	bridge.once.Do(registerBridge)
	bridge.mu.Lock()
	defer bridge.mu.Unlock()
	bridge.client, bridge.gc, bridge.stores = nil, collector{}, nil
	srv, err := server.New(ctx, config)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot start the embedded containerd: %w", err)
	}
	if err := srv.Start(ctx); err != nil {
		srv.Stop()
		return nil, nil, err
	}
	srv.Wait()
	e := &embedded{server: srv, gc: bridge.gc, end: end}
	if err := e.recover(ctx, bridge.client, bridge.stores, cfg); err != nil {
		e.server.Stop()
		return nil, nil, err
	}
	go e.gc.later(ctx)
	return e, bridge.client, nil
}

// recover removes what a killed agent left unfinished. A snapshot directory without a
// record makes the next snapshot fail, because it gets the same number. A lease keeps
// unused content for a day.
func (e *embedded) recover(ctx context.Context, client *containerd.Client, stores []snapshots.Cleaner, cfg Config) error {
	ctx = namespaces.WithNamespace(ctx, Namespace)
	for _, store := range stores {
		// A store that never held anything answers "not found".
		if err := store.Cleanup(ctx); err != nil && !errdefs.IsNotImplemented(err) && !errdefs.IsNotFound(err) {
			return fmt.Errorf("cannot clean up the store: %w", err)
		}
	}
	left, err := client.LeasesService().List(ctx)
	if err != nil {
		return fmt.Errorf("cannot list leases: %w", err)
	}
	for _, lease := range left {
		if err := client.LeasesService().Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("cannot remove lease %s: %w", lease.ID, err)
		}
	}
	if len(left) > 0 {
		e.collect(ctx)
	}
	sockets, err := filepath.Glob(filepath.Join(socketDir(cfg.State), "*"))
	for _, socket := range sockets {
		err = errors.Join(err, shim.RemoveDeadSocket(socket))
	}
	return err
}

// collect frees content without references now. containerd's schedule is too late for the
// next step, which needs the memory, and an agent may end before it.
func (e *embedded) collect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, collectTimeout)
	defer cancel()
	if _, err := e.gc.ScheduleAndWait(ctx); err != nil {
		log.G(ctx).WithError(err).Warn("the garbage collector did not finish; it frees space in the store later")
	}
}

func (e *embedded) close() {
	e.server.Stop()
	e.end()
}

// containerdLogger logs containerd's errors. Its other lines, one for each plugin and
// call, are logged at debug level only.
func containerdLogger() *logrus.Logger {
	logger := logrus.New()
	logger.SetOutput(logrus.StandardLogger().Out)
	logger.SetFormatter(logrus.StandardLogger().Formatter)
	logger.SetLevel(logrus.ErrorLevel)
	if logrus.IsLevelEnabled(logrus.DebugLevel) {
		logger.SetLevel(logrus.GetLevel())
	}
	return logger
}

// socketDir is where shims listen: with the state, if the path is short enough.
func socketDir(state string) string {
	if dir := filepath.Join(state, "s"); len(dir) <= socketDirLimit {
		return dir
	}
	return filepath.Join("/run", "careen-shims")
}

// inProcessClient connects a client to the services with no socket between.
func inProcessClient(ic *plugin.InitContext) (*containerd.Client, error) {
	event, err := ic.GetSingle(plugins.EventPlugin)
	if err != nil {
		return nil, err
	}
	lease, err := ic.GetSingle(plugins.LeasePlugin)
	if err != nil {
		return nil, err
	}
	byName, err := ic.GetByType(plugins.ServicePlugin)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{
		services.ContentService, services.ImagesService, services.SnapshotsService, services.ContainersService,
		services.DiffService, services.NamespacesService,
	} {
		if byName[name] == nil {
			return nil, fmt.Errorf("containerd's %s is missing", name)
		}
	}
	return containerd.New("",
		containerd.WithDefaultNamespace(Namespace),
		containerd.WithServices(
			containerd.WithEventService(event.(containerd.EventService)),
			containerd.WithLeasesService(lease.(leases.Manager)),
			containerd.WithContentStore(byName[services.ContentService].(content.Store)),
			containerd.WithImageClient(byName[services.ImagesService].(imagesapi.ImagesClient)),
			containerd.WithSnapshotters(byName[services.SnapshotsService].(map[string]snapshots.Snapshotter)),
			containerd.WithContainerClient(byName[services.ContainersService].(containersapi.ContainersClient)),
			containerd.WithDiffClient(byName[services.DiffService].(diff.DiffClient)),
			containerd.WithNamespaceClient(byName[services.NamespacesService].(namespacesapi.NamespacesClient)),
		))
}
