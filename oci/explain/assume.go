package explain

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/careen-project/careen/oci"
)

// AssumedHost is an [oci.Host] for a review on a machine that is not the node. Files and
// devices that options name and this machine lacks are assumed to exist, and each
// assumption is noted. Never run a container with it.
type AssumedHost struct {
	host  oci.Host
	notes map[string]bool
}

// NewAssumedHost returns an AssumedHost that asks host first.
func NewAssumedHost(host oci.Host) *AssumedHost {
	return &AssumedHost{host: host, notes: make(map[string]bool)}
}

// Notes returns the assumptions, one line each, sorted.
func (h *AssumedHost) Notes() []string {
	notes := make([]string, 0, len(h.notes))
	for note := range h.notes {
		notes = append(notes, note)
	}
	sort.Strings(notes)
	return notes
}

// notePresent is the note on a path.
const notePresent = "%s is not on this machine: assumed to exist on the node"

func (h *AssumedHost) notef(format string, args ...any) { h.notes[fmt.Sprintf(format, args...)] = true }

// absent reports whether err means that a path is absent here and may exist on the node.
// Paths below /sys and /etc/netns do not count: careen looks there by itself.
func absent(name string, err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !below(name, "/sys") && !below(name, "/etc/netns")
}

// ReadFile returns a file without content for an absent one.
func (h *AssumedHost) ReadFile(name string, limit int64) ([]byte, error) {
	content, err := h.host.ReadFile(name, limit)
	if !absent(name, err) {
		return content, err
	}
	h.notef("%s is not on this machine: assumed to be empty", name)
	if strings.HasSuffix(name, ".json") {
		return []byte("{}"), nil
	}
	return nil, nil
}

// Stat assumes a device node for an absent path below /dev, a file for a time zone, and a
// directory otherwise.
func (h *AssumedHost) Stat(name string) (fs.FileInfo, error) {
	info, err := h.host.Stat(name)
	if !absent(name, err) {
		return info, err
	}
	h.notef(notePresent, name)
	switch {
	case below(name, "/dev"):
		return assumed{name, fs.ModeDevice | fs.ModeCharDevice}, nil
	case below(name, "/usr/share/zoneinfo"):
		return assumed{name, 0}, nil
	}
	return assumed{name, fs.ModeDir}, nil
}

// Lstat asks the host only: it is used for files that must not exist.
func (h *AssumedHost) Lstat(name string) (fs.FileInfo, error) { return h.host.Lstat(name) }

// ReadDir asks the host only.
func (h *AssumedHost) ReadDir(name string) ([]fs.DirEntry, error) { return h.host.ReadDir(name) }

// EvalSymlinks assumes that an absent path has no links.
func (h *AssumedHost) EvalSymlinks(name string) (string, error) {
	resolved, err := h.host.EvalSymlinks(name)
	if absent(name, err) {
		return filepath.Clean(name), nil
	}
	return resolved, err
}

// Device returns a character device 0:0 for an absent one.
func (h *AssumedHost) Device(name string) (specs.LinuxDevice, error) {
	device, err := h.host.Device(name)
	if !absent(name, err) {
		return device, err
	}
	delete(h.notes, fmt.Sprintf(notePresent, name)) // the next note includes it
	h.notef("%s is not on this machine: its type and numbers are unknown", name)
	return specs.LinuxDevice{Path: name, Type: "c"}, nil
}

// MountFlags returns the flags of the nearest existing directory for an absent path.
func (h *AssumedHost) MountFlags(name string) ([]string, error) {
	flags, err := h.host.MountFlags(name)
	for absent(name, err) && name != "/" {
		name = path.Dir(name)
		flags, err = h.host.MountFlags(name)
	}
	return flags, err
}

// LookupUser returns the host's account, or assumes one.
func (h *AssumedHost) LookupUser(name string) (string, error) {
	line, err := h.host.LookupUser(name)
	if err == nil {
		return line, nil
	}
	h.notef("there is no account %s on this machine: its ids are unknown", name)
	return name + ":x:1000:1000::/:/bin/sh", nil
}

// Files returns assumed files of an image: every directory exists, and /etc/passwd and
// /etc/group have the users and groups that run and the image's USER name.
func (h *AssumedHost) Files(run *oci.Run, imageUser string) oci.Files {
	spec := run.Options.User
	if spec == "" {
		spec = imageUser
	}
	user, group, _ := strings.Cut(spec, ":")
	files := assumedFiles{"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/group": "root:x:0:\n"} //nolint:gosec // an account without a password
	if h.named("user", user) {
		files["/etc/passwd"] += user + ":x:1000:1000::/:/bin/sh\n"
	}
	next := 1000
	for _, name := range append([]string{group}, run.Options.GroupAdd...) {
		if h.named("group", name) && !strings.Contains(files["/etc/group"], "\n"+name+":") {
			files["/etc/group"] += fmt.Sprintf("%s:x:%d:\n", name, next)
			next++
		}
	}
	return files
}

// named reports whether only the image's files could give the id of name.
func (h *AssumedHost) named(what, name string) bool {
	if name == "" || name == "root" || strings.Trim(name, "0123456789") == "" {
		return false
	}
	h.notef("without --rootfs the image's files are unknown: the id of the %s %s is invented", what, name)
	return true
}

// assumedFiles are the contents of an image's files by path.
type assumedFiles map[string]string

func (f assumedFiles) ReadFile(name string, _ int64) ([]byte, error) {
	content, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(content), nil
}

func (f assumedFiles) Resolve(name string) (string, error) { return path.Clean(name), nil }

func (f assumedFiles) Stat(name string) (fs.FileInfo, error) { return assumed{name, fs.ModeDir}, nil }

// assumed describes a file that is assumed to exist.
type assumed struct {
	name string
	mode fs.FileMode
}

func (a assumed) Name() string       { return path.Base(a.name) }
func (a assumed) Size() int64        { return 0 }
func (a assumed) Mode() fs.FileMode  { return a.mode | 0o755 }
func (a assumed) ModTime() time.Time { return time.Time{} }
func (a assumed) IsDir() bool        { return a.mode.IsDir() }
func (a assumed) Sys() any           { return nil }

// below reports whether a clean path is dir or under it.
func below(file, dir string) bool { return file == dir || strings.HasPrefix(file, dir+"/") }
