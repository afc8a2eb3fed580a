package file_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/file"
)

// writerEnv makes this test binary a process that replaces the file at its value
// again and again, until it is killed.
const writerEnv = "FILE_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		for i := byte(0); ; i++ {
			if err := file.Replace(path, content(i), 0o600, file.Volatile); err != nil {
				panic(err)
			}
			_, _ = os.Stdout.Write([]byte{i})
		}
	}
	os.Exit(m.Run())
}

// content is 64 KiB of one byte.
func content(b byte) []byte { return bytes.Repeat([]byte{b}, 64<<10) }

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

var durabilities = []file.Durability{file.Volatile, file.Whole, file.Stable}

func TestReplace(t *testing.T) {
	for _, d := range durabilities {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		require.NoError(t, file.Replace(path, []byte("first, longer"), 0o600, d))
		require.NoError(t, file.Replace(path, []byte("second"), 0o644, d))
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "second", string(data))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o644), info.Mode())
		require.Equal(t, []string{"f"}, names(t, dir))
	}
}

func TestReplaceInTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, file.Replace("f", []byte("x"), 0o600, file.Stable))
	require.Equal(t, []string{"f"}, names(t, "."))
}

func TestReplaceWithoutADirectory(t *testing.T) {
	dir := t.TempDir()
	err := file.Replace(filepath.Join(dir, "none", "f"), nil, 0o600, file.Stable)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Empty(t, names(t, dir))
}

func TestReplaceOfADirectoryFails(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "f"), 0o755))
	require.Error(t, file.Replace(filepath.Join(dir, "f"), nil, 0o600, file.Stable))
	require.Equal(t, []string{"f"}, names(t, dir))
}

func TestReplaceDoesNotFollowALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(target, []byte("kept"), 0o600))
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, file.Replace(link, []byte("new"), 0o600, file.Stable))
	data, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "kept", string(data))
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
}

func TestReplaceOnAFullFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a tmpfs")
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	path := filepath.Join(dir, "f")
	for _, d := range durabilities {
		require.NoError(t, file.Replace(path, []byte("old"), 0o600, d))
		require.ErrorIs(t, file.Replace(path, make([]byte, 1<<20), 0o600, d), unix.ENOSPC)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "old", string(data))
		require.Equal(t, []string{"f"}, names(t, dir), "nothing takes the room")
	}
}

func TestReplaceWithAWriterThatFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, file.Replace(path, []byte("old"), 0o600, file.Volatile))
	mine := errors.New("mine")
	err := file.ReplaceWith(path, 0o600, file.Stable, func(w io.Writer) error {
		_, err := w.Write([]byte("half"))
		return errors.Join(err, mine)
	})
	require.ErrorIs(t, err, mine)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(data))
	require.Equal(t, []string{"f"}, names(t, dir))
}

// A process is killed at any moment of a replacement: the file is whole each time.
func TestAKilledWriterLeavesAWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, file.Replace(path, content(0), 0o600, file.Volatile))
	for round := range 20 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = io.CopyN(io.Discard, out, int64(round+1)) // so many replacements are done
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content(data[0]), data)
	}
}

func TestReadLimited(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, []byte("12345"), 0o600))
	data, err := file.ReadLimited(path, 5)
	require.NoError(t, err)
	require.Equal(t, "12345", string(data))
	_, err = file.ReadLimited(path, 4)
	require.ErrorIs(t, err, file.ErrTooLarge)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "larger than 4 bytes")

	data, err = file.ReadLimited("/proc/filesystems", 1<<16) // a regular file of size 0
	require.NoError(t, err)
	require.NotEmpty(t, data)
}

func TestReadLimitedTakesRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	_, err := file.ReadLimited(filepath.Join(dir, "none"), 1)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = file.ReadLimited(dir, 1)
	require.ErrorContains(t, err, "not a regular file")
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	_, err = file.ReadLimited(filepath.Join(dir, "pipe"), 1)
	require.ErrorContains(t, err, "not a regular file")
	_, err = file.ReadLimited("/dev/zero", 1)
	require.ErrorContains(t, err, "not a regular file")

	require.NoError(t, os.Symlink(os.DevNull, filepath.Join(dir, "masked")))
	data, err := file.ReadLimited(filepath.Join(dir, "masked"), 1)
	require.NoError(t, err)
	require.Empty(t, data)
}

func TestReadWord(t *testing.T) {
	require.Equal(t, "Linux", file.ReadWord("/proc/sys/kernel/ostype"))
	require.Empty(t, file.ReadWord("/proc/sys/kernel/none"))
}

func TestReadAllLimited(t *testing.T) {
	data, err := file.ReadAllLimited(strings.NewReader("123"), 3)
	require.NoError(t, err)
	require.Equal(t, "123", string(data))
	_, err = file.ReadAllLimited(strings.NewReader("1234"), 3)
	require.ErrorIs(t, err, file.ErrTooLarge)
	mine := errors.New("mine")
	_, err = file.ReadAllLimited(io.MultiReader(strings.NewReader("1"), errReader{mine}), 3)
	require.ErrorIs(t, err, mine)
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
