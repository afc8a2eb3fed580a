package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// noise is content that does not compress.
func noise(n int) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// large is an image with one layer of some MiB.
func large(t testing.TB) *registry.Image {
	return registry.NewImage(t, []registry.Layer{
		registry.NewLayer(t, registry.Tar(t, registry.File("big", string(noise(3<<20)))), registry.Gzip),
		registry.NewLayer(t, registry.Tar(t, registry.File("small", "x")), registry.Gzip),
	})
}

// huge does not fit a store of 6 MiB.
func huge(t testing.TB) *registry.Image {
	return bad(t, registry.File("big", string(noise(12<<20))))
}

// bad makes an image of one layer with these entries.
func bad(t testing.TB, entries ...registry.Entry) *registry.Image {
	return registry.NewImage(t, []registry.Layer{registry.NewLayer(t, registry.Tar(t, entries...), registry.Gzip)})
}

// faultCase is a pull that fails, or succeeds against the odds.
type faultCase struct {
	name  string
	built func(testing.TB) *registry.Image
	// setup spoils things; it may change the request and the configuration.
	setup func(reg *registry.Registry, built *registry.Image, req *image.Request, cfg *image.Config)
	size  string     // of the store
	want  fault.Code // "" is success
	has   string     // part of the error
	opts  []registry.Option
}

func layerPath(i *registry.Image, n int) string {
	return "/blobs/" + digest.FromBytes(i.Layers[n].Blob).String()
}

func faultCases() []faultCase {
	type (
		reg = *registry.Registry
		img = *registry.Image
		req = *image.Request
		cfg = *image.Config
	)
	return []faultCase{
		{name: "cut in the middle of a layer, then resumed", built: large, setup: func(r reg, i img, _ req, _ cfg) {
			r.Faults.Cut(layerPath(i, 0), 2, 1<<20)
		}},
		{name: "cut, and the server ignores ranges", built: large, setup: func(r reg, i img, _ req, _ cfg) {
			r.Faults.IgnoreRange(layerPath(i, 0))
			r.Faults.Cut(layerPath(i, 0), 2, 1<<20)
		}},
		{name: "registry gone in the middle of a layer", built: large, want: fault.Network, setup: func(r reg, i img, _ req, _ cfg) {
			r.Faults.Cut(layerPath(i, 0), -1, 1<<20)
			r.Faults.Do(layerPath(i, 0), -1, func(w http.ResponseWriter, q *http.Request, next http.Handler) {
				if q.Header.Get("Range") != "" {
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(w, q)
			})
		}},
		{name: "stalls, then resumed", built: large, setup: func(r reg, i img, _ req, c cfg) {
			c.Limits.Stall = 200 * time.Millisecond
			r.Faults.Stall(layerPath(i, 0), 1, 1<<20)
		}},
		{name: "stalls for ever", built: large, want: fault.Stalled, setup: func(r reg, i img, _ req, c cfg) {
			c.Limits.Stall, c.Limits.Connect = 100*time.Millisecond, 200*time.Millisecond
			r.Faults.Stall(layerPath(i, 0), -1, 0)
		}},
		{name: "takes longer than the limit", built: large, want: fault.Timeout, setup: func(r reg, i img, _ req, c cfg) {
			c.Limits.Total = 300 * time.Millisecond
			r.Faults.Stall(layerPath(i, 0), -1, 100)
		}},
		{name: "layer with another content", built: large, want: fault.Digest, setup: func(r reg, i img, _ req, _ cfg) {
			// The last bytes: everything is unpacked by then.
			r.Faults.Corrupt(layerPath(i, 0), -1, int64(len(i.Layers[0].Blob))-30)
		}},
		{name: "manifest with another content", built: simple, want: fault.Digest, setup: func(r reg, i img, q req, _ cfg) {
			q.Tag, q.Digest = "", digest.FromBytes(i.Manifests[0].Body).String()
			r.Faults.Corrupt("/manifests/", -1, 20)
		}},
		{name: "diff-ID that is not the layer's", built: func(t testing.TB) *registry.Image {
			l := registry.NewLayer(t, registry.Tar(t, registry.File("a", "b")), registry.Gzip)
			l.DiffID = digest.FromString("other")
			return registry.NewImage(t, []registry.Layer{l})
		}, want: fault.Digest},
		{name: "manifest that says too much of a layer", want: fault.BadImage, has: "by the manifest", built: func(t testing.TB) *registry.Image {
			l := registry.NewLayer(t, registry.Tar(t, registry.File("a", "b")), registry.Gzip)
			return registry.NewImage(t, []registry.Layer{l}, registry.WithManifest(func(m *ocispec.Manifest) { m.Layers[0].Size += 1000 }))
		}},
		{name: "manifest that says too little of a layer", want: fault.BadImage, has: "by the manifest", built: func(t testing.TB) *registry.Image {
			l := registry.NewLayer(t, registry.Tar(t, registry.File("a", "b")), registry.Gzip)
			return registry.NewImage(t, []registry.Layer{l}, registry.WithManifest(func(m *ocispec.Manifest) { m.Layers[0].Size = 50 }))
		}},
		{name: "manifest with an impossible size", want: fault.BadImage, built: func(t testing.TB) *registry.Image {
			l := registry.NewLayer(t, registry.Tar(t, registry.File("a", "b")), registry.Gzip)
			return registry.NewImage(t, []registry.Layer{l}, registry.WithManifest(func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }))
		}},
		{name: "too many layers", want: fault.BadImage, built: simple, setup: func(_ reg, _ img, _ req, c cfg) { c.Limits.MaxLayers = 1 }},
		{name: "401", built: simple, want: fault.Auth, opts: []registry.Option{registry.WithBasicAuth("u", "p")}},
		{name: "401 with wrong credentials", built: simple, want: fault.Auth, opts: []registry.Option{registry.WithBasicAuth("u", "p")},
			setup: func(_ reg, _ img, q req, _ cfg) { q.Creds = "u:wrong" }},
		{name: "token server refuses", built: simple, want: fault.Auth, opts: []registry.Option{registry.WithTokenAuth("u", "p")},
			setup: func(_ reg, _ img, q req, _ cfg) { q.Creds = "u:wrong" }},
		{name: "403", built: simple, want: fault.Auth, setup: func(r reg, _ img, _ req, _ cfg) { r.Faults.Status("/manifests/", -1, 403) }},
		{name: "404", built: simple, want: fault.ImageNotFound, setup: func(_ reg, _ img, q req, _ cfg) { q.Tag = "absent" }},
		{name: "layer is not there", built: simple, want: fault.ImageNotFound, setup: func(r reg, i img, _ req, _ cfg) {
			r.Faults.Status(layerPath(i, 1), -1, 404)
		}},
		{name: "500s then success", built: simple, setup: func(r reg, i img, _ req, _ cfg) {
			r.Faults.Status("/manifests/", 2, 500)
			r.Faults.Status(layerPath(i, 0), 3, 503)
		}},
		{name: "500s for ever", built: simple, want: fault.Registry, setup: func(r reg, _ img, _ req, _ cfg) { r.Faults.Status("/manifests/", -1, 502) }},
		{name: "429 with Retry-After, then success", built: simple, setup: func(r reg, _ img, _ req, _ cfg) {
			r.Faults.Status("/manifests/", 1, 429, "Retry-After", "1")
		}},
		{name: "429 for ever", built: simple, want: fault.RateLimited, setup: func(r reg, _ img, _ req, _ cfg) {
			r.Faults.Status("/manifests/", -1, 429, "Retry-After", "100000")
		}},
		{name: "nobody listens", built: simple, want: fault.Network, setup: func(_ reg, _ img, q req, _ cfg) {
			q.Original, q.Name = "127.0.0.1:1/a", "127.0.0.1:1/a"
		}},
		{name: "name that does not resolve", built: simple, want: fault.DNS, setup: func(_ reg, _ img, q req, _ cfg) {
			q.Original, q.Name = "no-such-host.invalid/a", "no-such-host.invalid/a"
		}},
		{name: "private CA", built: simple, want: fault.TLSCA, opts: []registry.Option{registry.WithTLS()},
			setup: func(_ reg, _ img, q req, _ cfg) { q.TLSVerify = nil }},
		{name: "plain HTTP", built: simple, want: fault.TLS, has: "plain HTTP", setup: func(_ reg, _ img, q req, _ cfg) { q.TLSVerify = nil }},
		{name: "certificate for another name", built: simple, want: fault.TLS, opts: []registry.Option{registry.WithNames("other.example")},
			setup: func(r reg, _ img, q req, _ cfg) { q.TLSVerify = nil; q.CertDir = filepath.Dir(r.CA) }},
		{name: "certificate not valid yet", built: simple, want: fault.Clock,
			opts:  []registry.Option{registry.WithValidity(time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))},
			setup: func(r reg, _ img, q req, _ cfg) { q.TLSVerify = nil; q.CertDir = filepath.Dir(r.CA) }},
		{name: "image larger than the store", built: large, size: "6m", want: fault.Space, has: "MiB",
			setup: func(_ reg, _ img, _ req, c cfg) { c.Limits.Reserve = 4 << 20 }},
		{name: "store full in the middle", built: huge, size: "6m", want: fault.Space,
			setup: func(_ reg, _ img, _ req, c cfg) { c.StoreDir = "" }},
		{name: "not enough memory", built: large, want: fault.Memory, has: "memory",
			setup: func(_ reg, _ img, _ req, c cfg) { c.MemAvailable = func() int64 { return 20 << 20 } }},
		{name: "bomb", built: func(t testing.TB) *registry.Image {
			return bad(t, registry.File("zeros", strings.Repeat("\x00", 64<<20)))
		},
			want: fault.BadImage, setup: func(_ reg, _ img, _ req, c cfg) { c.Limits.MaxUnpacked = 32 << 20 }},
		{name: "more files than allowed", built: func(t testing.TB) *registry.Image {
			var e []registry.Entry
			for i := range 200 {
				e = append(e, registry.File(fmt.Sprint("f", i), ""))
			}
			return bad(t, e...)
		}, want: fault.BadImage, setup: func(_ reg, _ img, _ req, c cfg) { c.Limits.MaxEntries = 100 }},
		{name: "corrupt gzip", want: fault.BadImage, built: func(t testing.TB) *registry.Image {
			l := registry.NewLayer(t, registry.Tar(t, registry.File("a", string(noise(100000)))), registry.Gzip)
			l.Blob = bytes.Clone(l.Blob)
			copy(l.Blob[5000:], "this is not the content that was compressed")
			return registry.NewImage(t, []registry.Layer{l})
		}},
		{name: "gzip that ends early", want: fault.BadImage, built: func(t testing.TB) *registry.Image {
			l := registry.NewLayer(t, registry.Tar(t, registry.File("a", string(noise(100000)))), registry.Gzip)
			l.Blob = l.Blob[:5000]
			return registry.NewImage(t, []registry.Layer{l})
		}},
		{name: "not a tar", want: fault.BadImage, built: func(t testing.TB) *registry.Image {
			return registry.NewImage(t, []registry.Layer{registry.NewLayer(t, noise(4096), registry.None)})
		}},
		{name: "name that climbs out", want: fault.BadImage, has: "climbs",
			built: func(t testing.TB) *registry.Image { return bad(t, registry.File("../../escaped", "x")) }},
		{name: "hard link that climbs out", want: fault.BadImage, has: "climbs",
			built: func(t testing.TB) *registry.Image { return bad(t, registry.Link("a", "../../../../etc/passwd")) }},
		{name: "hard link to nothing", want: fault.BadImage, has: "does not exist",
			built: func(t testing.TB) *registry.Image { return bad(t, registry.Link("a", "/etc/shadow")) }},
		{name: "symbolic links that climb out stay inside", built: func(t testing.TB) *registry.Image {
			return bad(t, registry.Symlink("up", "../../../../../.."), registry.File("up/careen-escaped", "x"),
				registry.Symlink("abs", "/tmp"), registry.File("abs/careen-escaped", "x"))
		}},
		{name: "symbolic links in a circle", want: fault.BadImage, has: "too many symbolic links", built: func(t testing.TB) *registry.Image {
			return bad(t, registry.Symlink("a", "b"), registry.Symlink("b", "a"), registry.File("a/x", "x"))
		}},
		{name: "a manifest of 100 MB", built: simple, want: fault.BadImage, has: "limit", setup: func(r reg, _ img, _ req, _ cfg) {
			r.Faults.Body("/manifests/", -1, ocispec.MediaTypeImageManifest, 100<<20)
		}},
		{name: "a manifest of 100 MB without a length", built: simple, want: fault.BadImage, has: "limit", setup: func(r reg, _ img, _ req, _ cfg) {
			r.Faults.Do("/manifests/", -1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
				block := bytes.Repeat([]byte(" "), 1<<20)
				for range 100 {
					if _, err := w.Write(block); err != nil {
						return
					}
				}
			})
		}},
		{name: "not JSON", built: simple, want: fault.BadImage, setup: func(r reg, _ img, _ req, _ cfg) {
			r.Faults.Do("/manifests/", -1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				_, _ = io.WriteString(w, "<html>login</html>")
			})
		}},
		{name: "encrypted layer", want: fault.Unsupported, has: "encrypted", built: func(t testing.TB) *registry.Image {
			l := registry.NewLayer(t, noise(1000), registry.None)
			l.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
			return registry.NewImage(t, []registry.Layer{l})
		}},
		{name: "other platform", want: fault.Platform, built: func(t testing.TB) *registry.Image {
			return registry.NewImage(t, nil, registry.WithConfig(func(c *ocispec.Image) { c.Architecture = "s390x" }))
		}},
		{name: "more layers than diff-IDs", want: fault.BadImage, built: func(t testing.TB) *registry.Image {
			l := registry.NewLayer(t, registry.Tar(t, registry.File("a", "b")), registry.Gzip)
			return registry.NewImage(t, []registry.Layer{l, l}, registry.WithConfig(func(c *ocispec.Image) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[:1] }))
		}},
		{name: "device outside of what exists", want: fault.BadImage, built: func(t testing.TB) *registry.Image {
			return bad(t, registry.Entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "d", Devmajor: 70000, Devminor: 1}})
		}},
		{name: "bad reference", built: simple, want: fault.BadReference, setup: func(_ reg, _ img, q req, _ cfg) { q.Original, q.Name = "UPPER/x", "localhost/UPPER/x" }},
		{name: "bad digest", built: simple, want: fault.BadReference, setup: func(_ reg, _ img, q req, _ cfg) { q.Digest = "sha256:12" }},
	}
}

// TestFaults pulls against every fault. Whatever happens: the error has the code
// that it should, it comes in bounded time, and nothing is left behind.
func TestFaults(t *testing.T) {
	for _, c := range faultCases() {
		t.Run(c.name, func(t *testing.T) {
			if c.size == "" {
				c.size = "128m"
			}
			s := newStore(t, c.size)
			reg := registry.Start(t, c.opts...)
			built := c.built(t)
			ref, _ := reg.Push(t, "team/tool:1", built)
			req := insecure(request(ref))
			p := newPuller(t, s, func(cfg *image.Config) {
				cfg.Limits.Reserve = 1 << 20
				if c.setup != nil {
					c.setup(reg, built, req, cfg)
				}
			})
			before, open := s.usage(t), s.descriptors(t)
			start := time.Now()
			img, err := p.Pull(s.ctx, req, func(image.Progress) {})
			require.Less(t, time.Since(start), 20*time.Second)
			if c.want == "" {
				require.NoError(t, err)
				require.NotEmpty(t, img.Digest)
				require.NoError(t, p.Delete(s.ctx, img.Name))
			} else {
				require.Error(t, err)
				require.Equal(t, c.want, fault.CodeOf(err), "%v", err)
				require.Contains(t, err.Error(), c.has)
				if c.want != fault.Timeout && c.want != fault.Unsupported {
					require.NotEmpty(t, fault.RemedyOf(err), "%v", err)
				}
			}
			require.Empty(t, s.contents(t))
			require.LessOrEqual(t, s.descriptors(t), open, "descriptors left open")
			require.Less(t, s.usage(t)-before, int64(256<<10), "bytes left in the store")
			require.NoFileExists(t, "/careen-escaped")
			require.NoFileExists(t, "/tmp/careen-escaped")
		})
	}
}

func TestCancel(t *testing.T) {
	s := newStore(t, "128m")
	reg := registry.Start(t)
	built := large(t)
	ref, _ := reg.Push(t, "team/tool:1", built)
	reg.Faults.Stall(layerPath(built, 0), -1, 1<<20)
	p := newPuller(t, s)
	ctx, cancel := context.WithCancel(s.ctx)
	_, err := p.Pull(ctx, insecure(request(ref)), func(p image.Progress) {
		if p.Done > 1<<19 {
			cancel()
		}
	})
	require.Equal(t, fault.Aborted, fault.CodeOf(err), "%v", err)
	require.Empty(t, s.contents(t))
}

func TestResumeContinuesWhereItWasCut(t *testing.T) {
	s := newStore(t, "128m")
	reg := registry.Start(t)
	built := large(t)
	ref, _ := reg.Push(t, "team/tool:1", built)
	reg.Faults.Cut(layerPath(built, 0), 1, 1<<20)
	_, err := newPuller(t, s).Pull(s.ctx, insecure(request(ref)), nil)
	require.NoError(t, err)
	var ranges []string
	for _, line := range reg.Faults.Seen() {
		if strings.Contains(line, layerPath(built, 0)) && strings.Contains(line, "bytes=") {
			ranges = append(ranges, line)
		}
	}
	require.Len(t, ranges, 1)
	require.NotContains(t, ranges[0], "bytes=0-")
}

// TestLayerOfSeveralGzipMembersThatFits: the length at the end of the layer is that of its
// last member, which once was taken for the layer's modulo 2^32. eStargz and bgzip write
// such layers.
func TestLayerOfSeveralGzipMembersThatFits(t *testing.T) {
	s := newStore(t, "52m")
	reg := registry.Start(t)
	stream := registry.Tar(t, registry.File("big", string(noise(12<<20))))
	layer := registry.NewLayer(t, stream, registry.Gzip)
	layer.Blob = nil
	for part := range slices.Chunk(stream, 4<<20) {
		layer.Blob = append(layer.Blob, registry.NewLayer(t, part, registry.Gzip).Blob...)
	}
	ref, _ := reg.Push(t, "team/tool:1", registry.NewImage(t, []registry.Layer{layer}))
	_, err := newPuller(t, s).Pull(s.ctx, insecure(request(ref)), nil)
	require.NoError(t, err)
}
