package container_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/runtime/container"
)

func TestAnExitRecordIsReadBack(t *testing.T) {
	d := container.Dir(t.TempDir())
	_, err := d.ReadExit("one")
	require.ErrorIs(t, err, fs.ErrNotExist)
	exit := container.Exit{Code: 137, Signal: 9, OOMKilled: true, Reboot: "halt", Killed: 2,
		ExitedAt: time.Now().UTC().Truncate(time.Microsecond), Ran: time.Minute}
	require.NoError(t, d.WriteExit("one", exit, false))
	got, err := d.ReadExit("one")
	require.NoError(t, err)
	assert.Equal(t, exit, got)
}

func TestTheFirstExitRecordStays(t *testing.T) {
	d := container.Dir(t.TempDir())
	require.NoError(t, d.WriteExit("one", container.Exit{Code: 3}, false))
	require.NoError(t, d.WriteExit("one", container.Exit{Code: 137}, true))
	got, err := d.ReadExit("one")
	require.NoError(t, err)
	assert.Equal(t, 3, got.Code)
}

func TestTheExitRecordOfAnotherContainerIsIgnored(t *testing.T) {
	d := container.Dir(t.TempDir())
	require.NoError(t, d.WriteExit("one", container.Exit{Code: 3}, false))
	_, err := d.ReadExit("two")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, d.WriteExit("two", container.Exit{}, true))
	_, err = d.ReadExit("two")
	require.ErrorIs(t, err, container.ErrLost)
	require.NoError(t, d.Reset())
	_, err = d.ReadExit("two")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, d.Reset(), "again")
}

// A container outlives the agent that made it, so its shim may be older.
func TestTheExitRecordOfAnOlderShimIsRead(t *testing.T) {
	d := container.Dir(t.TempDir())
	old := `{"code":137,"signal":9,"oom_kills":2,"exited_at":"2026-11-28T22:00:00Z","ran":1000,"leftover":1}`
	require.NoError(t, os.WriteFile(filepath.Join(string(d), "exit.json"), []byte(old), 0o600))
	got, err := d.ReadExit("one")
	require.NoError(t, err)
	assert.Equal(t, container.Exit{Code: 137, Signal: 9, OOMKilled: true, Killed: 1, Ran: 1000,
		ExitedAt: time.Date(2026, 11, 28, 22, 0, 0, 0, time.UTC)}, got)
}

func TestClearKeepsWhatTheAgentReadsLater(t *testing.T) {
	d := container.Dir(t.TempDir())
	for _, dir := range []string{d.Log(), d.Control(), filepath.Join(d.Bundle(), "rootfs"), d.State()} {
		require.NoError(t, os.MkdirAll(dir, 0o700))
	}
	require.NoError(t, d.WriteExit("one", container.Exit{}, false))
	for _, file := range []string{d.Spec(), d.Inputs(), d.Before(), d.Claim(), filepath.Join(d.Log(), "0000000001.log")} {
		require.NoError(t, os.WriteFile(file, nil, 0o600))
	}
	require.NoError(t, d.Clear())
	var left []string
	entries, err := os.ReadDir(string(d))
	require.NoError(t, err)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	assert.Equal(t, []string{"before.json", "exit.json", "log"}, left)
	require.NoError(t, d.Remove())
	assert.NoDirExists(t, string(d))
	require.NoError(t, d.Remove(), "again")
	require.NoError(t, d.Clear(), "of a directory that is gone")
}

func TestRemoveDescendsIntoNothingButTheLog(t *testing.T) {
	d := container.Dir(t.TempDir())
	file := filepath.Join(d.Control(), "of-the-node")
	require.NoError(t, os.MkdirAll(d.Control(), 0o700))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, d.Remove(), "not empty")
	assert.FileExists(t, file)
}

func TestAnExitInWords(t *testing.T) {
	for want, exit := range map[string]container.Exit{
		"exit code 3": {Code: 3},
		"ended by SIGKILL, the kernel killed for its memory": {Code: 137, Signal: 9, OOMKilled: true},
		"ended by SIGHUP, it called reboot(2)":               {Code: 129, Signal: 1, Reboot: "restart"},
		"exit code 0, 2 processes outlived the first":        {Killed: 2},
	} {
		assert.Equal(t, want, exit.String())
	}
}
