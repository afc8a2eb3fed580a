package oci

import (
	"io/fs"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Host is the node that the options refer to. Package oci does no I/O: careen
// passes the Host of package rootfs, tests pass a fake.
// Paths are absolute; errors are those of package os.
type Host interface {
	// ReadFile reads an --env-file, a seccomp profile, a label file. It must
	// refuse more than limit bytes.
	ReadFile(path string, limit int64) ([]byte, error)
	Stat(path string) (fs.FileInfo, error)
	Lstat(path string) (fs.FileInfo, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	// EvalSymlinks is filepath.EvalSymlinks on the node.
	EvalSymlinks(path string) (string, error)
	// Device returns type ('b' or 'c'), numbers, mode and owner of a device node.
	Device(path string) (specs.LinuxDevice, error)
	// MountFlags returns which of nosuid, nodev, noexec the file system that holds
	// path is mounted with; a bind inherits them.
	MountFlags(path string) ([]string, error)
	// LookupUser returns a host account for --hostuser, in passwd(5) format.
	LookupUser(name string) (string, error)
}

// Files reads the image's own files, for users, groups and symbolic links.
// Paths are absolute inside the image and never leave it.
type Files interface {
	// ReadFile follows links inside the image only; absent is fs.ErrNotExist.
	ReadFile(path string, limit int64) ([]byte, error)
	// Resolve follows all symbolic links of path inside the image as far as it exists.
	Resolve(path string) (string, error)
	Stat(path string) (fs.FileInfo, error)
}

// Node lists the features of the node. The caller collects them once.
type Node struct {
	Hostname string
	// CgroupV2 is true on the unified layout only, not on the hybrid one.
	CgroupV2 bool
	// Capabilities that the kernel and the agent's bounding set have, as CAP_X.
	Capabilities []string
	// ResolvConf and Hosts are the contents of the node's files, empty if absent.
	ResolvConf, Hosts []byte
	// Devices are all device nodes under /dev, for --privileged.
	Devices []specs.LinuxDevice
	// PidMax, CPUs (number online) and MemNodes serve podman's checks on v1.
	PidMax   int64
	CPUs     int
	MemNodes int
	// SeccompArch is the node's architecture as GOARCH.
	SeccompArch string
	// AppArmor, SELinux and Seccomp say which of these the kernel supports.
	AppArmor, SELinux, Seccomp bool
	// NoSwapLimit is true where the kernel does not limit swap, so that memory is
	// limited without it.
	NoSwapLimit bool
	// NoBlkioWeight is true where cgroups have no block I/O weight, so that
	// --blkio-weight is dropped with a warning.
	NoBlkioWeight bool
	// ZoneinfoDir is /usr/share/zoneinfo if the node has it, else "".
	ZoneinfoDir string
}

// Image has the data of the image that Build needs.
type Image struct {
	// Reference is the name as the operator wrote it, Digest what it resolved to.
	Reference string
	Digest    string
	Config    ocispec.Image
	// Annotations are those of the image's manifest; they go into the spec.
	Annotations map[string]string
	Files       Files
}

// BuildInput is the input of [Run.Build] apart from the options.
type BuildInput struct {
	// ID is the container's id: 64 hexadecimal digits.
	ID    string
	Image Image
	Node  Node
	Host  Host
	// Dir is the run's directory on the node, where generated files will lie.
	Dir string
	// VolumeDir is the store's directory of named volumes, each a directory with its
	// name; "" keeps them in Dir for this run only.
	VolumeDir string
	// ControlDir is bound at /run/careen in the container (result file, critical
	// section); "" for none.
	ControlDir string
	// Previous is a file bound at /run/careen/previous.json in the container, read-only;
	// "" for none. It requires ControlDir.
	Previous string
	// Environ are the caller's variables: -e NAME, -e 'NAME*', --env-host, proxies.
	Environ map[string]string
	// InitPath is the node's path of the binary that --init mounts: careen's binary.
	InitPath string
	// RootFS is the directory or overlay that becomes the container's root.
	RootFS string
}

// Plan is a spec and everything that has to be created on the node before it can run.
// Every path in it lies below BuildInput.Dir unless it says otherwise.
type Plan struct {
	Spec *specs.Spec
	// Files must be written first: resolv.conf, hosts, hostname, passwd...
	Files []PlanFile
	// Volumes are directories that must exist as mount sources.
	Volumes []PlanVolume
	// Overlays are -v SRC:DST:O mounts.
	Overlays []PlanOverlay
	// Chowns are sources of -v SRC:DST:U, to be owned by the container's user.
	Chowns []PlanChown
	// RootDirs must be made inside the image's root with mode 0755, such as the
	// image's working directory. A directory that was missing belongs to
	// Spec.Process.User; its parents belong to root.
	RootDirs []string
	// RootAppends are lines to add to files inside the image's root, which are made
	// if they are absent: /etc/passwd and /etc/group for an unknown numeric user.
	// Links are followed inside the root only. A container with a read-only root
	// has none; it gets such files as Files.
	RootAppends []PlanAppend
	// TmpCopyUp are tmpfs destinations that start with the image's content; they
	// are in Spec.Mounts with podman's tmpcopyup option, which the runtime knows.

	// StopSignal is a signal number, 0 never. StopTimeout is the grace period.
	StopSignal  int
	StopTimeout time.Duration
	// Timeout is --timeout; 0 means none.
	Timeout time.Duration
	// Labels are those of the image and of the operator; the operator's win.
	Labels map[string]string
	// Warnings, one line each: options that were ignored as podman ignores them, and
	// options that weaken isolation.
	Warnings []string
}

// PlanFile is a generated file.
type PlanFile struct {
	Path    string
	Content []byte
	Mode    fs.FileMode
	UID     int
	GID     int
}

// PlanVolume is a scratch directory: a named or an anonymous volume.
type PlanVolume struct {
	Path string
	// Name is the volume's name, "" for an anonymous one. Named volumes live
	// as long as the store: Path is then below the store, not the run.
	Name string
	// CopyFrom is the path inside the image whose content, owner and mode a new or
	// empty volume starts with, "" for none.
	CopyFrom string
	// UID and GID own a new volume when the image has no CopyFrom to take the
	// owner from.
	UID, GID int
}

// PlanAppend is text to add to the end of a file of the container's root.
type PlanAppend struct {
	// Path is absolute inside the root.
	Path    string
	Content []byte
}

// PlanOverlay is a writable overlay over a directory of the node; changes are discarded.
// Upper and Work must exist; Upper starts with Lower's owner and mode.
type PlanOverlay struct {
	// Lower is the directory of the node. Target is where to mount on the node, ""
	// when Spec.Mounts has the overlay mount itself, which is what Build makes.
	Lower, Target string
	// Upper and Work are given by upperdir= and workdir=, or lie below Dir.
	Upper, Work string
}

// PlanChown is a directory of the node to be owned by the container's user.
type PlanChown struct {
	Path     string
	UID, GID int
}
