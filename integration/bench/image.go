package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// generation is part of every image's directory: one that an older bench made is
// not taken for one of this.
const generation = "2"

// shape says what an image is made of. The same shape is the same image, on
// every machine.
type shape struct {
	Name   string
	Layers int
	Files  int
	Bytes  int64  // unpacked
	Empty  bool   // one file more, all zeros, that makes up for Bytes
	Format string // of the layers: "" is gzip, or zstd, none
	Own    int    // number of a small layer on top that no other image has; 0 for none
}

// tool is the image that the project's figures are about.
var tool = shape{Name: "tool", Layers: 3, Files: 12000, Bytes: 526 << 20}

func (s shape) format(format string) shape {
	s.Name, s.Format = s.Name+"-"+format, format
	return s
}

// small is the image of the runs that start no more than a process.
var small = shape{Name: "small", Layers: 2, Files: 200, Bytes: 4 << 20}

// generate writes the image as an OCI layout to dir, if it is not there.
func generate(dir string, s shape) error {
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	count := s.Layers
	if s.Own > 0 {
		count++
	}
	var manifest ocispec.Manifest
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	config.RootFS.Type = "layers"
	config.Config.Cmd = []string{"/bin/true"}
	config.RootFS.DiffIDs = make([]digest.Digest, count)
	manifest.Layers = make([]ocispec.Descriptor, count)
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for i := range count {
		group.Go(func() (err error) {
			manifest.Layers[i], config.RootFS.DiffIDs[i], err = makeLayer(dir, s, i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	manifest.Versioned = specs.Versioned{SchemaVersion: 2}
	manifest.MediaType = ocispec.MediaTypeImageManifest
	var err error
	if manifest.Config, err = document(dir, config, ocispec.MediaTypeImageConfig); err != nil {
		return err
	}
	top, err := document(dir, manifest, manifest.MediaType)
	if err != nil {
		return err
	}
	top.Annotations = map[string]string{ocispec.AnnotationRefName: "latest"}
	index, err := json.Marshal(ocispec.Index{Versioned: manifest.Versioned, Manifests: []ocispec.Descriptor{top}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644)
}

func document(dir string, v any, mediaType string) (ocispec.Descriptor, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	return desc, os.WriteFile(filepath.Join(dir, "blobs/sha256", desc.Digest.Encoded()), body, 0o644)
}

func makeLayer(dir string, s shape, i int) (ocispec.Descriptor, digest.Digest, error) {
	tmp := filepath.Join(dir, fmt.Sprintf("layer%d.tmp", i))
	f, err := os.Create(tmp)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer f.Close()
	blob, plain := sha256.New(), sha256.New()
	zip, mediaType, err := compressor(io.MultiWriter(f, blob), s.Format)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := newContents(i, s).layer(tar.NewWriter(io.MultiWriter(zip, plain)), s, i); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := zip.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	info, err := f.Stat()
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	name := hex.EncodeToString(blob.Sum(nil))
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest("sha256:" + name), Size: info.Size()}
	return desc, digest.NewDigest(digest.SHA256, plain), os.Rename(tmp, filepath.Join(dir, "blobs/sha256", name))
}

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// compressor compresses as image builders do by default.
func compressor(w io.Writer, format string) (io.WriteCloser, string, error) {
	switch format {
	case "zstd":
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
		return z, ocispec.MediaTypeImageLayerZstd, err
	case "none":
		return plainWriter{w}, ocispec.MediaTypeImageLayer, nil
	default:
		z, err := gzip.NewWriterLevel(w, 6)
		return z, ocispec.MediaTypeImageLayerGzip, err
	}
}

// makeLayout writes one image of a given size as an OCI layout: for the figures
// in the VM.
func makeLayout(args []string) error {
	flags := flag.NewFlagSet("layout", flag.ContinueOnError)
	layers := flags.Int("layers", 3, "layers")
	files := flags.Int("files", 12000, "files")
	size := flags.Int64("bytes", 526<<20, "bytes, unpacked")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("name one directory")
	}
	return generate(flags.Arg(0), shape{Layers: *layers, Files: *files, Bytes: *size})
}

var when = time.Unix(1_700_000_000, 0)
