package vm_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/vm"
	"github.com/careen-project/careen/rootfs/ramdisk"
)

// someRamdisk is an image as somebody else may have built it, compressed: busybox,
// a merged /usr and an init that stops if what it mounts is there already.
func someRamdisk(t *testing.T) string {
	t.Helper()
	vm.Require(t)
	busybox, err := exec.LookPath("busybox")
	require.NoError(t, err)
	program, err := os.ReadFile(busybox)
	require.NoError(t, err)
	const script = `#!/usr/bin/busybox sh
/usr/bin/busybox --install -s /usr/bin
export PATH=/usr/bin
set -e
mkdir -p /proc /sys /run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
echo own init is through >/run/own-init
exec init
`
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	a := ramdisk.NewWriter(z)
	for _, e := range []ramdisk.Entry{
		{Path: "/usr/bin/busybox", Mode: ramdisk.TypeFile | 0o755, Size: int64(len(program)), Body: bytes.NewReader(program)},
		{Path: "/bin", Mode: ramdisk.TypeLink | 0o777, Target: "usr/bin"},
		{Path: "/init", Mode: ramdisk.TypeFile | 0o755, Size: int64(len(script)), Body: bytes.NewReader([]byte(script))},
		{Path: "/dev/console", Mode: ramdisk.TypeChar | 0o600, Major: 5, Minor: 1},
		{Path: "/dev/null", Mode: ramdisk.TypeChar | 0o666, Major: 1, Minor: 3},
		{Path: "/etc/inittab", Mode: ramdisk.TypeFile | 0o644, Size: 0},
	} {
		require.NoError(t, a.Add(e))
	}
	require.NoError(t, a.Close())
	require.NoError(t, z.Close())
	path := filepath.Join(t.TempDir(), "base")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// TestBootAnAppendedRamdisk boots images that were never unpacked: the kernel has
// to take both archives, and neither init may get in the other's way.
func TestBootAnAppendedRamdisk(t *testing.T) {
	t.Parallel()
	node, base := buildNode(t), someRamdisk(t)
	for _, compression := range []ramdisk.Compression{ramdisk.Gzip, ramdisk.Zstd} {
		t.Run(string(compression), func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			_, err := ramdisk.Append(t.Context(), ramdisk.AppendOptions{
				Base: base, Output: image, Binary: node, Compression: compression, Unit: ramdisk.UnitInit, Links: []string{"podman"},
			})
			require.NoError(t, err)
			guest := vm.Start(t, vm.Config{Memory: 512, Initramfs: image, Init: ramdisk.InitPath})
			guest.Await("[ -e /run/own-init ] && pidof careen")
			require.Equal(t, "init", guest.MustRun("cat /proc/1/comm"))
			require.Equal(t, "careen", guest.MustRun("readlink /usr/bin/podman"))
			require.Equal(t, "usr/bin", guest.MustRun("readlink /bin"), "the merged /usr has to stay")
		})
	}
}
