package image

import (
	"context"
	"encoding/binary"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/unpack"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"layers":[]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"platform":{"os":"linux","architecture":"amd64"}}]}`), ocispec.MediaTypeImageIndex)
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "text/plain")
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		doc, err := newDocument(body, contentType, "")
		if err != nil {
			require.NotEqual(t, fault.Internal, fault.CodeOf(err), "%v", err)
			return
		}
		require.NotEqual(t, doc.index == nil, doc.manifest == nil)
		if doc.index != nil {
			want, err := platformOf(Platform{Arch: "amd64"})
			require.NoError(t, err)
			if m, err := choose(doc.index, want, "x"); err == nil {
				_ = checkDescriptor(m, "manifest", 1<<20)
			}
			return
		}
		if checkManifest(doc.manifest, Limits{}.withDefaults()) == nil {
			if config, err := parseConfig(body, doc.manifest); err == nil {
				layersOf(&resolvedImage{config: config, manifest: doc})
			}
		}
	})
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="registry",scope="repository:a:pull"`)
	f.Add(`Basic realm="x"`)
	f.Add(`Bearer realm="http://[::1`)
	f.Fuzz(func(_ *testing.T, value string) {
		auth.ParseAuthHeader(http.Header{"Www-Authenticate": {value}})
	})
}

func FuzzHostsFile(f *testing.F) {
	f.Add("server = \"https://a\"\n[host.\"http://b\"]\ncapabilities = [\"pull\"]\n")
	f.Add("= = =")
	f.Fuzz(func(t *testing.T, body string) {
		dir := t.TempDir()
		p := New(nil, Config{HostsDirs: []string{dir}, CertDirs: []string{}, RegistriesConf: os.DevNull, RegistriesConfDir: dir, AuthFiles: []string{}})
		require.NoError(t, os.Mkdir(filepath.Join(dir, "registry.example"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "registry.example/hosts.toml"), []byte(body), 0o600))
		req := &Request{Original: "registry.example/a", Name: "registry.example/a"}
		names, err := p.candidates(req)
		require.NoError(t, err)
		j := &job{p: p, req: req}
		if _, err := j.openRegistry(context.Background(), names[0].String(), false); err != nil {
			require.NotEqual(t, fault.Internal, fault.CodeOf(err), "%v", err)
		}
	})
}

func TestUnpackedSize(t *testing.T) {
	size := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	zip := append([]byte(nil), unpack.GzipMagic...)
	for _, c := range []struct {
		name       string
		stored     int64
		head, tail []byte
		want       int64
	}{
		{"gzip", 1000, zip, size(5000), 5000},
		{"gzip of 5 GiB, or with several members", 3 << 30, zip, size(1 << 30), 3<<30 - 3<<20 - 1024},
		{"gzip that lies", 10240, zip, size(1 << 31), 10240 - 10 - 1024},
		{"plain tar", 10240, []byte("name"), nil, 10240},
		{"zstd with a size", 1000, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa4, 0x00, 0x10, 0, 0, 0, 0, 0, 0, 0}, nil, 4096},
		{"tiny", 10, zip, nil, 0},
	} {
		require.Equal(t, c.want, estimate(c.head, c.tail, c.stored), c.name)
	}
}

func TestShortNames(t *testing.T) {
	for original, want := range map[string]string{
		"busybox": "busybox", "busybox:1": "busybox", "team/tool:1": "team/tool", "docker://busybox": "", "registry.example/a": "",
		"localhost/a:1": "", "host:5000/a": "", "host:5000/a:1@sha256:00": "", "team/tool@sha256:00": "team/tool",
	} {
		require.Equal(t, want, shortName(&Request{Original: original}), original)
	}
}

func TestDefaultAuthFiles(t *testing.T) {
	env := map[string]string{"REGISTRY_AUTH_FILE": "/r", "XDG_RUNTIME_DIR": "/x", "HOME": "/h"}
	require.Equal(t, []string{"/r", "/x/containers/auth.json", "/run/containers/0/auth.json", "/h/.config/containers/auth.json",
		"/h/.docker/config.json", "/h/.dockercfg"}, defaultAuthFiles(func(k string) string { return env[k] }, 0))
}

// TestLayerThatIsWaitedForIsUrgent: a background pull unpacks a layer. When a run comes
// to need that layer, the pull no longer limits itself for it.
func TestLayerThatIsWaitedForIsUrgent(t *testing.T) {
	f := singleFlight{running: map[string]*layerCall{}}
	busy := busyFunc(func() bool { return true })
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var before, after bool
	go func() {
		defer close(ended)
		_, _ = f.do(context.Background(), "layer", busy, func(busy busyFunc) error {
			before = busy.now()
			close(begun)
			<-end
			after = busy.now()
			return nil
		})
	}()
	<-begun
	// Another background pull changes nothing, and neither does its end.
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := f.do(over, "layer", busy, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, f.running["layer"].urgent.Load())
	_, err = f.do(over, "layer", nil, nil)
	require.ErrorIs(t, err, context.Canceled)
	close(end)
	<-ended
	require.True(t, before)
	require.False(t, after)
}
