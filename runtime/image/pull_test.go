package image_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

// newPuller makes a puller whose environment is the test's alone.
func newPuller(t testing.TB, s *store, change ...func(*image.Config)) *image.Puller {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "registries.conf")
	require.NoError(t, os.WriteFile(conf, nil, 0o600))
	cfg := image.Config{
		StoreDir: s.root, DirectApply: true, RegistriesConf: conf, RegistriesConfDir: dir,
		HostsDirs: []string{filepath.Join(dir, "hosts")}, CertDirs: []string{filepath.Join(dir, "certs")},
		AuthFiles: []string{filepath.Join(dir, "auth.json")},
		Limits:    image.Limits{Backoff: time.Millisecond, MaxBackoff: 50 * time.Millisecond, Stall: 2 * time.Second},
	}
	for _, c := range change {
		c(&cfg)
	}
	return image.New(s.client, cfg)
}

func request(ref string) *image.Request {
	name, tag := ref, ""
	if at := strings.Index(ref, "@"); at >= 0 {
		return &image.Request{Original: ref, Name: ref[:at], Digest: ref[at+1:]}
	}
	if i := strings.LastIndex(ref, ":"); i > strings.LastIndex(ref, "/") {
		name, tag = ref[:i], ref[i+1:]
	}
	return &image.Request{Original: ref, Name: name, Tag: tag}
}

func insecure(r *image.Request) *image.Request {
	no := false
	r.TLSVerify = &no
	return r
}

func simple(t testing.TB) *registry.Image {
	return registry.NewImage(t, []registry.Layer{
		registry.NewLayer(t, registry.Tar(t, registry.Dir("etc"), registry.File("etc/a", "one"), registry.File("gone", "x")), registry.Gzip),
		registry.NewLayer(t, registry.Tar(t, registry.File("etc/b", "two"), registry.File(".wh.gone", "")), registry.Gzip),
	})
}

func TestPullFromRegistry(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, top := reg.Push(t, "team/tool:1", simple(t))
	p := newPuller(t, s)

	img, err := p.Pull(s.ctx, insecure(request(ref)), nil)
	require.NoError(t, err)
	require.Equal(t, ref, img.Name)
	require.Equal(t, top.String(), img.Digest)
	require.False(t, img.FromCache)
	s.view(t, "overlayfs", img.ChainID, func(root string) {
		body, err := os.ReadFile(filepath.Join(root, "etc/b"))
		require.NoError(t, err)
		require.Equal(t, "two", string(body))
		require.FileExists(t, filepath.Join(root, "etc/a"))
		require.NoFileExists(t, filepath.Join(root, "gone"))
	})

	again, err := p.Pull(s.ctx, insecure(request(ref)), nil)
	require.NoError(t, err)
	require.True(t, again.FromCache)
	require.Equal(t, img.ChainID, again.ChainID)

	all, err := p.List(s.ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.NoError(t, p.Delete(s.ctx, ref))
	require.Empty(t, s.contents(t))
}

func TestTheManifestsAnnotationsAreKept(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	layer := registry.NewLayer(t, registry.Tar(t, registry.File("a", "one")), registry.Gzip)
	want := map[string]string{"org.example.module": "ipmi_si"}
	ref, _ := reg.Push(t, "team/tool:1", registry.NewImage(t, []registry.Layer{layer},
		registry.WithManifest(func(m *ocispec.Manifest) { m.Annotations = want })))
	p := newPuller(t, s)
	fresh, err := p.Pull(s.ctx, insecure(request(ref)), nil)
	require.NoError(t, err)
	require.Equal(t, want, fresh.Annotations)
	cached, err := p.Pull(s.ctx, insecure(request(ref)), nil)
	require.NoError(t, err)
	require.True(t, cached.FromCache)
	require.Equal(t, want, cached.Annotations)
}
