package seccomp_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/runtime/seccomp"
)

type profile struct{ Default string }

// size is the number of bytes in the file.
func size(t *testing.T, f *seccomp.Program) int64 {
	t.Helper()
	info, err := f.File.Stat()
	require.NoError(t, err)
	return info.Size()
}

func TestAProgramIsStoredForItsProfileOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "programs")
	program := bytes.Repeat([]byte("8 octets"), 3)

	first, err := seccomp.Open(dir, profile{"deny"})
	require.NoError(t, err)
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", first.File.Fd()))
	require.NoError(t, err)
	assert.Equal(t, seccomp.Link, link, "the init finds the file by this name")
	assert.Zero(t, size(t, first))
	_, err = first.File.Write(program) // the init
	require.NoError(t, err)
	require.NoError(t, first.Store())

	again, err := seccomp.Open(dir, profile{"deny"})
	require.NoError(t, err)
	got := make([]byte, 100)
	n, _ := again.File.ReadAt(got, 0)
	assert.Equal(t, program, got[:n])
	require.NoError(t, again.Store())

	other, err := seccomp.Open(dir, profile{"allow"})
	require.NoError(t, err)
	assert.Zero(t, size(t, other))
	require.NoError(t, other.Store(), "an init that wrote nothing")

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	info, err := entries[0].Info()
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestAFileThatIsNoProgramIsNotUsed(t *testing.T) {
	for name, content := range map[string][]byte{
		"empty": {}, "cut": []byte("1234567"), "longer than the kernel takes": make([]byte, 8*4097),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f, err := seccomp.Open(dir, profile{"deny"})
			require.NoError(t, err)
			_, err = f.File.Write(make([]byte, 8))
			require.NoError(t, err)
			require.NoError(t, f.Store())
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 1)
			require.NoError(t, os.WriteFile(filepath.Join(dir, entries[0].Name()), content, 0o600))

			f, err = seccomp.Open(dir, profile{"deny"})
			require.NoError(t, err)
			assert.Zero(t, size(t, f))
			require.NoError(t, f.Close())
		})
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		f, err := seccomp.Open(dir, profile{fmt.Sprint(i)})
		require.NoError(t, err)
		_, err = f.File.Write(make([]byte, 8))
		require.NoError(t, err)
		require.NoError(t, f.Store())
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 64)
}
