package oci

// isolateOptions choose the namespaces.
var isolateOptions = []OptionInfo{
	{
		Name: "cgroupns", Arg: "host|private|ns:PATH", Group: GroupIsolate, Default: "private on cgroup v2, host on v1",
		Help: "cgroup namespace", Example: "--cgroupns=host",
	},
	{
		Name: "ipc", Arg: "shareable|private|none|host|ns:PATH", Group: GroupIsolate, Default: "shareable",
		Help: "IPC namespace; host: also the node's /dev/shm; none: no /dev/shm", Example: "--ipc=host",
	},
	{
		Name: "pid", Arg: "private|host|ns:PATH", Group: GroupIsolate, Default: "private",
		Help: "PID namespace; host: the container sees and can signal all processes of the node", Example: "--pid=host",
	},
	{
		Name: "userns", Arg: "host", Group: GroupReject, Verdict: Reject, Harmless: []string{"", "host"}, Default: "host",
		Help: "user namespaces need a copy of the image with shifted ids", Instead: "use --user to run as another user",
	},
	{
		Name: "uts", Arg: "private|host|ns:PATH", Group: GroupIsolate, Default: "private",
		Help: "UTS namespace; host: the node's host name", Example: "--uts=host",
	},
}

// netOptions set the network and name resolution.
var netOptions = []OptionInfo{
	{
		Name: "add-host", Kind: List, Arg: "NAME:IP", Group: GroupNet,
		Help: "add a line to /etc/hosts", Example: "--add-host=mirror:10.0.0.5",
		Difference: "the generated /etc/hosts has no host.containers.internal",
	},
	{
		Name: "dns", Kind: List, Arg: "IP|none", Group: GroupNet, Default: "the node's",
		Help: "name server; none: keep the image's /etc/resolv.conf", Example: "--dns=10.0.0.53",
		Difference: "in a private network namespace without a usable name server of the node there is none; podman adds a public one",
	},
	{
		Name: "dns-option", Aliases: []string{"dns-opt"}, Kind: List, Arg: "OPTION", Group: GroupNet, Default: "the node's",
		Help: "resolver option", Example: "--dns-option=ndots:2",
	},
	{
		Name: "dns-search", Kind: List, Arg: "DOMAIN", Group: GroupNet, Default: "the node's",
		Help: "search domain; a dot removes all", Example: "--dns-search=lab.example",
	},
	{
		Name: "hostname", Short: "h", Arg: "NAME", Group: GroupNet, Default: "the node's with --network=host, otherwise the id",
		Help: "host name, also in HOSTNAME and /etc/hostname; not with --uts=host", Example: "--hostname=flasher",
	},
	{
		Name: "hosts-file", Arg: "FILE|image|none", Group: GroupNet, Default: "the node's /etc/hosts", Podman: "newer",
		Help: "base of the generated /etc/hosts", Example: "--hosts-file=none",
	},
	{
		Name: "network", Aliases: []string{"net"}, Kind: Array, Arg: "host|none|ns:PATH", Group: GroupNet, Default: "host",
		Help:       "host: the node's network; none: loopback only; ns:PATH: an existing namespace",
		Difference: "the default is host, in podman a bridge; bridge, slirp4netns, pasta and named networks are refused",
		Example:    "--network=host",
	},
	{
		Name: "no-hostname", Kind: Bool, Group: GroupNet, Default: "false", Podman: "newer",
		Help: "keep the image's /etc/hostname",
	},
	{
		Name: "no-hosts", Kind: Bool, Group: GroupNet, Default: "false",
		Help: "keep the image's /etc/hosts; not with --add-host",
	},
}

// mountOptions add mounts.
var mountOptions = []OptionInfo{
	{
		Name: "chrootdirs", Kind: List, Arg: "DIR", Group: GroupMounts,
		Help: "mount hosts and resolv.conf also under this directory", Example: "--chrootdirs=/srv/chroot",
	},
	{
		Name: "image-volume", Arg: "anonymous|bind|tmpfs|ignore", Group: GroupMounts, Default: "anonymous",
		Help: "how to mount the image's VOLUME paths", Example: "--image-volume=tmpfs",
		Difference: "anonymous is newer podman's word for bind; 4.3.1 does not know it",
	},
	{
		Name: "mount", Kind: Array, Arg: "type=TYPE,...", Group: GroupMounts,
		Help: "mount of type bind, tmpfs, devpts, ramfs or volume",
		Difference: "type=ramfs as in newer podman; image, glob and artifact are refused, and volume-opt, since volumes" +
			" are directories of the store",
		Example: "--mount=type=bind,src=/etc/ssl,dst=/etc/ssl,ro",
	},
	{
		Name: "shm-size", Arg: "SIZE", Group: GroupMounts, Default: "64000k",
		Help: "size of /dev/shm; not with --ipc=host", Example: "--shm-size=256m",
	},
	{
		Name: "shm-size-systemd", Arg: "SIZE", Group: GroupMounts, Podman: "newer",
		Help: "size of the tmpfs mounts of systemd mode", Example: "--shm-size-systemd=64m",
	},
	{
		Name: "tmpfs", Kind: Array, Arg: "DIR[:OPTIONS]", Group: GroupMounts,
		Help:    "tmpfs, nosuid,nodev unless told otherwise, which starts with the image's content",
		Example: "--tmpfs=/scratch:size=64m,mode=1777",
	},
	{
		Name: "tz", Arg: "ZONE|local", Group: GroupMounts, Default: "the image's",
		Help: "mount the node's file of this time zone at /etc/localtime", Example: "--tz=Europe/Berlin",
	},
	{
		Name: "volume", Short: "v", Kind: Array, Arg: "[SOURCE:]DIR[:OPTIONS]", Group: GroupMounts,
		Help: "bind a path of the node; a name is a directory of the store, no source a scratch directory." +
			" Options: ro, rw, noexec, nosuid, nodev and their opposites, [r]private, [r]slave, [r]shared, bind, rbind, O, U," +
			" z, Z, idmap, copy, nocopy, upperdir=, workdir=",
		Difference: "idmap without a mapping is the identity here and is left out; a store volume lasts as long as the store",
		Example:    "--volume=/lib/modules:/lib/modules:ro",
	},
}

// deviceOptions give devices.
var deviceOptions = []OptionInfo{
	{
		Name: "device", Kind: List, Arg: "PATH[:PATH][:rwm]", Group: GroupDevices,
		Help:    "give a device node, or all below a directory; links are resolved; without effect beside --privileged",
		Example: "--device=/dev/sg0:/dev/sg0:rw", Difference: "CDI names (vendor/class=device) are refused",
	},
	{
		Name: "device-cgroup-rule", Kind: List, Arg: "'TYPE MAJOR:MINOR ACCESS'", Group: GroupDevices,
		Help:    "allow devices that are not there yet; without effect beside --privileged",
		Example: "--device-cgroup-rule='c 188:* rwm'",
	},
	{
		Name: "blkio-weight-device", Kind: List, Arg: "DEVICE:WEIGHT", Group: GroupDevices,
		Help: "block I/O weight for one device, 10 to 1000", Example: "--blkio-weight-device=/dev/sda:200",
	},
	{
		Name: "device-read-bps", Kind: List, Arg: "DEVICE:RATE", Group: GroupDevices,
		Help: "limit reading, in bytes a second", Example: "--device-read-bps=/dev/sda:1mb",
	},
	{
		Name: "device-read-iops", Kind: List, Arg: "DEVICE:RATE", Group: GroupDevices,
		Help: "limit reading, in operations a second", Example: "--device-read-iops=/dev/sda:1000",
	},
	{
		Name: "device-write-bps", Kind: List, Arg: "DEVICE:RATE", Group: GroupDevices,
		Help: "limit writing, in bytes a second", Example: "--device-write-bps=/dev/sda:1mb",
	},
	{
		Name: "device-write-iops", Kind: List, Arg: "DEVICE:RATE", Group: GroupDevices,
		Help: "limit writing, in operations a second", Example: "--device-write-iops=/dev/sda:1000",
	},
}

// limitOptions bound what the container takes.
var limitOptions = []OptionInfo{
	{
		Name: "blkio-weight", Arg: "WEIGHT", Group: GroupLimits,
		Help: "block I/O weight, 10 to 1000; dropped with a warning where the kernel has none", Example: "--blkio-weight=500",
	},
	{
		Name: "cgroup-conf", Kind: List, Arg: "FILE=VALUE", Group: GroupLimits,
		Help: "write a file of the container's cgroup; cgroup v2 only", Example: "--cgroup-conf=memory.high=1073741824",
	},
	{
		Name: "cgroup-parent", Arg: "PATH", Group: GroupLimits, Default: "/careen",
		Help: "parent of the container's cgroup", Example: "--cgroup-parent=/steps",
		Difference: "the cgroup names contain careen instead of libpod",
	},
	{
		Name: "cgroups", Arg: "enabled|disabled|no-conmon", Group: GroupLimits, Default: "enabled",
		Help: "disabled: no default process limit; split is refused because there is no conmon", Example: "--cgroups=enabled",
	},
	{
		Name: "cpu-period", Kind: Uint, Arg: "MICROSECONDS", Group: GroupLimits,
		Help: "CFS period; not with --cpus", Example: "--cpu-period=100000",
	},
	{
		Name: "cpu-quota", Kind: Int, Arg: "MICROSECONDS", Group: GroupLimits,
		Help: "CFS quota; not with --cpus", Example: "--cpu-quota=50000",
	},
	{
		Name: "cpu-rt-period", Kind: Uint, Arg: "MICROSECONDS", Group: GroupLimits,
		Help: "real-time period; ignored with a warning on cgroup v2", Example: "--cpu-rt-period=1000000",
	},
	{
		Name: "cpu-rt-runtime", Kind: Int, Arg: "MICROSECONDS", Group: GroupLimits,
		Help: "real-time runtime; ignored with a warning on cgroup v2", Example: "--cpu-rt-runtime=950000",
	},
	{
		Name: "cpu-shares", Short: "c", Kind: Uint, Arg: "WEIGHT", Group: GroupLimits,
		Help: "CPU shares (relative weight); 0: not set", Example: "--cpu-shares=512",
	},
	{
		Name: "cpus", Kind: Float, Arg: "NUMBER", Group: GroupLimits,
		Help: "number of CPUs, as a quota in a period of 100 ms", Example: "--cpus=1.5",
	},
	{
		Name: "cpuset-cpus", Arg: "LIST", Group: GroupLimits,
		Help: "CPUs that the container may use; on cgroup v1 they must exist", Example: "--cpuset-cpus=0-3,8",
	},
	{
		Name: "cpuset-mems", Arg: "LIST", Group: GroupLimits,
		Help: "memory (NUMA) nodes that the container may use; on cgroup v1 they must exist", Example: "--cpuset-mems=0",
	},
	{
		Name: "memory", Short: "m", Arg: "SIZE", Group: GroupLimits,
		Help: "memory limit; memory plus swap is limited to twice this", Example: "--memory=512m",
	},
	{
		Name: "memory-reservation", Arg: "SIZE", Group: GroupLimits,
		Help: "soft memory limit", Example: "--memory-reservation=128m",
	},
	{
		Name: "memory-swap", Arg: "SIZE|-1", Group: GroupLimits,
		Help: "limit of memory plus swap; -1: no limit on swap", Example: "--memory-swap=1g",
	},
	{
		Name: "memory-swappiness", Kind: Int, Arg: "0-100", Group: GroupLimits, Default: "-1 (the kernel's)",
		Help: "swappiness of the container's memory; no effect on cgroup v2", Example: "--memory-swappiness=10",
	},
	{
		Name: "oom-kill-disable", Kind: Bool, Group: GroupLimits, Default: "false",
		Help: "do not kill processes at the memory limit; no effect on cgroup v2",
	},
	{
		Name: "oom-score-adj", Kind: Int, Arg: "-1000..1000", Group: GroupLimits,
		Help: "OOM score adjustment of the container", Example: "--oom-score-adj=500",
	},
	{
		Name: "pids-limit", Kind: Int, Arg: "N", Group: GroupLimits, Default: "2048",
		Help: "maximum number of processes and threads; -1 or 0: no limit", Example: "--pids-limit=4096",
		Difference: "no limit is -1 in the spec, as the runtime-spec requires now; podman 4.3.1 writes 0",
	},
	{
		Name: "sysctl", Kind: List, Arg: "NAME=VALUE", Group: GroupLimits, Default: "net.ipv4.ping_group_range=0 0",
		Help:    "kernel parameter of the container's private namespaces: net.*, fs.mqueue.*, kernel.msg*, sem, shm*",
		Example: "--sysctl=net.ipv4.ip_forward=1",
	},
	{
		Name: "ulimit", Kind: List, Arg: "NAME=SOFT[:HARD]|host", Group: GroupLimits, Default: "the agent's",
		Help:       "resource limit; host: discard all limits given before",
		Difference: "limits that are not given stay as they are, as in newer podman; 4.3.1 sets nofile and nproc",
		Example:    "--ulimit=nofile=1024:2048",
	},
}
