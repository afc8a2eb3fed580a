package harness

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// OwnEtcContainers gives the test, and every process that it starts from here on, a mount
// namespace with an empty /etc/containers. The function that is returned writes a file
// there. The test must not be a parallel one, and has to start processes by itself, not
// in goroutines.
func OwnEtcContainers(t testing.TB) func(name, body string) {
	t.Helper()
	NeedRoot(t)
	// The namespace is the thread's. Never unlocked, the thread ends with the test.
	runtime.LockOSThread()
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNS))
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	const dir = "/etc/containers"
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
	return func(name, body string) {
		t.Helper()
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(body), 0o644))
	}
}
