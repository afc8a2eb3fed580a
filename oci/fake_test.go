package oci_test

import (
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// fakeHost is a node in memory. Paths map to entries; directories above an entry
// exist by themselves.
type fakeHost struct {
	entries map[string]fakeEntry
	// flags are the mount flags of paths and all below them.
	flags map[string][]string
	users map[string]string
}

type fakeEntry struct {
	mode    fs.FileMode
	content string
	link    string
	device  specs.LinuxDevice
}

func newFakeHost() *fakeHost {
	h := &fakeHost{entries: make(map[string]fakeEntry), flags: make(map[string][]string), users: make(map[string]string)}
	h.dir("/")
	return h
}

func (h *fakeHost) dir(name string) { h.entries[name] = fakeEntry{mode: fs.ModeDir | 0o755} }
func (h *fakeHost) file(name, content string) {
	h.entries[name] = fakeEntry{mode: 0o644, content: content}
}
func (h *fakeHost) link(name, target string) {
	h.entries[name] = fakeEntry{mode: fs.ModeSymlink | 0o777, link: target}
}

func (h *fakeHost) node(name, kind string, major, minor int64) {
	mode := fs.ModeDevice | 0o600
	if kind == "c" {
		mode |= fs.ModeCharDevice
	}
	perm := fs.FileMode(0o600)
	h.entries[name] = fakeEntry{mode: mode, device: specs.LinuxDevice{
		Path: name, Type: kind, Major: major, Minor: minor, FileMode: &perm,
	}}
}

func notExist(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT} }

func (h *fakeHost) lookup(name string, follow bool, depth int) (string, fakeEntry, error) {
	name = path.Clean(name)
	if depth > 20 {
		return "", fakeEntry{}, &fs.PathError{Op: "stat", Path: name, Err: syscall.ELOOP}
	}
	// Links in the directories above come first.
	if dir := path.Dir(name); dir != name {
		resolved, _, err := h.lookup(dir, true, depth+1)
		if err != nil {
			return "", fakeEntry{}, err
		}
		name = path.Join(resolved, path.Base(name))
	}
	entry, ok := h.entries[name]
	if !ok {
		for other := range h.entries {
			if strings.HasPrefix(other, strings.TrimSuffix(name, "/")+"/") {
				return name, fakeEntry{mode: fs.ModeDir | 0o755}, nil
			}
		}
		return "", fakeEntry{}, notExist("stat", name)
	}
	if follow && entry.mode&fs.ModeSymlink != 0 {
		target := entry.link
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		return h.lookup(target, true, depth+1)
	}
	return name, entry, nil
}

type fakeInfo struct {
	name  string
	entry fakeEntry
}

func (i fakeInfo) Name() string               { return path.Base(i.name) }
func (i fakeInfo) Size() int64                { return int64(len(i.entry.content)) }
func (i fakeInfo) Mode() fs.FileMode          { return i.entry.mode }
func (i fakeInfo) ModTime() time.Time         { return time.Time{} }
func (i fakeInfo) IsDir() bool                { return i.entry.mode.IsDir() }
func (i fakeInfo) Sys() any                   { return nil }
func (i fakeInfo) Type() fs.FileMode          { return i.entry.mode.Type() }
func (i fakeInfo) Info() (fs.FileInfo, error) { return i, nil }

func (h *fakeHost) ReadFile(name string, limit int64) ([]byte, error) {
	_, entry, err := h.lookup(name, true, 0)
	if err != nil {
		return nil, notExist("open", name)
	}
	if int64(len(entry.content)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return []byte(entry.content), nil
}

func (h *fakeHost) Stat(name string) (fs.FileInfo, error) {
	resolved, entry, err := h.lookup(name, true, 0)
	return fakeInfo{resolved, entry}, err
}

func (h *fakeHost) Lstat(name string) (fs.FileInfo, error) {
	resolved, entry, err := h.lookup(name, false, 0)
	return fakeInfo{resolved, entry}, err
}

func (h *fakeHost) ReadDir(name string) ([]fs.DirEntry, error) {
	resolved, entry, err := h.lookup(name, true, 0)
	if err != nil || !entry.mode.IsDir() {
		return nil, notExist("open", name)
	}
	prefix := strings.TrimSuffix(resolved, "/") + "/"
	seen := make(map[string]bool)
	var list []fs.DirEntry
	for other := range h.entries {
		rest, ok := strings.CutPrefix(other, prefix)
		if !ok || rest == "" {
			continue
		}
		first, _, _ := strings.Cut(rest, "/")
		if seen[first] {
			continue
		}
		seen[first] = true
		_, child, err := h.lookup(prefix+first, false, 0)
		if err == nil {
			list = append(list, fakeInfo{prefix + first, child})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list, nil
}

func (h *fakeHost) EvalSymlinks(name string) (string, error) {
	resolved, _, err := h.lookup(name, true, 0)
	return resolved, err
}

func (h *fakeHost) Device(name string) (specs.LinuxDevice, error) {
	_, entry, err := h.lookup(name, false, 0)
	if err != nil {
		return specs.LinuxDevice{}, err
	}
	if entry.mode&fs.ModeDevice == 0 {
		return specs.LinuxDevice{}, fmt.Errorf("not a device node")
	}
	return entry.device, nil
}

func (h *fakeHost) MountFlags(name string) ([]string, error) {
	if _, _, err := h.lookup(name, true, 0); err != nil {
		return nil, notExist("statfs", name)
	}
	for dir := path.Clean(name); ; dir = path.Dir(dir) {
		if flags, ok := h.flags[dir]; ok {
			return flags, nil
		}
		if dir == "/" {
			return nil, nil
		}
	}
}

func (h *fakeHost) LookupUser(name string) (string, error) {
	if line, ok := h.users[name]; ok {
		return line, nil
	}
	return "", fmt.Errorf("unknown user %s", name)
}

// fakeFiles is an image's root, made of a fakeHost.
type fakeFiles struct{ host *fakeHost }

func (f fakeFiles) ReadFile(name string, limit int64) ([]byte, error) {
	return f.host.ReadFile(name, limit)
}
func (f fakeFiles) Stat(name string) (fs.FileInfo, error) { return f.host.Stat(name) }

// Resolve follows links as far as the path exists.
func (f fakeFiles) Resolve(name string) (string, error) {
	rest := ""
	for dir := path.Clean(name); ; dir = path.Dir(dir) {
		if resolved, err := f.host.EvalSymlinks(dir); err == nil {
			return path.Join(resolved, rest), nil
		}
		rest = path.Join(path.Base(dir), rest)
	}
}
