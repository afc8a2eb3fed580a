package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// shape says what an image is made of.
type shape struct {
	Name   string
	Layers int
	Files  int
	Bytes  int64 // unpacked
	Empty  bool  // one file more, all zeros, that makes up for Bytes
}

// tool is the image that the project's figures are about.
var tool = shape{Name: "tool", Layers: 3, Files: 12000, Bytes: 526 << 20}

// writer makes an OCI layout that holds one image.
type writer struct {
	dir   string
	rng   *rand.Rand
	words [][]byte
}

// generate writes the image as an OCI layout to dir, if it is not there.
func generate(dir string, s shape) error {
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
		return nil
	}
	blobs := filepath.Join(dir, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	w := &writer{dir: dir, rng: rand.New(rand.NewPCG(20, 26))} //nolint:gosec // the same image every time
	for range 4000 {
		word := make([]byte, 2+w.rng.IntN(9))
		for i := range word {
			word[i] = "etaoinshrdlcumwfgypbvkjxqz_-./=0123456789"[min(w.rng.IntN(41), w.rng.IntN(41))]
		}
		w.words = append(w.words, word)
	}
	var manifest ocispec.Manifest
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	config.RootFS.Type = "layers"
	config.Config.Cmd = []string{"/bin/true"}
	for i := range s.Layers {
		desc, diff, err := w.layer(s, i)
		if err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diff)
	}
	manifest.Versioned = specs.Versioned{SchemaVersion: 2}
	manifest.MediaType = ocispec.MediaTypeImageManifest
	var err error
	if manifest.Config, err = w.document(config, ocispec.MediaTypeImageConfig); err != nil {
		return err
	}
	top, err := w.document(manifest, manifest.MediaType)
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

func (w *writer) document(v any, mediaType string) (ocispec.Descriptor, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	return desc, os.WriteFile(filepath.Join(w.dir, "blobs/sha256", desc.Digest.Encoded()), body, 0o644)
}

func (w *writer) layer(s shape, i int) (ocispec.Descriptor, digest.Digest, error) {
	tmp := filepath.Join(w.dir, "layer.tmp")
	f, err := os.Create(tmp)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer f.Close()
	blob, plain := sha256.New(), sha256.New()
	zip, err := gzip.NewWriterLevel(io.MultiWriter(f, blob), 6)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := w.files(tar.NewWriter(io.MultiWriter(zip, plain)), s, i); err != nil {
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
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.Digest("sha256:" + name), Size: info.Size()}
	return desc, digest.NewDigest(digest.SHA256, plain), os.Rename(tmp, filepath.Join(w.dir, "blobs/sha256", name))
}

// files writes one layer: half of the image in the first, the rest in equal
// parts, files of very different sizes, in directories of about 100.
func (w *writer) files(t *tar.Writer, s shape, layer int) error {
	share := func(all int64) int64 {
		if s.Layers == 1 {
			return all
		}
		if layer == 0 {
			return all / 2
		}
		return all / 2 / int64(s.Layers-1)
	}
	files, left := share(int64(s.Files)), share(s.Bytes)
	if s.Empty {
		left = files * 512
	}
	when := time.Unix(1_700_000_000, 0)
	write := func(h *tar.Header, body []byte) error {
		h.ModTime = when
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := t.Write(body)
		return err
	}
	for n := range files {
		dir := fmt.Sprintf("usr/lib/l%d/d%d/", layer, n/100)
		if n%100 == 0 {
			if err := write(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil); err != nil {
				return err
			}
		}
		mean := left / (files - n)
		// Nine of ten are small, the tenth takes what they leave.
		size := mean / 8
		if n%10 == 9 || n == files-1 {
			size = min(left, mean*4)
		}
		if n == files-1 {
			size = left
		}
		left -= size
		body := w.body(size, n%5 < 3)
		if err := write(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%sf%d", dir, n), Mode: 0o644, Size: size}, body); err != nil {
			return err
		}
	}
	if s.Empty && layer == 0 {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: s.Bytes, ModTime: when}); err != nil {
			return err
		}
		zeros := make([]byte, 1<<20)
		for n := s.Bytes; n > 0; n -= int64(len(zeros)) {
			if _, err := t.Write(zeros[:min(n, int64(len(zeros)))]); err != nil {
				return err
			}
		}
	}
	return t.Close()
}

// body makes text of words, some much more frequent than others, or something
// like machine code: a few opcodes, many operands, repeated stretches.
func (w *writer) body(size int64, binary bool) []byte {
	var b bytes.Buffer
	b.Grow(int(size) + 64)
	for int64(b.Len()) < size {
		if !binary {
			b.Write(w.words[min(w.rng.IntN(len(w.words)), w.rng.IntN(len(w.words)), w.rng.IntN(len(w.words)))])
			b.WriteByte(" \n"[min(w.rng.IntN(8)/7, 1)])
			continue
		}
		if b.Len() > 4096 && w.rng.IntN(6) == 0 {
			from := b.Len() - 1 - w.rng.IntN(4000)
			b.Write(b.Bytes()[from:min(from+16+w.rng.IntN(48), b.Len())])
			continue
		}
		for range 8 {
			b.WriteByte("\x48\x89\x8b\x0f\xe8\x00\x24\xff"[w.rng.IntN(8)])
			v := w.rng.Uint32()
			b.WriteByte(byte(v))
			b.WriteByte(byte(v >> 8))
		}
	}
	return b.Bytes()[:size]
}
