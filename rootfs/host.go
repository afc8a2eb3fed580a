package rootfs

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs/file"
)

// Host returns the node as package oci sees it. It has no state and may be used
// concurrently.
func Host() oci.Host { return host{} }

type host struct{}

var _ oci.Host = host{}

// ReadFile refuses files that are too large and files without an end, such as pipes.
func (host) ReadFile(path string, limit int64) ([]byte, error) { return file.ReadLimited(path, limit) }

func (host) Stat(path string) (fs.FileInfo, error)         { return os.Stat(path) }
func (host) Lstat(path string) (fs.FileInfo, error)        { return os.Lstat(path) }
func (host) ReadDir(path string) ([]fs.DirEntry, error)    { return os.ReadDir(path) }
func (host) EvalSymlinks(path string) (string, error)      { return filepath.EvalSymlinks(path) }
func (host) Device(path string) (specs.LinuxDevice, error) { return device(path, unix.Stat) }

// MountFlags names the flags in the order nosuid, nodev, noexec.
func (host) MountFlags(path string) ([]string, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	var flags []string
	for _, f := range []struct {
		bit  int64
		name string
	}{{unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"}} {
		if s.Flags&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	return flags, nil
}

// LookupUser reads only /etc/passwd: a ramdisk has no other source of accounts, and a
// static binary cannot use NSS. name may be a number.
func (host) LookupUser(name string) (string, error) {
	data, err := file.ReadLimited("/etc/passwd", 8<<20)
	if err != nil {
		return "", err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) == 7 && (fields[0] == name || fields[2] == name) {
			return lines.Text(), nil
		}
	}
	return "", fmt.Errorf("user %s in /etc/passwd: %w", name, fs.ErrNotExist)
}

// device describes the device node at path.
func device(path string, stat func(string, *unix.Stat_t) error) (specs.LinuxDevice, error) {
	var s unix.Stat_t
	if err := stat(path, &s); err != nil {
		return specs.LinuxDevice{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	var kind string
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		kind = "b"
	case unix.S_IFCHR:
		kind = "c"
	default:
		return specs.LinuxDevice{}, &fs.PathError{Op: "stat", Path: path, Err: errNotDevice}
	}
	mode, uid, gid := os.FileMode(s.Mode&0o7777), s.Uid, s.Gid
	return specs.LinuxDevice{
		Path: path, Type: kind,
		Major: int64(unix.Major(s.Rdev)), Minor: int64(unix.Minor(s.Rdev)),
		FileMode: &mode, UID: &uid, GID: &gid,
	}, nil
}

var errNotDevice = fmt.Errorf("not a device node: %w", fs.ErrInvalid)
