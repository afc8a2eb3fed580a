package image_test

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

type entries = []registry.Entry

func with(e registry.Entry, change func(*tar.Header)) registry.Entry {
	change(&e.Header)
	return e
}

func xattr(name, value string) func(*tar.Header) {
	return func(h *tar.Header) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
}

func mode(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }

func owner(uid, gid int) func(*tar.Header) { return func(h *tar.Header) { h.Uid, h.Gid = uid, gid } }

// capNetBind is security.capability of version 2 with cap_net_bind_service+ep.
var capNetBind = string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})

// corpus are layers that are easy to get wrong.
func corpus() map[string][]entries {
	base := entries{
		registry.Dir("etc"), with(registry.Dir("var"), mode(0o711)), with(registry.Dir("var/lib"), owner(5, 6)),
		registry.File("etc/passwd", "root"), registry.File("var/lib/a", "a"), registry.File("var/lib/b", "b"),
		with(registry.Dir("tmp"), mode(0o1777)), registry.Dir("opt/deep/er"), registry.File("opt/deep/er/file", "deep"),
	}
	long := strings.Repeat("long-directory-name/", 20)
	return map[string][]entries{
		"modes and owners": {{
			with(registry.File("suid", "x"), mode(0o4755)), with(registry.File("sgid", "x"), mode(0o2711)),
			with(registry.File("both", "x"), func(h *tar.Header) { h.Mode = 0o6755; h.Uid = 12; h.Gid = 34 }),
			with(registry.Dir("sticky"), mode(0o1777)), with(registry.Dir("sgiddir"), func(h *tar.Header) { h.Mode = 0o2775; h.Gid = 9 }),
			registry.File("sgiddir/child", "gid 0 all the same"), with(registry.Dir("closed"), mode(0)), registry.File("closed/in", "x"),
			with(registry.File("none", "x"), mode(0)), with(registry.File("highuid", "x"), owner(4294967294-1, 100000)),
		}},
		"times": {{
			with(registry.File("ns", "x"), func(h *tar.Header) { h.ModTime = time.Unix(1234567890, 123456789); h.Format = tar.FormatPAX }),
			with(registry.File("old", "x"), func(h *tar.Header) { h.ModTime = time.Unix(1, 0) }),
			with(registry.File("future", "x"), func(h *tar.Header) { h.ModTime = time.Unix(4000000000, 0) }),
			with(registry.Dir("d"), func(h *tar.Header) { h.ModTime = time.Unix(77, 0) }), registry.File("d/later", "changes the time of d"),
			with(registry.Symlink("l", "d"), func(h *tar.Header) { h.ModTime = time.Unix(88, 0) }),
		}},
		"links": {{
			registry.File("a", "content"), registry.Link("b", "a"), registry.Dir("d"), registry.Link("d/c", "/a"), registry.Link("e", "./d/c"),
			registry.Symlink("s", "/etc/passwd"), registry.Symlink("rel", "../../up"), registry.Link("hs", "s"), registry.Symlink("dangling", "nowhere/at/all"),
		}},
		"special files": {{
			{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
			{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "blk", Mode: 0o660, Devmajor: 259, Devminor: 300, Gid: 6}},
			{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o620}},
		}},
		"extended attributes": {{
			with(registry.File("ping", "x"), xattr("security.capability", capNetBind)),
			with(registry.File("suidcap", "x"), func(h *tar.Header) { h.Mode = 0o4755; h.Uid = 7; xattr("security.capability", capNetBind)(h) }),
			with(registry.File("trusted", "x"), xattr("trusted.test", "value\x00with zero")),
			with(registry.Dir("dir"), xattr("trusted.test", "of a directory")),
			with(registry.Symlink("link", "x"), xattr("trusted.test", "of a link")),
		}},
		"contents": {{
			registry.File("empty", ""), registry.File("zeros", strings.Repeat("\x00", 300_000)), registry.File("page", strings.Repeat("x", 4096)),
			registry.File("holes", "start"+strings.Repeat("\x00", 100_000)+"middle"+strings.Repeat("\x00", 50_000)),
			registry.File("odd", string(noise(262_145))), registry.File("big", string(noise(3<<20))),
		}},
		"names": {{
			registry.Dir(strings.TrimSuffix(long, "/")), registry.File(long+"file", "x"), registry.File("umlaut-äöü-\xff\xfe", "x"), registry.File("new\nline", "x"),
			registry.File("./dot/slash", "x"), registry.File("/abs/olute", "x"), registry.File("a/../b/file", "x"), registry.File("trailing//double", "x"),
			registry.File(strings.Repeat("n", 255), "x"),
		}},
		"replaced within a layer": {{
			registry.File("x", "first"), registry.File("x", "second"), registry.Dir("d"), registry.File("d/in", "x"), registry.File("d", "a file now"),
			registry.File("f", "x"), registry.Dir("f"), registry.File("f/in", "x"), registry.Symlink("s", "f"), registry.File("s", "no link now"),
			registry.Dir("m"), with(registry.Dir("m"), mode(0o700)), registry.File("h", "1"), registry.Link("h2", "h"), registry.File("h", "2"),
		}},
		"links to directories within a layer": {{
			registry.Dir("usr/lib"), registry.Symlink("lib", "usr/lib"), registry.File("lib/libc.so", "x"), registry.Dir("lib/sub"),
			registry.File("lib/sub/y", "y"), registry.Symlink("usr/lib64", "/lib"), registry.File("usr/lib64/z", "z"),
		}},
		"implied directories":             {base, {registry.File("var/lib/c", "c"), registry.File("opt/deep/er/two", "2"), registry.File("new/dir/x", "x"), registry.File("tmp/x", "x")}},
		"whiteouts":                       {base, {registry.File("var/lib/.wh.a", ""), registry.File(".wh.opt", ""), registry.File("etc/.wh.absent", ""), registry.File("nothere/.wh.x", "")}},
		"whiteout, then new":              {base, {registry.File(".wh.opt", ""), registry.File("opt/new", "n"), registry.File("etc/.wh.passwd", ""), registry.File("etc/passwd", "new")}},
		"new, then whiteout":              {base, {registry.File("opt/new", "n"), registry.File(".wh.opt", ""), registry.File("etc/passwd", "new"), registry.File("etc/.wh.passwd", "")}},
		"whiteout over three layers":      {base, {registry.File(".wh.opt", "")}, {registry.File("opt/again", "x")}, {registry.File("opt/.wh.again", ""), registry.File("opt/more", "x")}},
		"opaque":                          {base, {registry.Dir("opt"), registry.File("opt/.wh..wh..opq", ""), registry.File("opt/fresh", "x"), registry.File("var/lib/.wh..wh..opq", "")}},
		"opaque marker last":              {base, {registry.File("opt/fresh", "x"), registry.Dir("opt/deep"), registry.File("opt/.wh..wh..opq", "")}},
		"opaque, then more":               {base, {registry.File("opt/.wh..wh..opq", ""), registry.File("opt/one", "1")}, {registry.File("opt/two", "2"), registry.File("opt/.wh.one", "")}},
		"opaque root":                     {base, {registry.File(".wh..wh..opq", ""), registry.File("only", "x"), registry.Dir("etc"), registry.File("etc/new", "x")}},
		"directory becomes file and back": {base, {registry.File("opt", "file now")}, {registry.Dir("opt"), registry.File("opt/x", "x")}},
		"file becomes directory":          {base, {registry.Dir("var/lib/a"), registry.File("var/lib/a/in", "x")}},
		"directory attributes change":     {base, {with(registry.Dir("var/lib"), func(h *tar.Header) { h.Mode = 0o750; h.ModTime = time.Unix(99, 0) })}},
		"root attributes":                 {{with(registry.Dir("."), func(h *tar.Header) { h.Mode = 0o750; h.Uid = 3; h.ModTime = time.Unix(50, 0) }), registry.File("a", "a")}, {registry.File("b", "b")}},
		"hard link to a layer below":      {base, {registry.Link("var/lib/linked", "var/lib/a"), registry.Link("etc/again", "var/lib/linked")}},
		"hard link below, then changed": {base, {registry.File("filler", string(noise(100_000))), registry.Link("l", "etc/passwd"),
			registry.File("etc/passwd", "changed"), registry.Link("l2", "l")}},
		"hard link to a suid file below": {{with(registry.File("su", "x"), func(h *tar.Header) { h.Mode = 0o4755; h.Uid = 8; xattr("trusted.test", "v")(h) })}, {registry.Link("su2", "su")}},
		"same layer twice":               {base, base},
		"empty layers":                   {base, {}, {}},
	}
}

// TestCorpus compares what is unpacked with what umoci makes of the same image:
// names, kinds, modes, owners, times, contents, links, devices, attributes.
func TestCorpus(t *testing.T) {
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("needs umoci to compare with")
	}
	s := newStore(t, "512m")
	p := newPuller(t, s)
	for _, name := range slices.Sorted(mapKeys(corpus())) {
		t.Run(name, func(t *testing.T) {
			want := unpackedByUmoci(t, layersOf(t, name, registry.Gzip))
			for _, compression := range []registry.Compression{registry.Gzip, registry.Zstd, registry.None} {
				dir := t.TempDir()
				layersOf(t, name, compression).WriteLayout(t, dir, "latest")
				img, err := p.Pull(s.ctx, &image.Request{Original: "oci:" + dir, Transport: image.OCI, Path: dir}, nil)
				require.NoError(t, err)
				var got []string
				s.view(t, "overlayfs", img.ChainID, func(root string) { got = tree(t, root) })
				require.NoError(t, p.Delete(s.ctx, img.Name))
				require.Empty(t, s.contents(t))
				require.Equal(t, strings.Join(want, "\n"), strings.Join(got, "\n"))
			}
		})
	}
}

func layersOf(t testing.TB, name string, compression registry.Compression) *registry.Image {
	var layers []registry.Layer
	for _, e := range corpus()[name] {
		layers = append(layers, registry.NewLayer(t, registry.Tar(t, e...), compression))
	}
	return registry.NewImage(t, layers)
}

func unpackedByUmoci(t testing.TB, built *registry.Image) []string {
	dir := t.TempDir()
	built.WriteLayout(t, filepath.Join(dir, "image"), "latest")
	out, err := exec.Command("umoci", "unpack", "--image", filepath.Join(dir, "image")+":latest", filepath.Join(dir, "bundle")).CombinedOutput()
	require.NoError(t, err, string(out))
	return tree(t, filepath.Join(dir, "bundle/rootfs"))
}

// TestLinkBelowIsReplaced is the one case where engines and the tar programs
// disagree: an entry below a name that is a symbolic link in a lower layer.
// podman, Docker and containerd make a directory of it, umoci follows the link.
func TestLinkBelowIsReplaced(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("needs podman to compare with")
	}
	built := registry.NewImage(t, []registry.Layer{
		registry.NewLayer(t, registry.Tar(t, registry.Dir("usr"), registry.Dir("usr/lib"), registry.File("usr/lib/a", "a"),
			registry.Symlink("lib", "usr/lib")), registry.Gzip),
		registry.NewLayer(t, registry.Tar(t, registry.Dir("lib"), registry.File("lib/b", "b")), registry.Gzip),
	})
	s := newStore(t, "64m")
	dir, archive := t.TempDir(), filepath.Join(t.TempDir(), "image.tar")
	built.WriteLayout(t, dir, "latest")
	built.WriteOCIArchive(t, archive, "localhost/links:latest")
	img, err := newPuller(t, s).Pull(s.ctx, &image.Request{Original: "oci:" + dir, Transport: image.OCI, Path: dir}, nil)
	require.NoError(t, err)
	var got []string
	s.view(t, "overlayfs", img.ChainID, func(root string) { got = tree(t, root) })

	args := []string{"--root", s.root + "/podman", "--runroot", s.root + "/run", "--storage-driver", "overlay"}
	podman := func(more ...string) string {
		cmd := exec.Command("podman", append(slices.Clone(args), more...)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%v: %s", more, &stderr)
		return strings.TrimSpace(string(out))
	}
	id := podman("pull", "--quiet", "oci-archive:"+archive)
	root := podman("image", "mount", id)
	want := tree(t, root)
	podman("image", "unmount", id)
	// The first line is the root, which podman gives the mode 0555 of its own.
	require.Equal(t, strings.Join(want[1:], "\n"), strings.Join(got[1:], "\n"))
	require.Contains(t, strings.Join(got, "\n"), `"lib" d`)
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// tree describes everything below a directory, a line per file.
func tree(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	inodes := map[uint64]string{} // names of one inode are told by the first
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%q %v %d:%d", name, info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case info.Mode()&fs.ModeDevice != 0:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case info.Mode().IsRegular():
			body, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %x", len(body), sha256.Sum256(body))
		}
		if !info.IsDir() && st.Nlink > 1 {
			if first, ok := inodes[st.Ino]; ok {
				line += " same as " + first
			} else {
				inodes[st.Ino] = name
			}
		}
		if !impliedTime(name) {
			line += " " + info.ModTime().UTC().Format(time.RFC3339Nano)
		}
		lines = append(lines, line+attributes(t, path))
		return nil
	}))
	return lines
}

// impliedTime names the directories that no layer of the corpus has an entry
// for. Engines give them the time of the pull, careen the epoch.
func impliedTime(name string) bool {
	return strings.HasSuffix(name, "long-directory-name") || slices.Contains([]string{".", "opt", "opt/deep", "new", "new/dir", "nothere", "dot", "abs", "b", "trailing", "usr"}, name)
}

func attributes(t testing.TB, path string) string {
	t.Helper()
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	require.NoError(t, err)
	var all []string
	for _, name := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.rootlesscontainers") || name == "security.selinux" {
			continue
		}
		value := make([]byte, 4096)
		m, err := unix.Lgetxattr(path, name, value)
		require.NoError(t, err)
		all = append(all, fmt.Sprintf(" %s=%x", name, value[:m]))
	}
	slices.Sort(all)
	return strings.Join(all, "")
}
