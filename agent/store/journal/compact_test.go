package journal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/store/journal"
)

// TestTheOldestKeysAreTrimmed: by when they were first recorded.
func TestTheOldestKeysAreTrimmed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	j, err := journal.Open(dir, nil)
	require.NoError(t, err)
	for _, key := range []string{"a", "b", "c", "a", "d"} {
		require.NoError(t, j.Put(key, key))
	}
	require.NoError(t, j.Trim(2))
	require.NoError(t, j.Close())
	j, err = journal.Open(dir, nil)
	require.NoError(t, err)
	for key, want := range map[string]bool{"a": false, "b": false, "c": true, "d": true} {
		_, ok := j.Get(key)
		require.Equal(t, want, ok, key)
	}
	require.NoError(t, j.Close())
}

// TestARecordIsNotRefusedForWantOfCompaction: where there is no room for a second
// journal beside the first, records go on being written.
func TestARecordIsNotRefusedForWantOfCompaction(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, nil)
	require.NoError(t, err)
	// What is in the way of the new file, as a full disk would be.
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "journal.jsonl.new", "full"), 0o700))
	big := strings.Repeat("x", 100<<10)
	for range 30 {
		require.NoError(t, j.Put("run", big))
	}
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal.jsonl.new")))
	for range 12 { // until it is tried again
		require.NoError(t, j.Put("run", big))
	}
	info, err := os.Stat(filepath.Join(dir, "journal.jsonl"))
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(2<<20), "compacted once there was room")
	require.NoError(t, j.Close())
}
