package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/osthread"
)

// privileges checks the capabilities that creating a container needs.
func (d *examination) privileges() {
	bound, err := rootfs.Capabilities()
	if err != nil {
		d.warn("privileges", "Run careen doctor as root", "cannot read the capabilities: %s", oneLine(err))
		return
	}
	var missing []string
	for _, name := range []string{"CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD", "CAP_CHOWN", "CAP_DAC_OVERRIDE"} {
		if !slices.Contains(bound, name) {
			missing = append(missing, name)
		}
	}
	switch {
	case os.Geteuid() != 0:
		d.fail("privileges", "Run careen as root", "running as user %d", os.Geteuid())
	case len(missing) > 0:
		d.fail("privileges", "Give careen's service these capabilities", "root lacks %s", strings.Join(missing, ", "))
	default:
		d.ok("privileges", "root with %d capabilities", len(bound))
	}
}

func (d *examination) namespaces() {
	var missing, lesser []string
	for name, option := range map[string]string{
		"mnt": "", "pid": "CONFIG_PID_NS", "net": "CONFIG_NET_NS", "ipc": "CONFIG_IPC_NS", "uts": "CONFIG_UTS_NS",
	} {
		if !hasNamespace(name) {
			missing = append(missing, strings.TrimSpace(name+" "+option))
		}
	}
	for name, option := range map[string]string{"cgroup": "CONFIG_CGROUPS", "user": "CONFIG_USER_NS"} {
		if !hasNamespace(name) {
			lesser = append(lesser, name+" "+option)
		}
	}
	slices.Sort(missing)
	slices.Sort(lesser)
	switch {
	case len(missing) > 0:
		d.fail("namespaces", "Use a kernel that has them", "the kernel has no namespaces of kind %s", strings.Join(missing, ", "))
	case len(lesser) > 0:
		d.warn("namespaces", "Containers see the node's, or use a kernel that has them",
			"the kernel has no namespaces of kind %s", strings.Join(lesser, ", "))
	default:
		d.ok("namespaces", "mount, process, network, IPC, name, cgroup and user")
	}
}

// hasNamespace works without /proc: a kernel without the namespace refuses the flag with
// EINVAL.
func hasNamespace(kind string) bool {
	flags := map[string]int{
		"mnt": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "net": unix.CLONE_NEWNET, "ipc": unix.CLONE_NEWIPC,
		"uts": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP,
	}
	if flag, ok := flags[kind]; ok {
		err := osthread.Run(func() error { return unix.Unshare(flag) })
		return !errors.Is(err, unix.EINVAL)
	}
	// A single thread cannot have a new user namespace, so only the file shows it.
	// Without /proc there is no file; then report nothing.
	return !rootfs.ProcMounted() || unix.Access("/proc/self/ns/"+kind, unix.F_OK) == nil
}

func (d *examination) seccomp() {
	if !rootfs.HasSeccomp() {
		d.warn("seccomp", "Use a kernel with CONFIG_SECCOMP_FILTER", "the kernel has no seccomp filters: containers run without a filter")
		return
	}
	d.ok("seccomp", "filters work")
}

func (d *examination) keyring() {
	_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if errors.Is(err, unix.ENOSYS) {
		d.warn("keyring", "Use a kernel with CONFIG_KEYS", "the kernel has no keyrings: a container shares the agent's")
		return
	}
	d.ok("keyring", "session keyrings work")
}

// cgroupDevices checks whether access to devices can be limited. Every container needs
// that, except a privileged one.
func (d *examination) cgroupDevices() {
	const name = "cgroup_devices"
	switch mode := rootfs.DetectCgroups(); mode {
	case rootfs.CgroupV1, rootfs.CgroupHybrid:
		if !slices.Contains(rootfs.AvailableControllers(mode), "devices") {
			d.fail(name, "Mount the devices controller at /sys/fs/cgroup/devices", "the devices controller of cgroup v1 is not mounted")
			return
		}
		d.ok(name, "devices controller of cgroup v1")
	default:
		if err := loadDeviceProgram(); err != nil {
			d.fail(name, "Use a kernel with CONFIG_CGROUP_BPF, or run containers with --privileged",
				"access to devices cannot be limited: %s", oneLine(err))
			return
		}
		d.ok(name, "BPF programs of cgroup v2")
	}
}

// loadDeviceProgram loads and drops the BPF program "return 1" of the type that cgroup v2
// uses for device rules.
func loadDeviceProgram() error {
	const cgroupDevice = 15 // BPF_PROG_TYPE_CGROUP_DEVICE
	program := [2]uint64{0x00000001_000000b7, 0x00000000_00000095}
	license := [4]byte{'G', 'P', 'L', 0}
	attr := struct {
		kind, count    uint32
		insns, license uint64
		rest           [12]uint64
	}{
		kind: cgroupDevice, count: uint32(len(program)),
		insns: uint64(uintptr(unsafe.Pointer(&program))), license: uint64(uintptr(unsafe.Pointer(&license))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// pivot tries pivot_root, and where that fails, pivot_root after [rootfs.Enter].
func (d *examination) pivot() {
	err := rootfs.TryPivot()
	if err == nil {
		d.ok("pivot_root", "works as it is")
		return
	}
	enterErr := rootfs.TryEnter()
	if enterErr != nil {
		d.fail("pivot_root", "Run careen as root, not inside a chroot", "a container cannot leave this root: %s; nor a bind over it: %s",
			oneLine(err), oneLine(enterErr))
		return
	}
	d.ok("pivot_root", "works in careen's own mount namespace (the root is %s)", rootfs.RootType())
}

func (d *examination) modulesDir() {
	base, err := rootfs.ModulesDir(d.opts.Prepare.ModulesDir)
	if err != nil {
		d.warn("modules", "Put the kernel's modules into the ramdisk if a vendor's tool loads its own driver",
			"no kernel modules: %s", oneLine(err))
		return
	}
	d.ok("modules", "%s", base)
}

// noDevices reports whether /dev is not mounted yet, and adds that as the finding.
func (d *examination) noDevices(check string) bool {
	if rootfs.HasDevices("/dev") {
		return false
	}
	d.ok(check, "unknown until careen agent mounts /dev")
	return true
}

func (d *examination) devMem() {
	if d.noDevices("dev_mem") {
		return
	}
	if unix.Access("/dev/mem", unix.F_OK) != nil {
		d.warn("dev_mem", "Use a kernel with CONFIG_DEVMEM for tools that read the firmware's tables", "no /dev/mem")
		return
	}
	d.ok("dev_mem", "/dev/mem")
}

func (d *examination) ipmi() {
	if d.noDevices("ipmi") {
		return
	}
	for _, pattern := range []string{"/dev/ipmi[0-9]*", "/dev/ipmidev/[0-9]*", "/dev/ipmi/[0-9]*"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			d.ok("ipmi", "%s", strings.Join(found, ", "))
			return
		}
	}
	d.warn("ipmi", "Load ipmi_si and ipmi_devintf if a vendor's tool talks to the BMC in-band", "no IPMI device")
}

func (d *examination) lockdown() {
	state := file.ReadWord("/sys/kernel/security/lockdown")
	for _, mode := range []string{"integrity", "confidentiality"} {
		if strings.Contains(state, "["+mode+"]") {
			d.warn("lockdown", "Switch Secure Boot off for tools that write to /dev/mem, to MSRs or to PCI configuration space",
				"the kernel is locked down (%s)", mode)
			return
		}
	}
	d.ok("lockdown", "off")
}
