package oci

import (
	"fmt"
	"path"
)

// warn adds the options that weaken isolation to the plan's warnings.
func (b *builder) warn() error {
	b.plan.Warnings = append(b.plan.Warnings, b.run.Isolation()...)
	if b.o.Published {
		b.warnf("published ports are ignored: there is no bridge network to publish from")
	}
	return nil
}

// engineSockets are sockets through which a container can take over the node.
var engineSockets = []string{
	"/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/var/run/podman/podman.sock",
	"/run/containerd/containerd.sock", "/run/careen/careen.sock",
}

// Isolation lists how the options weaken the isolation of the container, one line each. It
// is empty for podman's default isolation.
func (r *Run) Isolation() []string {
	o := &r.Options
	var warnings []string
	add := func(on bool, format string, args ...any) {
		if on {
			warnings = append(warnings, fmt.Sprintf(format, args...))
		}
	}
	add(o.Privileged, "--privileged: all capabilities, all devices, no seccomp filter; the container can change the node")
	add(o.PID.Host(), "--pid=host: the container sees all processes of the node and can signal them")
	add(o.IPC.Host(), "--ipc=host: the container shares the node's shared memory and semaphores")
	add(o.UTS.Host() && o.Privileged, "--uts=host: the container can change the node's host name")
	add(!o.Privileged && o.Security.SeccompPath == "unconfined", "seccomp=unconfined: every system call is allowed")
	add(o.Security.AppArmor == "unconfined" && !o.Privileged, "apparmor=unconfined: no AppArmor profile applies")
	for _, entry := range o.Security.Unmask {
		add(!o.Privileged, "unmask=%s: kernel files that are masked by default can be read or written", entry)
	}
	if !o.Privileged {
		for _, name := range o.CapAdd {
			warnings = append(warnings, capabilityWarning(name)...)
		}
	}
	for _, m := range o.Mounts {
		warnings = append(warnings, mountWarning(m)...)
	}
	for _, rule := range o.Resources.DeviceRules {
		add(!o.Privileged && rule.Type == "a", "--device-cgroup-rule of type a: the container can use every device")
	}
	return warnings
}

// powerful are capabilities that are equivalent to root on the node.
var powerful = map[string]string{
	"CAP_SYS_ADMIN":          "mount, namespaces and much more",
	"CAP_SYS_MODULE":         "loading kernel modules",
	"CAP_SYS_RAWIO":          "raw access to ports, memory and disks",
	"CAP_SYS_PTRACE":         "reading and changing other processes",
	"CAP_SYS_BOOT":           "rebooting, and loading another kernel",
	"CAP_DAC_READ_SEARCH":    "opening any file by its handle",
	"CAP_MKNOD":              "creating device nodes",
	"CAP_BPF":                "loading programs into the kernel",
	"CAP_PERFMON":            "tracing the kernel",
	"CAP_MAC_ADMIN":          "changing mandatory access control",
	"CAP_NET_ADMIN":          "changing the network",
	"CAP_CHECKPOINT_RESTORE": "restoring processes",
	capAll:                   "all capabilities, almost --privileged",
}

func capabilityWarning(name string) []string {
	normal, err := normalizeCap(name)
	if err != nil {
		return nil
	}
	if what, ok := powerful[normal]; ok {
		return []string{fmt.Sprintf("--cap-add=%s: %s", normal, what)}
	}
	return nil
}

func mountWarning(m Mount) []string {
	if m.Kind != MountBind {
		return nil
	}
	access := "readable and writable"
	if contains(m.Options, "ro") {
		access = "readable"
	}
	source := path.Clean(m.Source)
	switch {
	case source == "/":
		return []string{fmt.Sprintf("%s: the node's whole file system is %s", m.Written, access)}
	case contains(engineSockets, source):
		return []string{m.Written + ": through this socket the container can start any other container"}
	case access != "readable" && (source == "/dev" || below(source, "/proc") || below(source, "/sys")):
		return []string{fmt.Sprintf("%s: the node's %s is writable", m.Written, source)}
	case access != "readable" && (source == "/etc" || source == "/usr" || source == "/boot" || source == "/run"):
		return []string{fmt.Sprintf("%s: the node's %s is writable", m.Written, source)}
	}
	return nil
}
