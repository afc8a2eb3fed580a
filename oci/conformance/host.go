package conformance

import (
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/careen-project/careen/oci"
)

// Host is a node in memory, for tests. Paths map to entries; directories above an entry
// exist without an entry.
type Host struct {
	entries map[string]fileEntry
	// Flags are the mount flags of paths and all below them.
	Flags map[string][]string
	// Users are the lines of /etc/passwd by account name.
	Users map[string]string
}

type fileEntry struct {
	mode    fs.FileMode
	content string
	link    string
	device  specs.LinuxDevice
}

// NewHost returns a node that has the root directory only.
func NewHost() *Host {
	h := &Host{entries: make(map[string]fileEntry), Flags: make(map[string][]string), Users: make(map[string]string)}
	h.Dir("/")
	return h
}

// Dir adds a directory.
func (h *Host) Dir(name string) { h.entries[name] = fileEntry{mode: fs.ModeDir | 0o755} }

// File adds a file.
func (h *Host) File(name, content string) {
	h.entries[name] = fileEntry{mode: 0o644, content: content}
}

// Link adds a symbolic link.
func (h *Host) Link(name, target string) {
	h.entries[name] = fileEntry{mode: fs.ModeSymlink | 0o777, link: target}
}

// Node adds a device node; kind is "b" or "c".
func (h *Host) Node(name, kind string, major, minor int64) {
	mode := fs.ModeDevice | 0o600
	if kind == "c" {
		mode |= fs.ModeCharDevice
	}
	perm := fs.FileMode(0o600)
	h.entries[name] = fileEntry{mode: mode, device: specs.LinuxDevice{
		Path: name, Type: kind, Major: major, Minor: minor, FileMode: &perm,
	}}
}

func notExist(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT} }

func (h *Host) lookup(name string, follow bool, depth int) (string, fileEntry, error) {
	name = path.Clean(name)
	if depth > 20 {
		return "", fileEntry{}, &fs.PathError{Op: "stat", Path: name, Err: syscall.ELOOP}
	}
	// Links in the directories above come first.
	if dir := path.Dir(name); dir != name {
		resolved, _, err := h.lookup(dir, true, depth+1)
		if err != nil {
			return "", fileEntry{}, err
		}
		name = path.Join(resolved, path.Base(name))
	}
	entry, ok := h.entries[name]
	if !ok {
		for other := range h.entries {
			if strings.HasPrefix(other, strings.TrimSuffix(name, "/")+"/") {
				return name, fileEntry{mode: fs.ModeDir | 0o755}, nil
			}
		}
		return "", fileEntry{}, notExist("stat", name)
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

type fileInfo struct {
	name  string
	entry fileEntry
}

func (i fileInfo) Name() string               { return path.Base(i.name) }
func (i fileInfo) Size() int64                { return int64(len(i.entry.content)) }
func (i fileInfo) Mode() fs.FileMode          { return i.entry.mode }
func (i fileInfo) ModTime() time.Time         { return time.Time{} }
func (i fileInfo) IsDir() bool                { return i.entry.mode.IsDir() }
func (i fileInfo) Sys() any                   { return nil }
func (i fileInfo) Type() fs.FileMode          { return i.entry.mode.Type() }
func (i fileInfo) Info() (fs.FileInfo, error) { return i, nil }

// ReadFile reads a file of at most limit bytes.
func (h *Host) ReadFile(name string, limit int64) ([]byte, error) {
	_, entry, err := h.lookup(name, true, 0)
	if err != nil {
		return nil, notExist("open", name)
	}
	if int64(len(entry.content)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return []byte(entry.content), nil
}

// Stat follows links.
func (h *Host) Stat(name string) (fs.FileInfo, error) {
	resolved, entry, err := h.lookup(name, true, 0)
	return fileInfo{resolved, entry}, err
}

// Lstat follows no link at the end.
func (h *Host) Lstat(name string) (fs.FileInfo, error) {
	resolved, entry, err := h.lookup(name, false, 0)
	return fileInfo{resolved, entry}, err
}

// ReadDir lists a directory.
func (h *Host) ReadDir(name string) ([]fs.DirEntry, error) {
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
			list = append(list, fileInfo{prefix + first, child})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list, nil
}

// EvalSymlinks resolves all links.
func (h *Host) EvalSymlinks(name string) (string, error) {
	resolved, _, err := h.lookup(name, true, 0)
	return resolved, err
}

// Device describes a device node.
func (h *Host) Device(name string) (specs.LinuxDevice, error) {
	_, entry, err := h.lookup(name, false, 0)
	if err != nil {
		return specs.LinuxDevice{}, err
	}
	if entry.mode&fs.ModeDevice == 0 {
		return specs.LinuxDevice{}, fmt.Errorf("not a device node")
	}
	return entry.device, nil
}

// MountFlags returns the flags of the nearest directory in Flags.
func (h *Host) MountFlags(name string) ([]string, error) {
	if _, _, err := h.lookup(name, true, 0); err != nil {
		return nil, notExist("statfs", name)
	}
	for dir := path.Clean(name); ; dir = path.Dir(dir) {
		if flags, ok := h.Flags[dir]; ok {
			return flags, nil
		}
		if dir == "/" {
			return nil, nil
		}
	}
}

// LookupUser returns the line of an account.
func (h *Host) LookupUser(name string) (string, error) {
	if line, ok := h.Users[name]; ok {
		return line, nil
	}
	return "", fmt.Errorf("unknown user %s", name)
}

// Files are the files of an image, made of a Host.
type Files struct{ Host *Host }

// ReadFile reads a file of at most limit bytes.
func (f Files) ReadFile(name string, limit int64) ([]byte, error) {
	return f.Host.ReadFile(name, limit)
}

// Stat follows links.
func (f Files) Stat(name string) (fs.FileInfo, error) { return f.Host.Stat(name) }

// Resolve follows links as far as the path exists.
func (f Files) Resolve(name string) (string, error) {
	rest := ""
	for dir := path.Clean(name); ; dir = path.Dir(dir) {
		if resolved, err := f.Host.EvalSymlinks(dir); err == nil {
			return path.Join(resolved, rest), nil
		}
		rest = path.Join(path.Base(dir), rest)
	}
}

// Hostname is the name of the node of the corpus.
const Hostname = "metal-7"

// Node is a node like the one of the corpus.
func Node(cgroupV2 bool) oci.Node {
	node := oci.Node{
		Hostname: Hostname, CgroupV2: cgroupV2, Capabilities: AllCapabilities(), CPUs: 4, MemNodes: 1,
		PidMax: 32768, SeccompArch: "amd64", Seccomp: true, ResolvConf: []byte("nameserver 10.9.9.9\n"),
		Hosts: []byte("127.0.0.1 localhost\n::1 localhost ip6-localhost\n"),
	}
	add := func(name, kind string, major, minor int64) {
		node.Devices = append(node.Devices, specs.LinuxDevice{Path: name, Type: kind, Major: major, Minor: minor})
	}
	for name, minor := range map[string]int64{
		"/dev/null": 3, "/dev/kmsg": 11, "/dev/kvm": 232, "/dev/loop-control": 237, "/dev/fuse": 229, "/dev/console": 1,
		"/dev/pts/0": 0, "/dev/tty": 5,
	} {
		add(name, "c", 10, minor)
	}
	for i := range int64(8) {
		add(fmt.Sprintf("/dev/loop%d", i), "b", 7, i)
	}
	for i := range int64(64) {
		add(fmt.Sprintf("/dev/tty%d", i), "c", 4, i)
	}
	sort.Slice(node.Devices, func(i, j int) bool { return node.Devices[i].Path < node.Devices[j].Path })
	return node
}
