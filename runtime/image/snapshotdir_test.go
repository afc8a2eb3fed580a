package image_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

// TestReachIsFoundOut pulls without being told whether containerd's directories
// can be reached. That they were is seen by the times: containerd's own diff
// service does not give the root of an image its attributes.
func TestReachIsFoundOut(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, _ := reg.Push(t, "team/tool:1", layersOf(t, "root attributes", registry.Gzip))
	for _, indirect := range []bool{false, true} {
		p := newPuller(t, s, func(c *image.Config) { c.DirectApply, c.Indirect = false, indirect })
		img, err := p.Pull(s.ctx, insecure(request(ref)), nil)
		require.NoError(t, err)
		s.view(t, "overlayfs", img.ChainID, func(root string) {
			lines := tree(t, root)
			direct := slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, `"." drwxr-x---`) })
			require.Equal(t, !indirect, direct, lines[0])
		})
		require.NoError(t, p.Delete(s.ctx, img.Name))
		require.Empty(t, s.contents(t))
	}
}
