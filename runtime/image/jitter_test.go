package image_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

// twoLayers is an image of two layers of a megabyte.
func twoLayers(t testing.TB) *registry.Image {
	return registry.NewImage(t, []registry.Layer{
		registry.NewLayer(t, registry.Tar(t, registry.File("a", string(noise(1<<20)))), registry.Gzip),
		registry.NewLayer(t, registry.Tar(t, registry.File("b", string(noise(1 << 20)[7:]))), registry.Gzip),
	})
}

func layerRequests(reg *registry.Registry, built *registry.Image) int {
	n := 0
	for i := range built.Layers {
		n += reg.Faults.Count(layerPath(built, i))
	}
	return n
}

// TestJitter waits before layers are fetched, and only then.
func TestJitter(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	built := simple(t)
	ref, _ := reg.Push(t, "team/fw:1", built)
	short := newPuller(t, s, func(c *image.Config) { c.Jitter = time.Millisecond })
	long := newPuller(t, s, func(c *image.Config) { c.Jitter = 1000 * time.Hour })

	ctx, abort := context.WithCancel(s.ctx)
	said := ""
	_, err := long.Pull(ctx, insecure(request(ref)), func(p image.Progress) {
		if p.Status == "waiting" {
			said = p.Message
			abort()
		}
	})
	require.Equal(t, fault.Aborted, fault.CodeOf(err), "%v", err)
	require.Contains(t, said, "its turn")
	require.Zero(t, layerRequests(reg, built))
	require.Empty(t, s.contents(t))

	var states []string
	_, err = short.Pull(s.ctx, insecure(request(ref)), func(p image.Progress) {
		if len(states) == 0 || states[len(states)-1] != p.Status {
			states = append(states, p.Status)
		}
	})
	require.NoError(t, err)
	require.Equal(t, []string{"resolving", "waiting"}, states[:2])
	require.Equal(t, "done", states[len(states)-1])

	// What is present is not waited for, nor what is on the node.
	req := insecure(request(ref))
	req.Policy = image.Always
	_, err = long.Pull(s.ctx, req, nil)
	require.NoError(t, err)
	dir := t.TempDir()
	twoLayers(t).WriteLayout(t, dir, "1")
	_, err = long.Pull(s.ctx, &image.Request{Original: "oci:" + dir, Transport: image.OCI, Path: dir}, nil)
	require.NoError(t, err)
}
