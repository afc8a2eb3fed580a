package image_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

// holes are files with data at some places, a page each.
var holes = []struct {
	name string
	size int64
	data []int64
}{
	{"start", 40 << 20, []int64{0}},
	{"middle", 40 << 20, []int64{1 << 20, 20 << 20}},
	{"end", 40 << 20, []int64{40<<20 - 4096}},
	{"nothing", 40 << 20, nil},
	// More than fits the size of a plain tar header, and than 4 GiB.
	{"huge", 9 << 30, []int64{5 << 30, 9<<30 - 4096}},
}

// TestSparse pulls layers of GNU tar's sparse formats and compares with what GNU
// tar unpacks: length, data, time, and that holes take no room.
func TestSparse(t *testing.T) {
	from := t.TempDir()
	page := bytes.Repeat([]byte("x"), 4096)
	for _, h := range holes {
		f, err := os.Create(filepath.Join(from, h.name))
		require.NoError(t, err)
		require.NoError(t, f.Truncate(h.size))
		for _, at := range h.data {
			_, err := f.WriteAt(page, at)
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
	}
	for _, format := range []string{"gnu", "pax"} {
		t.Run(format, func(t *testing.T) {
			s := newStore(t, "64m")
			var stderr strings.Builder
			cmd := exec.Command("tar", "--create", "--sparse", "--format="+format, "--directory="+from, ".")
			cmd.Stderr = &stderr
			stream, err := cmd.Output()
			require.NoError(t, err, "%s", &stderr)
			dir := t.TempDir()
			registry.NewImage(t, []registry.Layer{registry.NewLayer(t, stream, registry.Gzip)}).WriteLayout(t, dir, "latest")
			img, err := newPuller(t, s).Pull(s.ctx, &image.Request{Original: "oci:" + dir, Transport: image.OCI, Path: dir}, nil)
			require.NoError(t, err)
			require.Less(t, img.Size, int64(1<<20), "holes are not stored")
			unpacked := t.TempDir()
			cmd = exec.Command("tar", "--extract", "--directory="+unpacked)
			cmd.Stdin = bytes.NewReader(stream)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			s.view(t, "overlayfs", img.ChainID, func(root string) {
				for _, h := range holes {
					sameSparse(t, filepath.Join(unpacked, h.name), filepath.Join(root, h.name), h.data)
				}
			})
		})
	}
}

func sameSparse(t *testing.T, want, got string, data []int64) {
	t.Helper()
	wantInfo, err := os.Stat(want)
	require.NoError(t, err)
	gotInfo, err := os.Stat(got)
	require.NoError(t, err, got)
	require.Equal(t, wantInfo.Size(), gotInfo.Size(), got)
	require.Equal(t, wantInfo.Mode(), gotInfo.Mode(), got)
	require.Equal(t, wantInfo.ModTime().Unix(), gotInfo.ModTime().Unix(), got)
	require.LessOrEqual(t, gotInfo.Sys().(*syscall.Stat_t).Blocks*512, int64(len(data)+1)*4096, "%s: holes take no room", got)
	a, err := os.Open(want)
	require.NoError(t, err)
	defer a.Close()
	b, err := os.Open(got)
	require.NoError(t, err)
	defer b.Close()
	// The data, and the holes beside it.
	for _, at := range append([]int64{0, wantInfo.Size() - 8192}, data...) {
		at = max(0, at-4096)
		one, two := make([]byte, 3*4096), make([]byte, 3*4096)
		n, _ := a.ReadAt(one, at)
		m, _ := b.ReadAt(two, at)
		require.Equal(t, n, m, got)
		require.True(t, bytes.Equal(one[:n], two[:m]), "%s at %d", got, at)
	}
}
