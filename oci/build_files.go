package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultShmSize is podman's 64000k.
const defaultShmSize = 65536000

// engineBind mounts a generated file at a path, unless the user mounts there.
func (b *builder) engineBind(destination, source string) {
	if b.hasMount(destination) {
		return
	}
	options := []string{"bind", "rprivate"}
	if b.o.ReadOnly {
		options = append(options, "ro", "nosuid", "noexec", "nodev")
	}
	b.mounts = append(b.mounts, specs.Mount{Destination: destination, Type: "bind", Source: source, Options: options})
}

// rootBind mounts a file also below each of --chrootdirs.
func (b *builder) rootBind(destination, source string) {
	b.engineBind(destination, source)
	for _, dir := range b.o.ChrootDirs {
		b.engineBind(path.Join(dir, destination), source)
	}
}

// engineMounts adds the mounts of the engine: /dev/shm, resolv.conf, hosts, hostname, the
// time zone, /run/.containerenv (by which programs recognise a container), and the control
// directory.
func (b *builder) engineMounts() error {
	b.shm()
	if b.o.Network.Mode != NamespaceNone && !b.o.ImageResolvConf {
		b.rootBind("/etc/resolv.conf", b.file("resolv.conf", b.resolvConf(), 0o644))
	}
	if !b.o.NoHosts {
		hosts, err := b.hosts()
		if err != nil {
			return err
		}
		b.rootBind("/etc/hosts", b.file("hosts", hosts, 0o644))
	}
	if !b.o.NoHostname {
		b.engineBind("/etc/hostname", b.file("hostname", []byte(b.fileHostname()), 0o644))
	}
	if err := b.localtime(); err != nil {
		return err
	}
	if !b.marked {
		b.engineBind(markerDestination, b.file("containerenv", b.marker(), 0o644))
	}
	if b.in.ControlDir != "" && !b.hasMount(controlDestination) {
		b.mounts = append(b.mounts, specs.Mount{
			Destination: controlDestination, Type: "bind", Source: b.in.ControlDir,
			Options: []string{"bind", "rw", "rprivate", "nosuid", "nodev", "noexec"},
		})
		if b.in.Previous != "" && !b.hasMount(previousDestination) {
			b.mounts = append(b.mounts, specs.Mount{
				Destination: previousDestination, Type: "bind", Source: b.in.Previous,
				Options: []string{"bind", "ro", "rprivate", "nosuid", "nodev", "noexec"},
			})
		}
	}
	return nil
}

// shm mounts /dev/shm: the node's with --ipc=host, none with --ipc=none, else a tmpfs.
func (b *builder) shm() {
	switch {
	case b.hasMount("/dev/shm") || b.o.IPC.Mode == NamespaceNone:
	case b.o.IPC.Host():
		b.mounts = append(b.mounts, specs.Mount{
			Destination: "/dev/shm", Type: "bind", Source: "/dev/shm",
			Options: []string{"bind", "rprivate", "nosuid", "noexec", "nodev"},
		})
	default:
		size := b.o.ShmSize
		if size == 0 {
			size = defaultShmSize
		}
		b.mounts = append(b.mounts, specs.Mount{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "rprivate", "mode=1777", fmt.Sprintf("size=%d", size)},
		})
	}
}

// marker is the content of /run/.containerenv. podman writes it only for a privileged
// container.
func (b *builder) marker() []byte {
	if !b.o.Privileged {
		return nil
	}
	return fmt.Appendf(nil, "engine=%q\nname=%q\nid=%q\nimage=%q\nimageid=%q\nrootless=0\n",
		"careen", b.o.Name, b.in.ID, b.in.Image.Reference, b.in.Image.Digest)
}

func (b *builder) localtime() error {
	zone := b.o.Timezone
	if zone == "" || b.hasMount("/etc/localtime") {
		return nil
	}
	if b.in.Host == nil {
		return needHost("--tz=" + zone)
	}
	content, err := b.in.Host.ReadFile(zonePath(zone), maxFile)
	if err != nil {
		e := badOption("--tz="+zone, "the node has no data for this time zone: "+err.Error(), "--tz=Europe/Berlin")
		e.Err = err
		return Errors{e}
	}
	b.engineBind("/etc/localtime", b.file("localtime", content, 0o644))
	return nil
}

// hosts makes /etc/hosts: --add-host, then the base file, then localhost and the
// container's name if they are missing.
func (b *builder) hosts() ([]byte, error) {
	base, err := b.hostsBase()
	if err != nil {
		return nil, err
	}
	var lines strings.Builder
	known := make(map[string]bool)
	write := func(ip string, names []string) {
		for _, name := range names {
			known[name] = true
		}
		lines.WriteString(ip + "\t" + strings.Join(names, " ") + "\n")
	}
	for _, entry := range b.o.AddHosts {
		name, ip, _ := strings.Cut(entry, ":")
		write(ip, []string{name})
	}
	for _, line := range strings.Split(string(base), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 1 {
			write(fields[0], fields[1:])
		}
	}
	// What is added at the end may repeat a name among itself: localhost has two
	// addresses.
	taken := make(map[string]bool, len(known))
	for name := range known {
		taken[name] = true
	}
	own := []string{}
	if b.o.Network.Mode == NamespaceNone {
		own = append(own, b.fileHostname())
		if b.o.Name != "" {
			own = append(own, b.o.Name)
		}
	}
	for _, entry := range []struct {
		ip    string
		names []string
	}{{"127.0.0.1", []string{"localhost"}}, {"::1", []string{"localhost"}}, {"127.0.0.1", own}} {
		free := []string{}
		for _, name := range entry.names {
			if !taken[name] {
				free = append(free, name)
			}
		}
		if len(free) > 0 {
			write(entry.ip, free)
		}
	}
	return []byte(lines.String()), nil
}

func (b *builder) hostsBase() ([]byte, error) {
	switch file := b.o.HostsFile; {
	case file == "":
		return b.in.Node.Hosts, nil
	case file == "none":
		return nil, nil
	case file == "image" && b.in.Image.Files != nil:
		content, err := b.imageFile("/etc/hosts")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading /etc/hosts of the image: %w", err)
		}
		return content, nil
	case b.in.Host == nil:
		return nil, needHost("--hosts-file=" + file)
	default:
		content, err := b.in.Host.ReadFile(file, maxFile)
		if err != nil {
			return nil, Errors{asFault(err, "--hosts-file="+file, "--hosts-file=none")}
		}
		return content, nil
	}
}

var (
	nameserverLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\s*nameserver\s+(\S+)\s*$`)
	})
	searchLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\s*search\s+(.*)$`)
	})
	optionsLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\s*options\s+(.*)$`)
	})
)

// resolver is the content of a resolv.conf.
type resolver struct {
	servers, searches, options []string
}

func parseResolv(content []byte) resolver {
	var r resolver
	for _, line := range strings.Split(string(content), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if match := nameserverLine().FindStringSubmatch(line); match != nil {
			r.servers = append(r.servers, match[1])
		}
		// Of several lines the last one counts, as in the resolver itself.
		if match := searchLine().FindStringSubmatch(line); match != nil {
			r.searches = strings.Fields(match[1])
		}
		if match := optionsLine().FindStringSubmatch(line); match != nil {
			r.options = strings.Fields(match[1])
		}
	}
	return r
}

// resolvConf makes resolv.conf: what --dns, --dns-search and --dns-option leave
// open is the node's. Each kind that is given replaces the node's of that kind.
// In a private network namespace servers on the node's loopback are left out, because the
// container cannot reach them.
func (b *builder) resolvConf() []byte {
	node := parseResolv(b.nodeResolv())
	if !b.o.Network.Host() {
		node.servers = withoutLoopback(node.servers)
	}
	servers, searches, options := b.o.DNS, b.o.DNSSearch, b.o.DNSOptions
	if len(servers) == 0 {
		servers = node.servers
		// podman keeps the node's searches and options beside those that are
		// given as long as the servers are the node's too.
		if len(searches) > 0 && searches[0] != "." {
			searches = append(append([]string(nil), searches...), node.searches...)
		}
		if len(options) > 0 {
			options = append(append([]string(nil), options...), node.options...)
		}
		if len(servers) == 0 {
			b.warnf("the node has no name server that the container can reach; names cannot be resolved")
		}
	}
	if len(searches) == 0 {
		searches = node.searches
	}
	if len(options) == 0 {
		options = node.options
	}
	var lines strings.Builder
	if len(searches) > 0 && searches[0] != "." {
		lines.WriteString("search " + strings.Join(searches, " ") + "\n")
	}
	for _, server := range servers {
		lines.WriteString("nameserver " + server + "\n")
	}
	if len(options) > 0 {
		lines.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return []byte(lines.String())
}

// nodeResolv is the node's resolv.conf, or that of a namespace made by ip-netns.
func (b *builder) nodeResolv() []byte {
	ns := b.o.Network
	if ns.Mode == NamespacePath && !strings.HasPrefix(ns.Path, "/proc/") && b.in.Host != nil {
		file := path.Join("/etc/netns", path.Base(ns.Path), "resolv.conf")
		if content, err := b.in.Host.ReadFile(file, maxFile); err == nil {
			return content
		}
	}
	return b.in.Node.ResolvConf
}

func withoutLoopback(servers []string) []string {
	var kept []string
	for _, server := range servers {
		if ip := net.ParseIP(server); ip == nil || !ip.IsLoopback() {
			kept = append(kept, server)
		}
	}
	return kept
}

// systemdMounts adds the mounts that systemd needs as PID 1.
func (b *builder) systemdMounts() error {
	if !b.systemd {
		return nil
	}
	options := []string{"rw", "rprivate", "nosuid", "nodev", "tmpcopyup"}
	if b.o.ShmSizeSystemd > 0 {
		options = append(options, fmt.Sprintf("size=%d", b.o.ShmSizeSystemd))
	}
	for _, destination := range []string{"/run", "/run/lock", "/tmp", "/var/log/journal"} {
		if !b.hasMount(destination) {
			b.mounts = append(b.mounts, specs.Mount{
				Destination: destination, Type: "tmpfs", Source: "tmpfs", Options: append([]string(nil), options...),
			})
		}
	}
	if b.in.Node.CgroupV2 {
		b.systemdCgroup2()
		return nil
	}
	const dir = "/sys/fs/cgroup/systemd"
	if b.in.Host == nil {
		return nil
	}
	flags, err := b.in.Host.MountFlags(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		flags = []string{"nodev", "noexec", "nosuid"}
	}
	b.mounts = append(b.mounts, specs.Mount{
		Destination: dir, Type: "bind", Source: dir, Options: append([]string{"bind", "rprivate"}, flags...),
	})
	b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, dir+"/release_agent")
	return nil
}

// systemdCgroup2 makes the cgroup file system writable.
func (b *builder) systemdCgroup2() {
	kept := b.mounts[:0]
	for _, m := range b.mounts {
		if m.Destination != "/sys/fs/cgroup" {
			kept = append(kept, m)
		}
	}
	cgroup := specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"private", "rw"},
	}
	if !b.hasNamespace(specs.CgroupNamespace) {
		cgroup.Type, cgroup.Source = "bind", "/sys/fs/cgroup"
		cgroup.Options = []string{"bind", "private", "rw"}
	}
	b.mounts = append(kept, cgroup)
}
