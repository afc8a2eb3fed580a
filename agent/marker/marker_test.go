package marker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
)

func TestWriteReadClear(t *testing.T) {
	dir := t.TempDir()
	for kind, b := range map[string]*Marker{
		"file":   {kind: "file", path: filepath.Join(dir, "esp", "careen")},
		"efivar": {kind: "efivar", path: filepath.Join(dir, "CareenRun"+efiVendor)},
	} {
		t.Run(kind, func(t *testing.T) {
			require.NoError(t, os.MkdirAll(filepath.Dir(b.path), 0o700))
			data, err := b.Read()
			require.NoError(t, err)
			require.Nil(t, data)
			for _, text := range []string{`{"run":"a"}`, `{"run":"longer than that"}`, `{"run":"b"}`} {
				require.NoError(t, b.Write([]byte(text)))
				data, err = b.Read()
				require.NoError(t, err)
				require.Equal(t, text, string(data))
			}
			require.Error(t, b.Write([]byte(strings.Repeat("x", MaxSize+1))))
			require.Error(t, b.Write([]byte("a\nb")))
			require.NoError(t, b.Clear())
			require.NoError(t, b.Clear())
			data, err = b.Read()
			require.NoError(t, err)
			require.Nil(t, data)
		})
	}
}

func TestEFIVariableStartsWithAttributes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	b := &Marker{kind: "efivar", path: path}
	require.NoError(t, b.Write([]byte("x")))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, []byte{7, 0, 0, 0, 'x'}, data)
}

// TestPstore acts the kernel's part: what was written to the device in one boot is
// a file in the next.
func TestPstore(t *testing.T) {
	dir := t.TempDir()
	b := &Marker{kind: "pstore", path: filepath.Join(dir, "pmsg0"), found: filepath.Join(dir, "pstore")}
	require.NoError(t, os.Mkdir(b.found, 0o700))
	reboot := func() {
		require.NoError(t, os.RemoveAll(filepath.Join(b.found, "pmsg-ramoops-0")))
		if _, err := os.Stat(b.path); err == nil {
			require.NoError(t, os.Rename(b.path, filepath.Join(b.found, "pmsg-ramoops-0")))
		}
		require.NoError(t, os.WriteFile(b.path, nil, 0o600))
	}
	reboot()
	require.NoError(t, b.Write([]byte(`{"run":"a"}`)))
	reboot()
	data, err := b.Read()
	require.NoError(t, err)
	require.Equal(t, `{"run":"a"}`, string(data))
	require.NoError(t, b.Clear())
	data, err = b.Read()
	require.NoError(t, err)
	require.Nil(t, data)
	reboot()
	data, err = b.Read()
	require.NoError(t, err)
	require.Nil(t, data, "what was cleared does not come back")
}

func TestOpen(t *testing.T) {
	b, err := Open("file:" + filepath.Join(t.TempDir(), "x"))
	require.NoError(t, err)
	require.NoError(t, b.Write([]byte("x")))
	for _, spec := range []string{"", "file:", "file:relative", "tape", "efivar:a/b", "pstore:x"} {
		_, err := Open(spec)
		require.Equal(t, fault.BadConfig, fault.CodeOf(err), "%q: %v", spec, err)
	}
	_, err = Open("file:/no/such/directory/x")
	require.Equal(t, fault.Node, fault.CodeOf(err))
}
