package registry

import (
	"archive/tar"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func parsePlatform(name string) *ocispec.Platform {
	parts := append(strings.Split(name, "/"), "", "")
	return &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

// WriteLayout writes the image as an OCI layout directory under a tag.
func (i *Image) WriteLayout(t testing.TB, dir, tag string) {
	t.Helper()
	blobs := filepath.Join(dir, "blobs/sha256")
	require.NoError(t, os.MkdirAll(blobs, 0o755))
	write := func(path string, body []byte) { require.NoError(t, os.WriteFile(path, body, 0o644)) }
	for _, b := range i.Blobs {
		write(filepath.Join(blobs, digest.FromBytes(b).Encoded()), b)
	}
	for _, m := range i.Manifests {
		write(filepath.Join(blobs, digest.FromBytes(m.Body).Encoded()), m.Body)
	}
	top := i.Manifests[len(i.Manifests)-1]
	desc := descriptor(top.MediaType, top.Body)
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{desc}})
	require.NoError(t, err)
	write(filepath.Join(dir, "index.json"), index)
	write(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

// WriteOCIArchive writes the image as a tar of an OCI layout.
func (i *Image) WriteOCIArchive(t testing.TB, file, tag string) {
	t.Helper()
	dir := t.TempDir()
	i.WriteLayout(t, dir, tag)
	writeTar(t, file, func(w *tar.Writer) { require.NoError(t, w.AddFS(os.DirFS(dir))) })
}

// WriteDockerArchive writes the image as "docker save" does: uncompressed
// layers, a configuration and manifest.json. The streams are the layers' tars.
func (i *Image) WriteDockerArchive(t testing.TB, file, tag string, streams [][]byte) {
	t.Helper()
	config := i.Blobs[0]
	writeTar(t, file, func(w *tar.Writer) {
		add := func(name string, body []byte) {
			require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body)), ModTime: Epoch}))
			_, err := w.Write(body)
			require.NoError(t, err)
		}
		item := map[string]any{"Config": digest.FromBytes(config).Encoded() + ".json", "RepoTags": []string{tag}}
		var layers []string
		for _, s := range streams {
			name := digest.FromBytes(s).Encoded() + "/layer.tar"
			layers = append(layers, name)
			add(name, s)
		}
		item["Layers"] = layers
		add(item["Config"].(string), config)
		body, err := json.Marshal([]any{item})
		require.NoError(t, err)
		add("manifest.json", body)
	})
}

func writeTar(t testing.TB, file string, fill func(*tar.Writer)) {
	t.Helper()
	f, err := os.Create(file)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	fill(w)
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
}
