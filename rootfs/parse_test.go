package rootfs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseModulesDep(t *testing.T) {
	dep := []byte("kernel/fs/overlayfs/overlay.ko:\n" +
		"kernel/fs/xfs/xfs.ko.zst: kernel/lib/libcrc32c.ko.zst\n" +
		"kernel/net/a-b.ko.xz: kernel/c.ko.xz kernel/d.ko.xz\n" +
		"broken line\n")
	for _, tt := range []struct {
		name string
		want []string
	}{
		{"overlay", []string{"kernel/fs/overlayfs/overlay.ko"}},
		{"xfs", []string{"kernel/lib/libcrc32c.ko.zst", "kernel/fs/xfs/xfs.ko.zst"}},
		{"a_b", []string{"kernel/d.ko.xz", "kernel/c.ko.xz", "kernel/net/a-b.ko.xz"}},
		{"a-b", []string{"kernel/d.ko.xz", "kernel/c.ko.xz", "kernel/net/a-b.ko.xz"}},
		{"over", nil},
		{"", nil},
	} {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, parseModulesDep(dep, tt.name)) })
	}
}

func FuzzParseModulesDep(f *testing.F) {
	f.Add([]byte("kernel/x.ko: kernel/y.ko\n"), "x")
	f.Add([]byte(":::\n:"), "")
	f.Fuzz(func(t *testing.T, dep []byte, name string) {
		for _, file := range parseModulesDep(dep, name) {
			require.NotContains(t, file, "\n")
		}
	})
}

func TestCountList(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8,10-11": 7, "": 0, "x": 0, "3-1": 0, "0-": 0} {
		require.Equal(t, want, countList(list), list)
	}
}

func TestUnpackModuleRefusesUnknownFormats(t *testing.T) {
	_, err := unpackModule(strings.NewReader("x"), "x.ko.lz4")
	require.ErrorContains(t, err, `unknown compression ".lz4"`)
	for _, name := range []string{"x.ko.gz", "x.ko.xz", "x.ko.zst"} {
		_, err := unpackModule(strings.NewReader("not compressed at all"), name)
		require.Error(t, err, name)
	}
}

func FuzzUnpackModule(f *testing.F) {
	f.Add([]byte{0x1f, 0x8b, 8, 0}, uint8(0))
	f.Add([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, uint8(1))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd}, uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		name := []string{"x.ko.gz", "x.ko.xz", "x.ko.zst"}[kind%3]
		image, err := unpackModule(strings.NewReader(string(data)), name)
		if err == nil {
			require.LessOrEqual(t, len(image), maxModule)
		}
	})
}
