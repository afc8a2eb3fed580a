package oci

import (
	"fmt"
	"path"
	"sort"
	"strconv"
	"strings"
)

// allCapabilities are the capabilities that podman 4.3.1 knows, in kernel order.
var allCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCapabilities are those of Debian's containers.conf and of podman from 4.4 on.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP",
	"CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

const capAll = "ALL"

// normalizeCap returns the name as CAP_X, or ALL.
func normalizeCap(name string) (string, error) {
	name = strings.ToUpper(name)
	if name == capAll {
		return name, nil
	}
	if !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	if !contains(allCapabilities, name) {
		return "", fmt.Errorf("%s is not a capability", quote(name))
	}
	return name, nil
}

func normalizeCaps(names []string) ([]string, error) {
	caps := make([]string, 0, len(names))
	for _, name := range names {
		normal, err := normalizeCap(name)
		if err != nil {
			return nil, err
		}
		caps = append(caps, normal)
	}
	sort.Strings(caps)
	return caps, nil
}

// mergeCaps adds to and removes from base. ALL in add is the bounding set, ALL in
// drop keeps only what add names.
func mergeCaps(base, add, drop, bounding []string) ([]string, error) {
	add, err := normalizeCaps(add)
	if err != nil {
		return nil, err
	}
	if drop, err = normalizeCaps(drop); err != nil {
		return nil, err
	}
	addAll, dropAll := contains(add, capAll), contains(drop, capAll)
	switch {
	case addAll && dropAll:
		return nil, fmt.Errorf("all capabilities cannot be both added and dropped")
	case dropAll:
		return unique(add), nil
	case addAll:
		base, add = bounding, nil
	}
	for _, name := range drop {
		if contains(add, name) {
			return nil, fmt.Errorf("%s cannot be both added and dropped", name)
		}
	}
	var caps []string
	for _, name := range append(append([]string(nil), base...), add...) {
		if !contains(drop, name) {
			caps = append(caps, name)
		}
	}
	return unique(caps), nil
}

func (p *runParser) capabilities() {
	o := p.o
	o.Privileged = p.bool("privileged", false)
	o.ReadOnly, o.ReadOnlyTmpfs = p.bool("read-only", false), p.bool("read-only-tmpfs", true)
	o.CapAdd, o.CapDrop = p.list("cap-add"), p.list("cap-drop")
	names := []string{"cap-add", "cap-drop"}
	switch {
	case o.Privileged && isRoot(o.User):
		// They have no effect then, and podman does not check the names.
		return
	case o.Privileged:
		names = names[:1]
	}
	wrong := false
	for _, name := range names {
		for _, it := range p.items(name) {
			if _, err := normalizeCap(it.value); err != nil {
				p.badItem(name, it, err.Error())
				wrong = true
			}
		}
	}
	if wrong || o.Privileged {
		return
	}
	if _, err := mergeCaps(defaultCapabilities, o.CapAdd, o.CapDrop, allCapabilities); err != nil {
		p.bad("cap-add", err.Error())
	}
}

func (p *runParser) security() {
	o := p.o
	switch o.SeccompPolicy = p.text("seccomp-policy", "default"); o.SeccompPolicy {
	case "default", "image":
	case "":
		o.SeccompPolicy = "default"
	default:
		p.bad("seccomp-policy", "it is neither default nor image")
	}
	for _, it := range p.items("security-opt") {
		if it.value == "no-new-privileges" {
			o.Security.NoNewPrivileges = true
			continue
		}
		// Docker's older spelling has a colon.
		separator := "="
		if !strings.Contains(it.value, "=") {
			separator = ":"
		}
		name, value, ok := strings.Cut(it.value, separator)
		if !ok {
			p.badItem("security-opt", it, "the option does not exist")
			continue
		}
		p.securityOption(it, name, value)
	}
	p.seccompFile()
}

func (p *runParser) securityOption(it item, name, value string) {
	sec := &p.o.Security
	switch name {
	case "apparmor":
		sec.AppArmor = value
	case "label":
		sec.Labels = append(sec.Labels, value)
	case "mask":
		for _, path := range strings.Split(value, ":") {
			// podman ignores a relative path with a log message.
			if strings.HasPrefix(path, "/") {
				sec.Mask = append(sec.Mask, path)
			}
		}
	case "unmask":
		sec.Unmask = append(sec.Unmask, value)
	case "proc-opts":
		sec.ProcOpts = strings.Split(value, ",")
	case "seccomp":
		sec.SeccompPath = value
	case "systempaths":
		if value != "unconfined" {
			p.badItem("security-opt", it, "systempaths can only be unconfined")
			return
		}
		sec.Unmask = append(sec.Unmask, capAll)
	case "no-new-privileges":
		on, err := strconv.ParseBool(value)
		if err != nil {
			p.badItem("security-opt", it, quote(value)+" is neither true nor false")
		}
		sec.NoNewPrivileges = on
	case "writable-cgroups":
		p.fail(unsupported(it.written, "only newer docker has it", "Use --security-opt=unmask=/sys/fs/cgroup"))
	default:
		p.badItem("security-opt", it, "the option does not exist")
	}
}

// seccompFile reads and checks the profile that the last seccomp= names.
func (p *runParser) seccompFile() {
	sec := &p.o.Security
	if sec.SeccompPath == "" || sec.SeccompPath == "unconfined" {
		return
	}
	it := item{value: sec.SeccompPath, written: "--security-opt=seccomp=" + sec.SeccompPath}
	sec.SeccompPath = p.path(sec.SeccompPath)
	content, ok := p.readFile(it, sec.SeccompPath)
	if !ok {
		return
	}
	sec.SeccompProfile = content
	if _, err := parseSeccomp(content); err != nil {
		p.badItem("security-opt", it, err.Error())
	}
}

func (p *runParser) namespaces() {
	o := p.o
	o.PID = p.namespace("pid")
	o.UTS = p.namespace("uts")
	o.CgroupNS = p.namespace("cgroupns")
	switch text := p.text("ipc", ""); text {
	case "shareable", "":
		o.IPC = Namespace{Mode: NamespaceShareable}
	case "none":
		o.IPC = Namespace{Mode: NamespaceNone}
	default:
		o.IPC = p.namespace("ipc")
	}
	switch o.Cgroups = p.text("cgroups", "enabled"); o.Cgroups {
	case "enabled", "no-conmon", "disabled":
	case "":
		o.Cgroups = "enabled"
	case "split":
		p.fail(unsupported(p.written("cgroups"), "there is no conmon process", "leave it out"))
	default:
		p.bad("cgroups", "it is not one of enabled, disabled and no-conmon")
	}
	if o.CgroupParent = p.text("cgroup-parent", ""); strings.HasSuffix(path.Base(o.CgroupParent), ".slice") {
		p.bad("cgroup-parent", "careen does not use systemd slices")
	}
}

// namespace reads the value of a namespace option other than --network's.
func (p *runParser) namespace(name string) Namespace {
	text := p.text(name, "")
	path, isPath := strings.CutPrefix(text, "ns:")
	switch {
	case text == "":
		return Namespace{}
	case text == "host":
		return Namespace{Mode: NamespaceHost}
	case text == "private":
		return Namespace{Mode: NamespacePrivate}
	case isPath:
		return p.namespacePath(name, path)
	case strings.HasPrefix(text, "container:"), text == "pod":
		p.fail(unsupported(p.written(name), "there is no other container to share a namespace with",
			"Use host, or ns:PATH for an existing namespace"))
	default:
		p.bad(name, "the namespace mode is unknown")
	}
	return Namespace{}
}

func (p *runParser) namespacePath(name, path string) Namespace {
	if path == "" {
		p.bad(name, "ns: is not followed by a path")
		return Namespace{}
	}
	path = p.path(path)
	if p.caller.Host != nil {
		if _, err := p.caller.Host.Stat(path); err != nil {
			e := badOption(p.written(name), "the namespace does not exist: "+err.Error(), "")
			e.Err, e.Remedy = err, "Use the path of a namespace, such as /run/netns/NAME"
			p.fail(e)
		}
	}
	return Namespace{Mode: NamespacePath, Path: path}
}

func contains(list []string, s string) bool {
	for _, element := range list {
		if element == s {
			return true
		}
	}
	return false
}

// unique sorts list and removes duplicates.
func unique(list []string) []string {
	sorted := append([]string(nil), list...)
	sort.Strings(sorted)
	out := sorted[:0]
	for i, s := range sorted {
		if i == 0 || s != sorted[i-1] {
			out = append(out, s)
		}
	}
	return out
}
