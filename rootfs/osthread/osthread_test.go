package osthread_test

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/osthread"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunReturnsTheError(t *testing.T) {
	mine := errors.New("mine")
	require.ErrorIs(t, osthread.Run(func() error { return mine }), mine)
	require.NoError(t, osthread.Run(func() error { return nil }))
}

// Run never takes the process's first thread, even when all others are busy.
func TestRunAvoidsTheFirstThread(t *testing.T) {
	for range 100 {
		require.NoError(t, osthread.Run(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the first thread")
			}
			return nil
		}))
	}
}

func TestRunChangesNoOtherThread(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes a mount namespace")
	}
	before, err := os.Readlink("/proc/self/ns/mnt")
	require.NoError(t, err)
	var inside string
	require.NoError(t, osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		var err error
		inside, err = os.Readlink("/proc/thread-self/ns/mnt")
		return err
	}))
	require.NotEqual(t, before, inside)
	for range 20 {
		after, err := os.Readlink("/proc/thread-self/ns/mnt")
		require.NoError(t, err)
		require.Equal(t, before, after)
	}
}
