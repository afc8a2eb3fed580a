package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestPeers runs an image on two nodes: the second has the layer from the first, which
// goes away in the end.
func TestPeers(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	busybox := harness.Busybox(t)
	image, _ := reg.Push(t, tag, busybox)
	size := float64(len(busybox.Layers[0].Blob))
	config := func(text string) harness.Option {
		file := filepath.Join(t.TempDir(), "careen.toml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return harness.WithFlags("--config", file)
	}
	first := harness.Start(t, config("[peers]\nserve = \"127.0.0.1:0\"\n"))
	run := []string{"run", "--rm", "--net=host", "--tls-verify=false", image, "true"}
	require.Zero(t, first.Careen(run...).Code)
	assert.Equal(t, size, first.Metric("careen_peer_kept_bytes"))
	found := regexp.MustCompile(`gives layers on ([0-9.:]+)`).FindStringSubmatch(first.Get("/v1/health"))
	require.NotNil(t, found, first.Get("/v1/health"))

	layer := "/blobs/" + digest.FromBytes(busybox.Layers[0].Blob).String()
	reg.Faults.Status(layer, -1, 429)
	second := harness.Start(t, config(fmt.Sprintf("[pull]\njitter = \"300ms\"\n[peers]\nfrom = [\"http://127.0.0.1:1\", \"http://%s\"]\n", found[1])))
	got := second.Careen(run...)
	require.Zero(t, got.Code, "%s", got)
	assert.Contains(t, got.Stderr, "pull: waiting for its turn")
	assert.Contains(t, got.Stderr, "from peers")
	assert.Equal(t, 1, reg.Faults.Count(layer))
	assert.Equal(t, size, second.Metric("careen_pull_peer_bytes_total"))
	assert.Equal(t, size, first.Metric("careen_peer_sent_bytes_total"))
	shown := second.Careen("config")
	assert.Regexp(t, `pull.jitter +\S+careen.toml:1 +300ms`, shown.Stdout)

	// The node that serves an image does not have to have it: what it keeps is apart.
	require.Zero(t, first.Careen("rmi", image).Code)
	assert.Equal(t, size, first.Metric("careen_peer_kept_bytes"))
	require.Zero(t, first.Stop())
	require.Zero(t, second.Careen("rmi", image).Code)
	reg.Faults.Clear()
	got = second.Careen(run...)
	require.Zero(t, got.Code, "the registry gives what no peer does: %s", got)
	assert.Equal(t, 2, reg.Faults.Count(layer))
}
