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

// AssumedHost stands for a node and an image that are not at hand: what options name and
// is not there is taken to be there, and noted. With it a runbook can be explained on
// a machine that is not the node. It is a [oci.Host], and not for running anything.
type AssumedHost struct {
	host  oci.Host
	notes map[string]bool
}

// NewAssumedHost returns a AssumedHost that looks at host first.
func NewAssumedHost(host oci.Host) *AssumedHost {
	return &AssumedHost{host: host, notes: make(map[string]bool)}
}

// Notes says what was taken to be there, one line each, sorted.
func (h *AssumedHost) Notes() []string {
	notes := make([]string, 0, len(h.notes))
	for note := range h.notes {
		notes = append(notes, note)
	}
	sort.Strings(notes)
	return notes
}

// notePresent is the note on a path.
const notePresent = "%s is not on this machine: it is taken to be on the node"

func (h *AssumedHost) notef(format string, args ...any) { h.notes[fmt.Sprintf(format, args...)] = true }

// absent reports whether err says that a path is not there that may be on a node. What
// careen looks for by itself below /sys and /etc/netns is not of that kind.
func absent(name string, err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !below(name, "/sys") && !below(name, "/etc/netns")
}

// ReadFile returns a file without content for an absent one.
func (h *AssumedHost) ReadFile(name string, limit int64) ([]byte, error) {
	content, err := h.host.ReadFile(name, limit)
	if !absent(name, err) {
		return content, err
	}
	h.notef("%s is not on this machine: its content is not known", name)
	if strings.HasSuffix(name, ".json") {
		return []byte("{}"), nil
	}
	return nil, nil
}

// Stat takes an absent path below /dev for a device node, a time zone for a file and
// all else for a directory.
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

// Lstat is the host's: only files that must not exist are looked for with it.
func (h *AssumedHost) Lstat(name string) (fs.FileInfo, error) { return h.host.Lstat(name) }

// ReadDir is the host's.
func (h *AssumedHost) ReadDir(name string) ([]fs.DirEntry, error) { return h.host.ReadDir(name) }

// EvalSymlinks takes an absent path for one without links.
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
	delete(h.notes, fmt.Sprintf(notePresent, name)) // this says as much
	h.notef("%s is not on this machine: its type and numbers are not known", name)
	return specs.LinuxDevice{Path: name, Type: "c"}, nil
}

// MountFlags returns those of the nearest directory above an absent path.
func (h *AssumedHost) MountFlags(name string) ([]string, error) {
	flags, err := h.host.MountFlags(name)
	for absent(name, err) && name != "/" {
		name = path.Dir(name)
		flags, err = h.host.MountFlags(name)
	}
	return flags, err
}

// LookupUser is the host's, or an account without a name of its own.
func (h *AssumedHost) LookupUser(name string) (string, error) {
	line, err := h.host.LookupUser(name)
	if err == nil {
		return line, nil
	}
	h.notef("there is no account %s on this machine: its numbers are not known", name)
	return name + ":x:1000:1000::/:/bin/sh", nil
}

// Files returns the files of an image that is not at hand: it has the users and groups
// that run and the image's own USER name, and every directory.
func (h *AssumedHost) Files(run *oci.Run, imageUser string) oci.Files {
	spec := run.Options.User
	if spec == "" {
		spec = imageUser
	}
	user, group, _ := strings.Cut(spec, ":")
	files := assumedFiles{"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/group": "root:x:0:\n"}
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

// named reports whether name is one that only the image's files can tell the number of.
func (h *AssumedHost) named(what, name string) bool {
	if name == "" || name == "root" || strings.Trim(name, "0123456789") == "" {
		return false
	}
	h.notef("the image's files are not given (--rootfs): the number of the %s %s is made up", what, name)
	return true
}

// assumedFiles are the files of an image by path.
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

// assumed describes a file that is taken to be there.
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
