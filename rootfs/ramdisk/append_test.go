package ramdisk_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/ramdisk"
)

// static builds a small program without libraries, as make build builds careen.
func static(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"careen\") }\n"), 0o600))
	out := filepath.Join(dir, "careen")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	return out
}

// list returns what cpio(1) finds in an archive.
func list(t *testing.T, archive []byte) string {
	t.Helper()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("needs cpio to read the archive with")
	}
	cmd := exec.CommandContext(t.Context(), "cpio", "-itv", "--quiet")
	cmd.Stdin = bytes.NewReader(archive)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func unpack(t *testing.T, data []byte, c ramdisk.Compression) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(data)
	var err error
	switch c {
	case ramdisk.Gzip:
		r, err = gzip.NewReader(r)
	case ramdisk.Zstd:
		r, err = zstd.NewReader(r)
	}
	require.NoError(t, err)
	plain, err := io.ReadAll(r)
	require.NoError(t, err)
	return plain
}

// The kernel gives a directory that is there the mode of the archive's entry, and
// removes a link that such an entry is in the place of.
func TestAppendLeavesTheDirectoriesOfTheBase(t *testing.T) {
	dir := t.TempDir()
	base, file := filepath.Join(dir, "base"), filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(base, []byte("070701"), 0o600))
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	opts := ramdisk.AppendOptions{
		Base: base, Output: filepath.Join(dir, "out"), Binary: static(t), Compression: ramdisk.None, Unit: ramdisk.UnitNone,
		Files: map[string]string{
			"/lib/modules/6.1/overlay.ko": file, "/bin/tool": file, "/var/lock/x": file, "/tmp/x": file, "/root/.ssh/x": file,
		},
	}
	names := func() []string {
		_, err := ramdisk.Append(t.Context(), opts)
		require.NoError(t, err)
		data, err := os.ReadFile(opts.Output)
		require.NoError(t, err)
		if opts.Base != "" {
			data = data[512:]
		}
		var out []string
		for line := range strings.Lines(list(t, data)) {
			fields := strings.Fields(line)
			out = append(out, fields[0]+" "+fields[len(fields)-1])
		}
		return out
	}
	all := names()
	for _, want := range []string{
		"-rw-r--r-- lib/modules/6.1/overlay.ko", "drwxr-xr-x lib/modules", "-rw-r--r-- bin/tool", "-rw-r--r-- var/lock/x",
		"drwxrwxrwt tmp", "drwx------ root", "drwxr-xr-x var",
	} {
		require.Contains(t, all, want)
	}
	for _, link := range []string{"lib", "bin", "var/lock"} {
		require.NotContains(t, all, "drwxr-xr-x "+link)
	}
	opts.Base = ""
	all = names()
	for _, dir := range []string{"lib", "bin", "var/lock"} {
		require.Contains(t, all, "drwxr-xr-x "+dir, "careen alone has no base with it")
	}
}

func TestAppend(t *testing.T) {
	binary, dir := static(t), t.TempDir()
	base := filepath.Join(dir, "base")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	a := ramdisk.NewWriter(z)
	require.NoError(t, a.Add(ramdisk.Entry{Path: "init", Mode: ramdisk.TypeFile | 0o755, Size: 1, Body: strings.NewReader("x")}))
	require.NoError(t, a.Close())
	require.NoError(t, z.Close())
	require.NotZero(t, b.Len()%4, "the base should need padding")
	require.NoError(t, os.WriteFile(base, b.Bytes(), 0o600))
	steps := filepath.Join(dir, "steps.yaml")
	require.NoError(t, os.WriteFile(steps, []byte("steps: []\n"), 0o600))

	for _, tt := range []struct {
		compression ramdisk.Compression
		unit        ramdisk.Unit
		want        []string
	}{
		{ramdisk.Gzip, ramdisk.UnitSystemd, []string{"etc/systemd/system/careen.service",
			"etc/systemd/system/multi-user.target.wants/careen.service -> /etc/systemd/system/careen.service"}},
		{ramdisk.Zstd, ramdisk.UnitOpenRC, []string{"-rwxr-xr-x", "etc/init.d/careen", "etc/runlevels/default/careen -> /etc/init.d/careen"}},
		{ramdisk.None, ramdisk.UnitInit, []string{"careen-init -> /usr/bin/careen"}},
		{ramdisk.None, ramdisk.UnitNone, nil},
	} {
		t.Run(string(tt.compression)+" "+string(tt.unit), func(t *testing.T) {
			opts := ramdisk.AppendOptions{
				Base: base, Output: filepath.Join(t.TempDir(), "out"), Binary: binary, Compression: tt.compression, Unit: tt.unit,
				Links: []string{"podman"}, Files: map[string]string{"/etc/ironic-python-agent.d/mysteps.yaml": steps},
			}
			res, err := ramdisk.Append(t.Context(), opts)
			require.NoError(t, err)
			out, err := os.ReadFile(opts.Output)
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(out, b.Bytes()), "the base has to stay as it is")
			require.EqualValues(t, b.Len(), res.Base)
			start := (b.Len() + 511) / 512 * 512
			require.Equal(t, make([]byte, start-b.Len()), out[b.Len():start])
			require.EqualValues(t, len(out)-start, res.Added)
			names := list(t, unpack(t, out[start:], tt.compression))
			for _, want := range append(tt.want, "usr/bin/careen", "usr/bin/podman -> careen", "etc/ironic-python-agent.d/mysteps.yaml") {
				require.Contains(t, names, want)
			}
			for _, line := range strings.Split(names, "\n") {
				for _, link := range []string{" bin", " lib", " sbin", " lib64"} {
					require.False(t, strings.HasSuffix(line, link), "%q would replace the link of a merged /usr", line)
				}
			}

			again := opts
			again.Output = filepath.Join(t.TempDir(), "again")
			_, err = ramdisk.Append(t.Context(), again)
			require.NoError(t, err)
			second, err := os.ReadFile(again.Output)
			require.NoError(t, err)
			require.True(t, bytes.Equal(out, second), "the same options have to give the same bytes")
		})
	}

	t.Run("in place", func(t *testing.T) {
		_, err := ramdisk.Append(t.Context(), ramdisk.AppendOptions{Base: base, Output: base, Binary: binary})
		require.NoError(t, err)
		out, err := os.ReadFile(base)
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(out, b.Bytes()))
	})
}

func TestAppendRefuses(t *testing.T) {
	binary, dir := static(t), t.TempDir()
	iso := filepath.Join(dir, "iso")
	require.NoError(t, os.WriteFile(iso, make([]byte, 40000), 0o600))
	linked, err := exec.LookPath("sh")
	require.NoError(t, err)
	for _, tt := range []struct {
		name string
		opts ramdisk.AppendOptions
		want string
	}{
		{"not an image", ramdisk.AppendOptions{Base: iso, Binary: binary}, "not begin with an archive"},
		{"an empty base", ramdisk.AppendOptions{Base: os.DevNull, Binary: binary}, "not begin with an archive"},
		{"no base", ramdisk.AppendOptions{Base: filepath.Join(dir, "absent"), Binary: binary}, "no such file"},
		{"a linked binary", ramdisk.AppendOptions{Binary: linked}, "shared libraries"},
		{"not a program", ramdisk.AppendOptions{Binary: iso}, "not a program"},
		{"unknown compression", ramdisk.AppendOptions{Binary: binary, Compression: "lzma"}, "not a compression"},
		{"unknown unit", ramdisk.AppendOptions{Binary: binary, Unit: "runit"}, "not a way to start"},
		{"a path for a link", ramdisk.AppendOptions{Binary: binary, Links: []string{"../bin/sh"}}, "not the name of a link"},
		{"careen itself for a link", ramdisk.AppendOptions{Binary: binary, Links: []string{"careen"}}, "not the name of a link"},
		{"a directory for a file", ramdisk.AppendOptions{Binary: binary, Files: map[string]string{"/x": dir}}, "not a regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := t.TempDir()
			tt.opts.Output = filepath.Join(out, "out")
			_, err := ramdisk.Append(t.Context(), tt.opts)
			require.ErrorContains(t, err, tt.want)
			left, err := os.ReadDir(out)
			require.NoError(t, err)
			require.Empty(t, left, "a failure has to leave nothing")
		})
	}
	_, err = ramdisk.Append(t.Context(), ramdisk.AppendOptions{Binary: binary})
	require.Equal(t, fault.BadOption, fault.CodeOf(err))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = ramdisk.Append(ctx, ramdisk.AppendOptions{Binary: binary, Output: filepath.Join(dir, "out")})
	require.ErrorIs(t, err, context.Canceled)
}

func TestWriterRefuses(t *testing.T) {
	for _, e := range []ramdisk.Entry{
		{Path: "", Mode: ramdisk.TypeFile},
		{Path: "/", Mode: ramdisk.TypeDir},
		{Path: "TRAILER!!!", Mode: ramdisk.TypeFile},
		{Path: strings.Repeat("x", 5000), Mode: ramdisk.TypeFile},
		{Path: "x", Mode: 0o644},
		{Path: "x", Mode: ramdisk.TypeFile, Size: 1 << 33, Body: strings.NewReader("")},
		{Path: "x", Mode: ramdisk.TypeFile, Size: 2, Body: strings.NewReader("1")},
	} {
		w := ramdisk.NewWriter(io.Discard)
		require.Error(t, w.Add(e), "%+v", e)
		require.Error(t, w.Close(), "an archive with an error is of no use")
	}
}
