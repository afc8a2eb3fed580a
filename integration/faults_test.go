package integration

import (
	"archive/tar"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// pulled runs an image that cannot run, and returns how that ended.
func pulled(t *testing.T, agent *harness.Agent, image string, limit time.Duration, options ...string) api.Run {
	t.Helper()
	req := shell(image, "true")
	req.PullOptions = append([]string{"--tls-verify=false", "--retry-delay=50ms"}, options...)
	began := time.Now()
	run := ended(t, agent, submit(t, agent, req))
	assert.Less(t, time.Since(began), limit, "bounded in time")
	return run
}

// refusedAs checks a failure before any container: its code, its words, podman's
// exit code.
func refusedAs(t *testing.T, run api.Run, code, words string) {
	t.Helper()
	assert.Equal(t, api.Failed, run.State)
	assert.Equal(t, code, run.Outcome.Code, "%+v", run.Outcome)
	assert.Contains(t, run.Outcome.Message, words)
	assert.Contains(t, run.Outcome.Message, "cannot ")
	assert.NotContains(t, run.Outcome.Message, "\n")
	assert.NotEmpty(t, run.Outcome.Remedy)
	require.NotNil(t, run.Outcome.ExitCode)
	assert.Equal(t, 125, *run.Outcome.ExitCode)
}

// big is a layer's file that does not compress to nothing; each seed has another.
func big(size int, seed uint32) []byte {
	data := make([]byte, size)
	for i := range data {
		seed = seed*1664525 + 1013904223
		data[i] = byte(seed >> 24)
	}
	return data
}

func TestRegistryFaults(t *testing.T) {
	agent := harness.Start(t)
	for i, tc := range []struct {
		name        string
		fault       func(f *registry.Faults)
		code, words string // no code: it succeeds
		options     []string
	}{
		{"unauthorised", func(f *registry.Faults) { f.Status("/manifests/", -1, http.StatusUnauthorized) }, "auth", "401", nil},
		{"forbidden", func(f *registry.Faults) { f.Status("/manifests/", -1, http.StatusForbidden) }, "auth", "403", nil},
		{"no such image", func(f *registry.Faults) { f.Status("/manifests/", -1, http.StatusNotFound) }, "image_not_found", "not", nil},
		{"no such layer", func(f *registry.Faults) { f.Status("/blobs/", -1, http.StatusNotFound) }, "image_not_found", "", nil},
		{"always 500", func(f *registry.Faults) { f.Status("/blobs/", -1, 500) }, "registry", "500", []string{"--retry=1"}},
		{"some 500s", func(f *registry.Faults) { f.Status("/blobs/", 2, 503); f.Status("/manifests/", 1, 500) }, "", "", nil},
		{"limited", func(f *registry.Faults) { f.Status("/manifests/", 1, 429, "Retry-After", "1") }, "", "", nil},
		{"cut", func(f *registry.Faults) { f.Cut("/blobs/", 2, 200_000) }, "", "", nil},
		{"gone in a layer", func(f *registry.Faults) { f.Cut("/blobs/", -1, 100) }, "network", "", []string{"--retry=1"}},
		{"corrupt", func(f *registry.Faults) { f.Corrupt("/blobs/", -1, 500_000) }, "digest_mismatch", "sha256:", []string{"--retry=1"}},
		{"huge manifest", func(f *registry.Faults) {
			f.Body("/manifests/", -1, ocispec.MediaTypeImageManifest, 100<<20)
		}, "bad_image", "larger than", nil},
		{"manifest of another digest", func(f *registry.Faults) { f.Corrupt("/manifests/", -1, 40) }, "digest_mismatch", "sha256:", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := registry.Start(t)
			image, _ := reg.Push(t, "fw:1", registry.NewImage(t, []registry.Layer{
				// None of it is in the store already.
				registry.NewLayer(t, registry.Tar(t, registry.File("big", string(big(1<<20, uint32(i))))), registry.Gzip),
				harness.Busybox(t).Layers[0],
			}))
			tc.fault(reg.Faults)
			run := pulled(t, agent, image, 20*time.Second, tc.options...)
			if tc.code == "" {
				assert.Equal(t, api.Succeeded, run.State, "%+v", run.Outcome)
				return
			}
			refusedAs(t, run, tc.code, tc.words)
			// The registry is well again, and nothing of the failure is in the way.
			reg.Faults.Clear()
			assert.Equal(t, api.Succeeded, pulled(t, agent, image, 20*time.Second).State)
		})
	}
	assert.Less(t, agent.Metric("process_resident_memory_bytes"), float64(400<<20), "no answer of a registry is held in memory whole")
}

func TestRegistryAway(t *testing.T) {
	agent := harness.Start(t)
	run := pulled(t, agent, "127.0.0.1:1/fw:1", 20*time.Second, "--retry=1")
	refusedAs(t, run, "network", "refused")

	reg := registry.Start(t, registry.WithTLS())
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	run = pulled(t, agent, image, 20*time.Second, "--tls-verify=true")
	refusedAs(t, run, "tls_ca", "authority")

	reg = registry.Start(t)
	image, _ = reg.Push(t, tag, harness.Busybox(t))
	run = pulled(t, agent, image, 20*time.Second, "--tls-verify=true")
	refusedAs(t, run, "tls", "HTTP")
	assert.Contains(t, run.Outcome.Remedy, "--tls-verify=false")

	reg = registry.Start(t, registry.WithBasicAuth("op", "s3cret"))
	image, _ = reg.Push(t, tag, harness.Busybox(t))
	run = pulled(t, agent, image, 20*time.Second, "--creds=op:wr0ng")
	refusedAs(t, run, "auth", "401")
	assert.NotContains(t, run.Outcome.Message, "wr0ng")
}

// TestHostileImages: what an image says about itself is not believed, and none of
// its entries gets out of the container's root.
func TestHostileImages(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	agent := harness.Start(t)
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	layer := func(entries ...registry.Entry) registry.Layer {
		return registry.NewLayer(t, registry.Tar(t, entries...), registry.Gzip)
	}
	torn := layer(registry.File("a", string(big(100_000, 0))))
	torn.Blob = append([]byte(nil), torn.Blob[:len(torn.Blob)/2]...)
	wrong := layer(registry.File("a", "1"))
	wrong.DiffID = digest.FromString("something else")
	device := registry.Entry{}
	device.Typeflag, device.Name, device.Mode, device.Devmajor, device.Devminor = tar.TypeBlock, "disk", 0o666, 8, 0
	for i, tc := range []struct {
		name  string
		layer registry.Layer
		code  string // "" where it is made harmless instead
	}{
		{"torn gzip", torn, "bad_image"},
		{"other diff id", wrong, "digest_mismatch"},
		{"no gzip at all", registry.Layer{Blob: []byte("hello"), MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: digest.FromString("hello")}, "bad_image"},
		{"dots", layer(registry.File("../../../../../../../.."+outside+"/dots", "x")), ""},
		{"absolute", layer(registry.File(outside+"/absolute", "x")), ""},
		{"through a link", layer(registry.Symlink("out", outside), registry.File("out/link", "x")), ""},
		{"hard link", layer(registry.Link("shadow", "../../../../../../../../etc/shadow")), ""},
		{"device", layer(device), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := harness.Busybox(t).Layers
			image, _ := reg.Push(t, fmt.Sprintf("hostile:%d", i), registry.NewImage(t, append(base[:1:1], tc.layer)))
			run := pulled(t, agent, image, 20*time.Second, "--retry=1")
			if tc.code != "" || run.State == api.Failed {
				refusedAs(t, run, cmpOr(tc.code, "bad_image"), "")
			}
			left, err := os.ReadDir(outside)
			require.NoError(t, err)
			assert.Empty(t, left, "outside of the container's root")
		})
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// TestStoreTooSmall: the image does not fit, and the store is as empty afterwards
// as it was.
func TestStoreTooSmall(t *testing.T) {
	harness.NeedRoot(t)
	root := t.TempDir()
	require.NoError(t, unix.Mount("careen-test", root, "tmpfs", 0, "size=96m"))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	reg := registry.Start(t)
	large, _ := reg.Push(t, "large:1", harness.Busybox(t, []registry.Entry{registry.File("big", strings.Repeat("unpacks to much\n", 120<<16))}))
	small, _ := reg.Push(t, "small:1", harness.Busybox(t))
	agent := harness.Start(t, harness.WithRoot(root))
	before := diskUsage(t, root)
	run := pulled(t, agent, large, 30*time.Second, "--retry=1")
	refusedAs(t, run, "space", "MiB")
	assert.Less(t, diskUsage(t, root), before+(1<<20), "what was unpacked until then is removed")
	assert.Equal(t, api.Succeeded, pulled(t, agent, small, 20*time.Second).State)

	// A container that fills the store fails by itself, and frees it.
	req := shell(small, "dd if=/dev/zero of=/fill bs=1M")
	run = ended(t, agent, submit(t, agent, req))
	assert.Equal(t, api.Failed, run.State)
	assert.Contains(t, strings.Join(run.Outcome.LogTail, "\n"), "No space left on device")
	assert.Equal(t, api.Succeeded, ended(t, agent, submit(t, agent, shell(small, "true"))).State)
}

// TestBadReferences are refused before anything is asked of a registry.
func TestBadReferences(t *testing.T) {
	agent := harness.Start(t)
	for _, image := range []string{
		"registry.example/fw:bad tag", "registry.example/fw@sha256:123", "registry.example//fw", "http://registry.example/fw",
		"registry.example/" + strings.Repeat("a", 300), "-fw", "docker://", "registry.example/fw:1\n", "dir:/etc", "containers-storage:fw",
	} {
		_, _, err := agent.Client.Submit(within(t, 10*time.Second), shell(image, "true"))
		if assert.Error(t, err, "%q", image) {
			assert.Contains(t, []string{"bad_reference", "unsupported"}, string(faultCode(err)), "%q: %v", image, err)
		}
	}
}
