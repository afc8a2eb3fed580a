package untar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image/unpack/untar"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes device nodes and files of other owners")
	}
}

func unpack(t testing.TB, dir string, stream []byte, opts untar.Options) error {
	t.Helper()
	l, err := untar.New(dir, opts)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	if err := l.Extract(context.Background(), bytes.NewReader(stream)); err != nil {
		return err
	}
	return l.Finish(nil)
}

func TestManyDirectories(t *testing.T) {
	needRoot(t)
	// More directories than stay open, each used again after others.
	var e []registry.Entry
	for round := range 3 {
		for i := range 200 {
			name := strings.Repeat("d", 1+i%7) + string(rune('a'+i%26)) + strings.Repeat("x", i)
			e = append(e, registry.File(name+"/f"+string(rune('0'+round)), name))
			if round > 0 {
				e = append(e, registry.Link(name+"/l"+string(rune('0'+round)), strings.Repeat("d", 1)+"a/f0"))
			}
		}
	}
	dir := t.TempDir()
	require.NoError(t, unpack(t, dir, registry.Tar(t, e...), untar.Options{}))
	names, err := filepath.Glob(filepath.Join(dir, "*/f2"))
	require.NoError(t, err)
	require.Len(t, names, 200)
	linked, err := filepath.Glob(filepath.Join(dir, "*/l2"))
	require.NoError(t, err)
	require.Len(t, linked, 200)
}

func TestOverlayAttributesAreNotTaken(t *testing.T) {
	needRoot(t)
	e := registry.Dir("d")
	e.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.trusted.overlay.opaque": "y"}
	dir := t.TempDir()
	require.NoError(t, unpack(t, dir, registry.Tar(t, e), untar.Options{}))
	require.Empty(t, xattrs(t, filepath.Join(dir, "d")))
}

func TestSparse(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	const size = 1 << 30
	var charged int64
	stream := registry.Tar(t, registry.File("small", "x"))
	// A file of 1 GiB with a hole, as GNU tar writes it in the PAX format 1.0.
	stream = append(sparse(t, "big", size), stream...)
	require.NoError(t, unpack(t, dir, stream, untar.Options{Charge: func(_, stored, _ int64) error { charged += stored; return nil }}))
	info, err := os.Stat(filepath.Join(dir, "big"))
	require.NoError(t, err)
	require.EqualValues(t, size, info.Size())
	require.Less(t, charged, int64(1<<16), "holes are not stored")
}

// sparse makes an entry whose only data is one page at its end.
func sparse(t testing.TB, name string, size int64) []byte {
	t.Helper()
	page := bytes.Repeat([]byte("x"), 512)
	table := "1\n" + itoa(size-512) + "\n512\n"
	body := append([]byte(table), make([]byte, 512-len(table))...)
	body = append(body, page...)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	// The writer refuses the records of sparse files, so they are written by hand.
	records := pax("GNU.sparse.major", "1") + pax("GNU.sparse.minor", "0") + pax("GNU.sparse.name", name) + pax("GNU.sparse.realsize", itoa(size))
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "pax", Size: int64(len(records)), Format: tar.FormatUSTAR}))
	_, err := w.Write([]byte(records))
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(body)), Mode: 0o644, Format: tar.FormatUSTAR}))
	_, err = w.Write(body)
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	out := buf.Bytes()
	out[156] = 'x' // the kind of the first header
	return fixChecksum(out)
}

func itoa(n int64) string {
	s := ""
	for ; n > 0; n /= 10 {
		s = string(rune('0'+n%10)) + s
	}
	return s
}

func pax(key, value string) string {
	n := len(key) + len(value) + 3
	for n != len(itoa(int64(n)))+len(key)+len(value)+3 {
		n = len(itoa(int64(n))) + len(key) + len(value) + 3
	}
	return itoa(int64(n)) + " " + key + "=" + value + "\n"
}

func fixChecksum(b []byte) []byte {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	digits := ""
	for range 6 {
		digits = string(rune('0'+sum%8)) + digits
		sum /= 8
	}
	copy(b[148:156], digits+"\x00 ")
	return b
}

// FuzzExtract unpacks layers that the fuzzer changes. No stream may make a file outside
// of the directory, and unpacking must end.
func FuzzExtract(f *testing.F) {
	needRoot(f)
	for _, e := range [][]registry.Entry{
		{registry.File("a/b", "x"), registry.Link("c", "a/b"), registry.Symlink("l", "/etc"), registry.File("l/passwd", "x")},
		{registry.File("../x", "x")}, {registry.Symlink("up", "../.."), registry.File("up/careen-fuzz", "x")},
		{registry.Link("a", "../../etc/passwd")}, {registry.File("d/.wh.x", ""), registry.File("d/.wh..wh..opq", ""), registry.Dir("d")},
		{registry.Dir("a"), registry.File("a", "x"), registry.Dir("a"), registry.File("a/.wh.b", "")},
	} {
		f.Add(registry.Tar(f, e...))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "one/two")
		require.NoError(t, os.MkdirAll(dir, 0o700))
		entries := int64(0)
		_ = unpack(t, dir, stream, untar.Options{Charge: func(n, stored, logical int64) error {
			if entries += n; entries > 10_000 || stored > 1<<20 || logical > 1<<24 {
				return os.ErrDeadlineExceeded
			}
			return nil
		}})
		for _, d := range []string{outer, filepath.Join(outer, "one")} {
			names, err := os.ReadDir(d)
			require.NoError(t, err)
			require.Len(t, names, 1, "something appeared in %s", d)
		}
		require.NoFileExists(t, "/careen-fuzz")
	})
}
