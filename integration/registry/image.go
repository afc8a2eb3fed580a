package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// Compression is how a layer is stored.
type Compression int

// The compressions.
const (
	Gzip Compression = iota
	Zstd
	None
)

// Epoch is the time of files whose header has none.
var Epoch = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

// Entry is one entry of a layer: a header, and what a regular file holds.
type Entry struct {
	tar.Header
	Body []byte
}

// File is a regular file, mode 0644.
func File(name, body string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, Body: []byte(body)}
}

// Dir is a directory, mode 0755.
func Dir(name string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}}
}

// Symlink is a symbolic link.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// Link is a hard link.
func Link(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// Tar makes a tar stream. Entries without a time get [Epoch].
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.Body))
		}
		if h.ModTime.IsZero() {
			h.ModTime = Epoch
		}
		require.NoError(t, w.WriteHeader(&h), "%+v", h)
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write(e.Body)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// Layer is a layer as it is stored, and the digest of its tar stream.
type Layer struct {
	Blob      []byte
	MediaType string
	DiffID    digest.Digest
}

// NewLayer compresses a tar stream.
func NewLayer(t testing.TB, stream []byte, c Compression) Layer {
	t.Helper()
	l := Layer{DiffID: digest.FromBytes(stream)}
	var buf bytes.Buffer
	var w io.WriteCloser
	switch c {
	case Gzip:
		l.MediaType = ocispec.MediaTypeImageLayerGzip
		w = gzip.NewWriter(&buf)
	case Zstd:
		l.MediaType = ocispec.MediaTypeImageLayerZstd
		enc, err := zstd.NewWriter(&buf)
		require.NoError(t, err)
		w = enc
	case None:
		l.MediaType, l.Blob = ocispec.MediaTypeImageLayer, stream
		return l
	}
	_, err := w.Write(stream)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	l.Blob = buf.Bytes()
	return l
}

// Manifest is a manifest or index as it is pushed.
type Manifest struct {
	MediaType string
	Body      []byte
}

// Image is what [Registry.Push] stores: blobs, then manifests, the top one last.
type Image struct {
	Blobs     [][]byte
	Manifests []Manifest
	// Config and Layers are those of an image that is no index.
	Config ocispec.Image
	Layers []Layer
}

// ImageOption changes an image before its manifest is written.
type ImageOption func(*imageSpec)

type imageSpec struct {
	config   ocispec.Image
	manifest ocispec.Manifest
	docker   bool
	change   func(*ocispec.Manifest)
}

// WithConfig changes the configuration.
func WithConfig(change func(*ocispec.Image)) ImageOption {
	return func(s *imageSpec) { change(&s.config) }
}

// WithManifest changes the manifest, after everything else.
func WithManifest(change func(*ocispec.Manifest)) ImageOption {
	return func(s *imageSpec) { s.change = change }
}

// Docker writes Docker's formats instead of OCI's.
func Docker() ImageOption { return func(s *imageSpec) { s.docker = true } }

// NewImage makes an image for this machine's platform.
func NewImage(t testing.TB, layers []Layer, opts ...ImageOption) *Image {
	t.Helper()
	s := &imageSpec{}
	s.config.Platform = ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	s.config.Created = &Epoch
	s.config.Config.Cmd = []string{"/bin/sh"}
	s.config.RootFS.Type = "layers"
	for _, l := range layers {
		s.config.RootFS.DiffIDs = append(s.config.RootFS.DiffIDs, l.DiffID)
	}
	for _, opt := range opts {
		opt(s)
	}
	config, err := json.Marshal(s.config)
	require.NoError(t, err)
	s.manifest = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: descriptor(ocispec.MediaTypeImageConfig, config),
	}
	image := &Image{Blobs: [][]byte{config}, Config: s.config, Layers: layers}
	for _, l := range layers {
		s.manifest.Layers = append(s.manifest.Layers, descriptor(l.MediaType, l.Blob))
		image.Blobs = append(image.Blobs, l.Blob)
	}
	if s.docker {
		dockerTypes(&s.manifest)
	}
	if s.change != nil {
		s.change(&s.manifest)
	}
	body, err := json.Marshal(s.manifest)
	require.NoError(t, err)
	image.Manifests = []Manifest{{MediaType: s.manifest.MediaType, Body: body}}
	return image
}

func dockerTypes(m *ocispec.Manifest) {
	m.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
	m.Config.MediaType = "application/vnd.docker.container.image.v1+json"
	for i := range m.Layers {
		m.Layers[i].MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}
}

func descriptor(mediaType string, body []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
}

// NewIndex makes an index of images, each for a platform as "os/arch[/variant]".
func NewIndex(t testing.TB, images map[string]*Image) *Image {
	t.Helper()
	all := &Image{}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range sortedKeys(images) {
		image := images[name]
		all.Blobs = append(all.Blobs, image.Blobs...)
		all.Manifests = append(all.Manifests, image.Manifests...)
		top := image.Manifests[len(image.Manifests)-1]
		desc := descriptor(top.MediaType, top.Body)
		desc.Platform = parsePlatform(name)
		index.Manifests = append(index.Manifests, desc)
	}
	body, err := json.Marshal(index)
	require.NoError(t, err)
	all.Manifests = append(all.Manifests, Manifest{MediaType: index.MediaType, Body: body})
	return all
}

// WithPlatform says what the image is for.
func WithPlatform(os, arch, variant string) ImageOption {
	return WithConfig(func(c *ocispec.Image) {
		c.Platform = ocispec.Platform{OS: os, Architecture: arch, Variant: variant}
	})
}
