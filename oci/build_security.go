package oci

import (
	"fmt"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/containers/common/pkg/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Labels of images that podman acts on.
const (
	capabilitiesLabel = "io.containers.capabilities"
	seccompLabel      = "io.containers.seccomp.profile"
)

// maskedPaths are podman 4.3.1's and those that newer podman adds.
var maskedPaths = []string{
	"/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
	"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block", "/sys/devices/virtual/powercap",
	"/sys/firmware", "/sys/fs/selinux",
}

var readonlyPaths = []string{
	"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
}

// capabilities fills the five sets. A user other than root starts only with the
// capabilities of --cap-add, and keeps them over an exec through the ambient set.
func (b *builder) capabilities() error {
	bounding, err := b.boundingSet()
	if err != nil {
		return err
	}
	caps := &specs.LinuxCapabilities{Bounding: bounding, Ambient: []string{}, Inheritable: []string{}}
	b.spec.Process.Capabilities = caps
	if isRoot(b.userSpec()) {
		caps.Effective, caps.Permitted = bounding, bounding
		return nil
	}
	own, err := mergeCaps(nil, b.o.CapAdd, nil, b.nodeCapabilities())
	if err != nil {
		return Errors{asFault(err, "--cap-add", "--cap-add=SYS_RAWIO")}
	}
	own = intersect(own, b.nodeCapabilities())
	caps.Effective, caps.Permitted, caps.Inheritable, caps.Ambient = own, own, own, own
	return nil
}

// isRoot reports whether podman treats USER[:GROUP] as root without a lookup.
func isRoot(spec string) bool {
	user, _, _ := strings.Cut(spec, ":")
	return user == "" || user == "root" || user == "0"
}

func (b *builder) boundingSet() ([]string, error) {
	node := b.nodeCapabilities()
	if b.o.Privileged {
		return node, nil
	}
	caps, err := mergeCaps(defaultCapabilities, b.o.CapAdd, b.o.CapDrop, node)
	if err != nil {
		return nil, Errors{asFault(err, "--cap-add", "--cap-add=SYS_RAWIO")}
	}
	caps = intersect(caps, node)
	label, ok := b.allLabels[capabilitiesLabel]
	if !ok {
		return caps, nil
	}
	wanted, err := mergeCaps(nil, strings.Split(label, ","), nil, node)
	if err != nil {
		return nil, &fault.Error{
			Code: fault.BadImage, Op: "run image", Subject: b.in.Image.Reference, Err: err,
			Reason: fmt.Sprintf("its label %s: %v", capabilitiesLabel, err), Remedy: "Correct the label with --label",
		}
	}
	for _, name := range wanted {
		if !contains(caps, name) {
			b.warnf("the label %s asks for %s, which the container does not have; the label is ignored", capabilitiesLabel, name)
			return caps, nil
		}
	}
	return wanted, nil
}

// nodeCapabilities are the capabilities that the agent can give, sorted.
func (b *builder) nodeCapabilities() []string { return unique(b.in.Node.Capabilities) }

func intersect(list, other []string) []string {
	kept := []string{}
	for _, s := range list {
		if contains(other, s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// filter sets the AppArmor profile and the seccomp filter.
func (b *builder) filter() error {
	if b.in.Node.AppArmor {
		b.spec.Process.ApparmorProfile = b.o.Security.AppArmor
	}
	sec := b.o.Security
	if sec.SeccompPath == "unconfined" {
		return nil
	}
	content := sec.SeccompProfile
	if b.o.SeccompPolicy == "image" {
		label := b.image.Labels[seccompLabel]
		if label == "" {
			return &fault.Error{
				Code: fault.BadImage, Op: "run image", Subject: b.in.Image.Reference,
				Reason: "--seccomp-policy=image, but the image has no label " + seccompLabel,
				Remedy: "Leave the option out, or use --security-opt=seccomp=FILE",
			}
		}
		content = []byte(label)
	}
	profile := seccomp.DefaultProfile()
	if content != nil {
		var err error
		if profile, err = parseSeccomp(content); err != nil {
			return Errors{asFault(err, "--seccomp-policy="+b.o.SeccompPolicy, "")}
		}
	}
	// A privileged container has a filter only with --security-opt=seccomp=FILE.
	if b.o.Privileged && sec.SeccompPath == "" {
		return nil
	}
	if !b.in.Node.Seccomp {
		return &fault.Error{
			Code: fault.Node, Op: "filter the system calls of", Subject: b.in.Image.Reference,
			Reason: "the kernel has no seccomp (CONFIG_SECCOMP_FILTER)",
			Remedy: "Use another kernel, or --security-opt=seccomp=unconfined",
		}
	}
	result, err := evalSeccomp(profile, b.in.Node.SeccompArch, b.spec.Process.Capabilities.Bounding)
	if err != nil {
		return Errors{asFault(err, "--security-opt", "")}
	}
	b.spec.Linux.Seccomp = result
	return nil
}

// paths lists the masked and the read-only paths below /proc and /sys.
func (b *builder) paths() error {
	linux, unmask := b.spec.Linux, b.o.Security.Unmask
	if !b.o.Privileged {
		for _, masked := range append(append([]string(nil), maskedPaths...), b.throttlePaths()...) {
			if shouldMask(masked, unmask) {
				linux.MaskedPaths = append(linux.MaskedPaths, masked)
			}
		}
		for _, readonly := range readonlyPaths {
			if shouldMask(readonly, unmask) {
				linux.ReadonlyPaths = append(linux.ReadonlyPaths, readonly)
			}
		}
	}
	for _, masked := range b.o.Security.Mask {
		if !contains(linux.MaskedPaths, masked) {
			linux.MaskedPaths = append(linux.MaskedPaths, masked)
		}
	}
	return nil
}

// throttlePaths are the CPUs' counters of thermal events, where there are any.
func (b *builder) throttlePaths() []string {
	var paths []string
	for cpu := 0; cpu < b.in.Node.CPUs && b.in.Host != nil; cpu++ {
		file := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", cpu)
		if _, err := b.in.Host.Stat(file); err == nil {
			paths = append(paths, file)
		}
	}
	return paths
}

// shouldMask is false when unmask=ALL or a pattern of unmask= matches.
func shouldMask(file string, unmask []string) bool {
	for _, entry := range unmask {
		if strings.EqualFold(entry, capAll) {
			return false
		}
		for _, pattern := range strings.Split(entry, ":") {
			if match, err := filepath.Match(pattern, file); err == nil && match {
				return false
			}
		}
	}
	return true
}

// cgroupAccess is ro, or rw for privileged and on cgroup v2 for unmask=ALL (in
// capitals and first) and unmask=/sys/fs/cgroup.
func (b *builder) cgroupAccess() string {
	if b.o.Privileged {
		return "rw"
	}
	unmask := b.o.Security.Unmask
	if !b.in.Node.CgroupV2 || len(unmask) == 0 {
		return "ro"
	}
	if unmask[0] == capAll {
		return "rw"
	}
	for _, entry := range unmask {
		if path.Clean(entry) == "/sys/fs/cgroup" {
			return "rw"
		}
	}
	return "ro"
}

// devices adds the device nodes and the device rules.
func (b *builder) devices() error {
	linux := b.spec.Linux
	if b.o.Privileged {
		for _, device := range b.in.Node.Devices {
			if privilegedDevice(device.Path) && !(b.systemd && strings.HasPrefix(device.Path, "/dev/tty")) {
				linux.Devices = append(linux.Devices, device)
			}
		}
		linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, option := range b.o.Devices {
		if b.in.Host == nil {
			return needHost(option.Written)
		}
		devices, err := resolveDevice(b.in.Host, option)
		if err != nil {
			return Errors{asFault(err, option.Written, "--device=/dev/sg0")}
		}
		for _, found := range devices {
			device := found.device
			b.addDevice(device)
			rules = append(rules, specs.LinuxDeviceCgroup{
				Allow: true, Type: device.Type, Major: &device.Major, Minor: &device.Minor, Access: found.access,
			})
		}
	}
	linux.Resources.Devices = append(rules, b.resources.DeviceRules...)
	return nil
}

// addDevice adds a device, or replaces the one at its path.
func (b *builder) addDevice(device specs.LinuxDevice) {
	for i := range b.spec.Linux.Devices {
		if b.spec.Linux.Devices[i].Path == device.Path {
			b.spec.Linux.Devices[i] = device
			return
		}
	}
	b.spec.Linux.Devices = append(b.spec.Linux.Devices, device)
}

// privilegedDevice is false for devices that every container has.
func privilegedDevice(file string) bool {
	for _, own := range []string{"/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/.lxc", "/dev/.lxd-mounts"} {
		if below(file, own) {
			return false
		}
	}
	return true
}

// sortedNames returns the keys of m in order.
func sortedNames(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
