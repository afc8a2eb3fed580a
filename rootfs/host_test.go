package rootfs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs"
)

func TestHostReadFile(t *testing.T) {
	host, dir := rootfs.Host(), t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("12345"), 0o600))

	data, err := host.ReadFile(file, 5)
	require.NoError(t, err)
	require.Equal(t, "12345", string(data))

	_, err = host.ReadFile(file, 4)
	require.ErrorContains(t, err, "larger than 4 bytes")
	_, err = host.ReadFile(filepath.Join(dir, "absent"), 4)
	require.ErrorIs(t, err, fs.ErrNotExist)

	// A pipe that nobody writes to must not hang the agent.
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	_, err = host.ReadFile(pipe, 4)
	require.ErrorContains(t, err, "not a regular file")

	data, err = host.ReadFile(os.DevNull, 4)
	require.NoError(t, err)
	require.Empty(t, data)
}

func TestHostDevice(t *testing.T) {
	d, err := rootfs.Host().Device("/dev/null")
	require.NoError(t, err)
	require.Equal(t, "c", d.Type)
	require.Equal(t, [2]int64{1, 3}, [2]int64{d.Major, d.Minor})
	require.Equal(t, os.FileMode(0o666), *d.FileMode)

	_, err = rootfs.Host().Device("/etc")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, err = rootfs.Host().Device("/dev/absent")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestHostMountFlags(t *testing.T) {
	_, err := rootfs.Host().MountFlags("/absent")
	require.ErrorIs(t, err, fs.ErrNotExist)
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("t", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, ""))
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	flags, err := rootfs.Host().MountFlags(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"nosuid", "noexec"}, flags)
}

func TestHostLookupUser(t *testing.T) {
	for _, name := range []string{"root", "0"} {
		line, err := rootfs.Host().LookupUser(name)
		require.NoError(t, err)
		require.Regexp(t, `^root:[^:]*:0:0:`, line)
	}
	_, err := rootfs.Host().LookupUser("nobody-has-this-name")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestGatherNode(t *testing.T) {
	node, err := rootfs.GatherNode()
	require.NoError(t, err)
	name, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, name, node.Hostname)
	require.Equal(t, runtime.GOARCH, node.SeccompArch)
	require.Positive(t, node.CPUs)
	require.Positive(t, node.MemNodes)
	require.Positive(t, node.PidMax)
	require.Equal(t, rootfs.DetectCgroups() == rootfs.CgroupV2, node.CgroupV2)
	paths := map[string]bool{}
	for _, d := range node.Devices {
		paths[d.Path] = true
	}
	require.True(t, paths["/dev/null"])
	require.False(t, paths["/dev/console"] || paths["/dev/pts/0"], "%v", paths)
}
