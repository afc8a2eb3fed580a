package image_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/services"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	_ "github.com/containerd/containerd/v2/plugins/metadata"
	_ "github.com/containerd/containerd/v2/plugins/mount"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/native/plugin"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"
)

var bridge struct {
	once   sync.Once
	mu     sync.Mutex
	client *containerd.Client
}

// store is a containerd in this process with its store on a tmpfs.
type store struct {
	client *containerd.Client
	root   string // the tmpfs
	ctx    context.Context
}

// newStore mounts a tmpfs of a size and starts containerd on it.
func newStore(t testing.TB, size string) *store {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a tmpfs and unpacks images as their owners")
	}
	root := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size="+size+",mode=0700"))
	// containerd closes its databases some time after it is told to stop.
	t.Cleanup(func() { require.NoError(t, unix.Unmount(root, unix.MNT_DETACH)) })
	ctx := log.WithLogger(context.Background(), log.L.WithField("test", t.Name()))
	require.NoError(t, log.SetLevel("error"))
	config := &srvconfig.Config{
		Version: version.ConfigVersion, Root: filepath.Join(root, "root"), State: filepath.Join(root, "state"),
		Plugins: map[string]any{
			"io.containerd.metadata.v1.bolt": map[string]any{"no_sync": true},
			"io.containerd.gc.v1.scheduler":  map[string]any{"startup_delay": "1h", "schedule_delay": "0s"},
		},
		RequiredPlugins: []string{"io.careen.test.v1.client"},
	}
	require.NoError(t, server.CreateTopLevelDirectories(config))
	bridge.once.Do(registerBridge)
	bridge.mu.Lock()
	defer bridge.mu.Unlock()
	srv, err := server.New(ctx, config)
	require.NoError(t, err)
	require.NoError(t, srv.Start(ctx))
	t.Cleanup(srv.Stop)
	return &store{client: bridge.client, root: root, ctx: namespaces.WithNamespace(ctx, "careen")}
}

func registerBridge() {
	registry.Register(&plugin.Registration{
		Type: "io.careen.test.v1", ID: "client",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.LeasePlugin, plugins.ServicePlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			event, err1 := ic.GetSingle(plugins.EventPlugin)
			lease, err2 := ic.GetSingle(plugins.LeasePlugin)
			byName, err3 := ic.GetByType(plugins.ServicePlugin)
			if err := errors.Join(err1, err2, err3); err != nil {
				return nil, err
			}
			var err error
			bridge.client, err = containerd.New("", containerd.WithDefaultNamespace("careen"), containerd.WithServices(
				containerd.WithEventService(event.(containerd.EventService)),
				containerd.WithLeasesService(lease.(leases.Manager)),
				containerd.WithContentStore(byName[services.ContentService].(content.Store)),
				containerd.WithImageClient(byName[services.ImagesService].(imagesapi.ImagesClient)),
				containerd.WithSnapshotters(byName[services.SnapshotsService].(map[string]snapshots.Snapshotter)),
				containerd.WithDiffClient(byName[services.DiffService].(diffapi.DiffClient)),
				containerd.WithNamespaceClient(byName[services.NamespacesService].(namespacesapi.NamespacesClient)),
			))
			return bridge.client, err
		},
	})
}

// contents lists everything that a pull may leave in the store.
func (s *store) contents(t testing.TB) []string {
	t.Helper()
	var all []string
	require.NoError(t, s.client.ContentStore().Walk(s.ctx, func(i content.Info) error {
		all = append(all, "content "+i.Digest.String())
		return nil
	}))
	statuses, err := s.client.ContentStore().ListStatuses(s.ctx)
	require.NoError(t, err)
	for _, st := range statuses {
		all = append(all, "ingest "+st.Ref)
	}
	for _, name := range []string{"overlayfs", "native"} {
		require.NoError(t, s.client.SnapshotService(name).Walk(s.ctx, func(_ context.Context, i snapshots.Info) error {
			all = append(all, fmt.Sprintf("%s snapshot %s %s", name, i.Kind, i.Name))
			return nil
		}))
	}
	found, err := s.client.LeasesService().List(s.ctx)
	require.NoError(t, err)
	for _, l := range found {
		all = append(all, "lease "+l.ID)
	}
	records, err := s.client.ImageService().List(s.ctx)
	require.NoError(t, err)
	for _, r := range records {
		all = append(all, "image "+r.Name)
	}
	// What the database does not know of lies in the directories all the same.
	for _, pattern := range []string{"snapshots/*", "new-*"} {
		dirs, err := filepath.Glob(filepath.Join(s.root, "root/io.containerd.snapshotter.v1.*/", pattern))
		require.NoError(t, err)
		for _, d := range dirs {
			if base := filepath.Base(d); base != "snapshots" {
				all = append(all, "directory "+base)
			}
		}
	}
	return all
}

// view mounts a chain read-only and calls fn with the directory.
func (s *store) view(t testing.TB, snapshotter, chain string, fn func(root string)) {
	t.Helper()
	sn := s.client.SnapshotService(snapshotter)
	key := "view-" + t.Name()
	// Collections that earlier deletions asked for run meanwhile: nothing else holds this.
	mounts, err := sn.View(s.ctx, key, chain,
		snapshots.WithLabels(map[string]string{"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339)}))
	require.NoError(t, err)
	defer func() { require.NoError(t, sn.Remove(s.ctx, key)) }()
	root := t.TempDir()
	require.NoError(t, mount.All(mounts, root))
	defer func() { require.NoError(t, mount.Unmount(root, 0)) }()
	fn(root)
}

// descriptors counts what this process has open in the store beside databases.
func (s *store) descriptors(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, s.root) && filepath.Ext(target) != ".db" {
			n++
		}
	}
	return n
}

// usage is what the files of the store take, in bytes.
func (s *store) usage(t testing.TB) int64 {
	t.Helper()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(s.root, &st))
	return int64(st.Blocks-st.Bfree) * st.Bsize
}
