package oci

import (
	"fmt"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Caller is the environment of one command.
type Caller struct {
	// Host is the node. With nil, checks on the node (such as the existence of devices)
	// are skipped, and files that options name cannot be read.
	Host Host
	// Environ are the variables of the caller's shell.
	Environ map[string]string
	// WorkDir is the caller's directory, from which relative paths start.
	WorkDir string
}

// Run is one valid `run` command.
type Run struct {
	Options RunOptions
	Image   Reference
	// Command are the words after the image: they replace its CMD.
	Command []string

	scanned *scanned
	caller  Caller
}

// NamespaceMode is the source of a namespace.
type NamespaceMode string

// The modes. Default is podman's default for the kind of namespace.
const (
	NamespaceDefault   NamespaceMode = ""
	NamespaceHost      NamespaceMode = "host"
	NamespacePrivate   NamespaceMode = "private"
	NamespacePath      NamespaceMode = "path"
	NamespaceNone      NamespaceMode = "none"
	NamespaceShareable NamespaceMode = "shareable"
)

// Namespace is one of --network, --pid, --ipc, --uts and --cgroupns.
type Namespace struct {
	Mode NamespaceMode
	// Path is the namespace's file with NamespacePath.
	Path string
}

// Host reports whether the namespace is the node's.
func (n Namespace) Host() bool { return n.Mode == NamespaceHost }

// MountKind is the kind of a user's mount.
type MountKind string

// The kinds of mounts. A volume is a directory of the store. An overlay is a directory of
// the node; changes are discarded after the run.
const (
	MountBind    MountKind = "bind"
	MountTmpfs   MountKind = "tmpfs"
	MountDevpts  MountKind = "devpts"
	MountRamfs   MountKind = "ramfs"
	MountVolume  MountKind = "volume"
	MountOverlay MountKind = "overlay"
)

// Mount is one of --volume, --mount and --tmpfs.
type Mount struct {
	Kind MountKind
	// Source is an absolute path of the node, or a volume's name, or "".
	Source string
	// Destination is the absolute path in the container, as it was written.
	Destination string
	// Options are podman's, before its defaults are added.
	Options []string
	// Written is the option as the caller wrote it.
	Written string
	// raw is Destination before it was cleaned.
	raw string
}

// Device is one --device.
type Device struct {
	// Source is a device node or directory of the node, Destination its path in the
	// container, "" for the same. Access is of r, w and m, "" for all.
	Source, Destination, Access string
	// Written is the option as the caller wrote it.
	Written string
	// relative says that Source was not absolute as it was written.
	relative bool
	// twice marks an access that was given twice: podman accepts this for a device node
	// and refuses it for a directory.
	twice bool
}

// DeviceRate is one --blkio-weight-device or one of the options such as --device-read-bps.
type DeviceRate struct {
	Path    string
	Rate    uint64
	Written string
}

// Security holds the values of --security-opt.
type Security struct {
	NoNewPrivileges bool
	// AppArmor is a profile's name, "" when none is asked for.
	AppArmor string
	// Labels are the label= options.
	Labels []string
	// Mask and Unmask are paths; Unmask may hold ALL and patterns.
	Mask, Unmask []string
	// ProcOpts replace the options of /proc when it is not nil.
	ProcOpts []string
	// SeccompPath is the profile's file, "unconfined", or "" for the default.
	SeccompPath string
	// SeccompProfile is the content of SeccompPath.
	SeccompProfile []byte
}

// Resources are the limits before the node's cgroup version is known.
type Resources struct {
	// CPU, Memory and BlockIO are nil when no option asks for them.
	CPU     *specs.LinuxCPU
	Memory  *specs.LinuxMemory
	BlockIO *specs.LinuxBlockIO
	// PidsLimit is nil by default, 0 for no limit.
	PidsLimit *int64
	// Unified are cgroup v2 files.
	Unified map[string]string

	WeightDevices                          []DeviceRate
	ReadBps, WriteBps, ReadIOPS, WriteIOPS []DeviceRate
	// DeviceRules are --device-cgroup-rule.
	DeviceRules []specs.LinuxDeviceCgroup
	// Rlimits are --ulimit; empty leaves the agent's.
	Rlimits []specs.POSIXRlimit
	// OOMScoreAdj is nil by default.
	OOMScoreAdj *int
}

// RunOptions are the options of one `run`, typed. A nil pointer means that the
// option was not given where that differs from its zero value.
type RunOptions struct {
	// Help is set by --help; nothing else is checked then.
	Help bool

	Name, Hostname        string
	CIDFile, PIDFile      string
	Labels, Annotations   map[string]string
	Attach                []string
	Interactive, TTY      bool
	SigProxy, RemoveImage bool

	Entrypoint  *[]string
	WorkDir     string
	Init        bool
	InitPath    string
	Personality string
	Systemd     string
	// Umask is nil for --umask="", which leaves the agent's.
	Umask *uint32
	// StopSignal is 0 when the image decides.
	StopSignal  int
	StopTimeout time.Duration
	// Timeout is 0 for none.
	Timeout time.Duration

	// Env are the variables of --env-file and --env, looked up in the caller's.
	Env         map[string]string
	EnvHost     bool
	EnvMerge    []string
	HTTPProxy   bool
	UnsetEnv    []string
	UnsetEnvAll bool

	User                    string
	GroupAdd, HostUsers     []string
	KeepGroups              bool
	Passwd                  bool
	PasswdEntry, GroupEntry string

	CapAdd, CapDrop         []string
	Privileged              bool
	ReadOnly, ReadOnlyTmpfs bool
	SeccompPolicy           string
	Security                Security

	Network, PID, IPC, UTS, CgroupNS Namespace

	AddHosts                   []string
	HostsFile                  string
	NoHosts, NoHostname        bool
	DNS, DNSOptions, DNSSearch []string
	// ImageResolvConf is --dns=none.
	ImageResolvConf bool

	Mounts      []Mount
	ChrootDirs  []string
	ImageVolume string
	Timezone    string
	// ShmSize is in bytes, 0 for the default of 64000 KiB.
	ShmSize, ShmSizeSystemd int64

	Devices   []Device
	Resources Resources
	Sysctl    map[string]string

	CgroupParent string
	// Cgroups is "enabled", "no-conmon" or "disabled".
	Cgroups string

	// Published is true if --publish was given; its value is ignored.
	Published bool

	pull Pull
}

// Baseline returns the same image and command without options.
func (r *Run) Baseline() *Run {
	base, err := ParseRunOptions(nil, r.Image.Original, r.Command, Caller{Environ: map[string]string{}})
	if err != nil {
		// The image was parsed before, so this is a defect in careen.
		panic(fmt.Sprintf("parsing %q again: %v", r.Image.Original, err))
	}
	return base
}
