package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/procfs"
)

// maxConfigFile limits resolv.conf and hosts.
const maxConfigFile = 1 << 20

// GatherNode returns what the node offers, for package oci. Devices come and go, and
// resolv.conf may be written late, so call it for every run. A feature that the kernel
// lacks is reported as absent. An error, with the code [fault.Node], means that the node
// could not be examined.
func GatherNode() (oci.Node, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return oci.Node{}, nodeError("read", "the node's name", err, "Mount /proc")
	}
	n := oci.Node{
		Hostname: hostname, CgroupV2: DetectCgroups() == CgroupV2, SeccompArch: runtime.GOARCH,
		CPUs:     max(countList(file.ReadWord("/sys/devices/system/cpu/online")), 1),
		MemNodes: max(countList(file.ReadWord("/sys/devices/system/node/online")), 1),
		AppArmor: file.ReadWord("/sys/module/apparmor/parameters/enabled") == "Y",
		SELinux:  procfs.HasFilesystem("selinuxfs") && statfsType("/sys/fs/selinux") == unix.SELINUX_MAGIC,
		Seccomp:  HasSeccomp(),
	}
	if n.Capabilities, err = Capabilities(); err != nil {
		return oci.Node{}, nodeError("read", "the agent's capabilities", err, "")
	}
	if n.ResolvConf, err = readOptional("/etc/resolv.conf"); err != nil {
		return oci.Node{}, nodeError("read", "/etc/resolv.conf", err, "")
	}
	if n.Hosts, err = readOptional("/etc/hosts"); err != nil {
		return oci.Node{}, nodeError("read", "/etc/hosts", err, "")
	}
	if n.Devices, err = devices("/dev"); err != nil {
		return oci.Node{}, nodeError("read", "/dev", err, "")
	}
	n.PidMax, _ = strconv.ParseInt(file.ReadWord("/proc/sys/kernel/pid_max"), 10, 64)
	n.NoSwapLimit = lacksLimit(n.CgroupV2, "memory/memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max")
	n.NoBlkioWeight = lacksLimit(n.CgroupV2, "blkio/blkio.weight", "io.max", "io.weight", "io.bfq.weight")
	if info, err := os.Stat("/usr/share/zoneinfo"); err == nil && info.IsDir() {
		n.ZoneinfoDir = "/usr/share/zoneinfo"
	}
	return n, nil
}

// Capabilities returns the names of the bounding set, sorted: the capabilities that a
// process of the agent can ever have. Errors are the kernel's, without a fault code.
func Capabilities() ([]string, error) {
	var names []string
	for _, c := range capability.ListKnown() {
		bound, err := capability.GetBound(c)
		if errors.Is(err, unix.EINVAL) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if bound {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	sort.Strings(names)
	return names, nil
}

func readOptional(path string) ([]byte, error) {
	data, err := file.ReadLimited(path, maxConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// skipDevices are directories of /dev that a container gets new: their nodes belong to one
// mount namespace or are no devices.
var skipDevices = map[string]bool{
	"pts": true, "shm": true, "fd": true, "mqueue": true, ".lxc": true, ".lxd-mounts": true, ".udev": true,
}

// devices returns the device nodes below dir, sorted by path, without the console: the
// runtime makes the container's console.
func devices(dir string) ([]specs.LinuxDevice, error) {
	var list []specs.LinuxDevice
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // unplugged meanwhile
		case err != nil:
			return err
		case d.IsDir():
			if path != dir && skipDevices[d.Name()] {
				return filepath.SkipDir
			}
			return nil
		case d.Type()&fs.ModeDevice == 0, path == filepath.Join(dir, "console"):
			return nil
		}
		one, err := device(path, unix.Lstat)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		list = append(list, one)
		return nil
	})
	return list, err
}

// countList returns how many numbers a kernel's list such as "0-3,8" has, 0 for an invalid
// list.
func countList(list string) int {
	total := 0
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			return 0
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil || b < a {
				return 0
			}
		}
		total += b - a + 1
	}
	return total
}

// HasSeccomp reports whether the kernel has seccomp filters. It offers a filter at a bad
// address: EFAULT says that the kernel tried to read it.
func HasSeccomp() bool {
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0)
	return errors.Is(err, unix.EFAULT)
}

// lacksLimit reports whether the kernel has a controller but not one of its limits. v1
// shows the limits in every cgroup. The root of v2 has no limit files, so its children are
// examined: if one of them has the controller's file sure and none has a file of the
// limit, the kernel was built without it.
func lacksLimit(v2 bool, v1 string, sure string, files ...string) bool {
	if !v2 {
		return unix.Access(filepath.Join(cgroupRoot, v1), unix.F_OK) != nil
	}
	some := func(name string) bool {
		found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", name))
		return err == nil && len(found) > 0
	}
	return some(sure) && !slices.ContainsFunc(files, some)
}
