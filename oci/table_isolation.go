package oci

// isolateOptions choose the namespaces.
var isolateOptions = []OptionInfo{
	{
		Name: "cgroupns", Arg: "host|private|ns:PATH", Group: GroupIsolate, Default: "private on cgroup v2, host on v1",
		Help: "cgroup namespace", Example: "--cgroupns=host",
	},
	{
		Name: "ipc", Arg: "shareable|private|none|host|ns:PATH", Group: GroupIsolate, Default: "shareable",
		Help: "IPC namespace; host also gives the node's /dev/shm, none removes it", Example: "--ipc=host",
	},
	{
		Name: "pid", Arg: "private|host|ns:PATH", Group: GroupIsolate, Default: "private",
		Help: "PID namespace; host shows and may signal all processes of the node", Example: "--pid=host",
	},
	{
		Name: "userns", Arg: "host", Group: GroupReject, Verdict: Reject, Harmless: []string{"", "host"}, Default: "host",
		Help: "id shifting needs a shifted copy of the image", Instead: "use --user to run as somebody else",
	},
	{
		Name: "uts", Arg: "private|host|ns:PATH", Group: GroupIsolate, Default: "private",
		Help: "UTS namespace; host shares the node's name", Example: "--uts=host",
	},
}

// netOptions are about the network and the files that names are looked up in.
var netOptions = []OptionInfo{
	{
		Name: "add-host", Kind: List, Arg: "NAME:IP", Group: GroupNet,
		Help: "add a line to /etc/hosts", Example: "--add-host=mirror:10.0.0.5",
		Difference: "the generated /etc/hosts has no host.containers.internal",
	},
	{
		Name: "dns", Kind: List, Arg: "IP|none", Group: GroupNet, Default: "the node's",
		Help: "name server; none keeps the image's /etc/resolv.conf", Example: "--dns=10.0.0.53",
		Difference: "a private network namespace whose node has no usable name server gets none, not a public one",
	},
	{
		Name: "dns-option", Aliases: []string{"dns-opt"}, Kind: List, Arg: "OPTION", Group: GroupNet, Default: "the node's",
		Help: "resolver option", Example: "--dns-option=ndots:2",
	},
	{
		Name: "dns-search", Kind: List, Arg: "DOMAIN", Group: GroupNet, Default: "the node's",
		Help: "search domain; . removes them all", Example: "--dns-search=lab.example",
	},
	{
		Name: "hostname", Short: "h", Arg: "NAME", Group: GroupNet, Default: "the node's with --network=host, else the id",
		Help: "host name, HOSTNAME and /etc/hostname; not with --uts=host", Example: "--hostname=flasher",
	},
	{
		Name: "hosts-file", Arg: "FILE|image|none", Group: GroupNet, Default: "the node's /etc/hosts", Podman: "newer",
		Help: "what the generated /etc/hosts starts from", Example: "--hosts-file=none",
	},
	{
		Name: "network", Aliases: []string{"net"}, Kind: Array, Arg: "host|none|ns:PATH", Group: GroupNet, Default: "host",
		Help:       "host: the node's network; none: loopback only; ns:PATH: an existing namespace",
		Difference: "host is the default, podman's is a bridge; bridge, slirp4netns, pasta and named networks are refused",
		Example:    "--network=host",
	},
	{
		Name: "no-hostname", Kind: Bool, Group: GroupNet, Default: "false", Podman: "newer",
		Help: "leave the image's /etc/hostname in place",
	},
	{
		Name: "no-hosts", Kind: Bool, Group: GroupNet, Default: "false",
		Help: "leave the image's /etc/hosts in place; not with --add-host",
	},
}

// mountOptions put files into the container.
var mountOptions = []OptionInfo{
	{
		Name: "chrootdirs", Kind: List, Arg: "DIR", Group: GroupMounts,
		Help: "also mount hosts and resolv.conf below this directory", Example: "--chrootdirs=/srv/chroot",
	},
	{
		Name: "image-volume", Arg: "anonymous|bind|tmpfs|ignore", Group: GroupMounts, Default: "anonymous",
		Help: "what the image's VOLUME paths become", Example: "--image-volume=tmpfs",
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
		Help: "cgroup below which the container's is made", Example: "--cgroup-parent=/steps",
		Difference: "the cgroups are named careen where podman says libpod",
	},
	{
		Name: "cgroups", Arg: "enabled|disabled|no-conmon", Group: GroupLimits, Default: "enabled",
		Help: "disabled drops the default limit of processes; split is refused, there is no conmon", Example: "--cgroups=enabled",
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
		Help: "real-time period; dropped with a warning on cgroup v2", Example: "--cpu-rt-period=1000000",
	},
	{
		Name: "cpu-rt-runtime", Kind: Int, Arg: "MICROSECONDS", Group: GroupLimits,
		Help: "real-time runtime; dropped with a warning on cgroup v2", Example: "--cpu-rt-runtime=950000",
	},
	{
		Name: "cpu-shares", Short: "c", Kind: Uint, Arg: "WEIGHT", Group: GroupLimits,
		Help: "relative CPU weight; 0 leaves it unset", Example: "--cpu-shares=512",
	},
	{
		Name: "cpus", Kind: Float, Arg: "NUMBER", Group: GroupLimits,
		Help: "CPU time, as a quota over a period of 100 ms", Example: "--cpus=1.5",
	},
	{
		Name: "cpuset-cpus", Arg: "LIST", Group: GroupLimits,
		Help: "CPUs to run on; on cgroup v1 they must exist", Example: "--cpuset-cpus=0-3,8",
	},
	{
		Name: "cpuset-mems", Arg: "LIST", Group: GroupLimits,
		Help: "NUMA nodes to take memory from; on cgroup v1 they must exist", Example: "--cpuset-mems=0",
	},
	{
		Name: "memory", Short: "m", Arg: "SIZE", Group: GroupLimits,
		Help: "memory limit; sets memory and swap together to twice that", Example: "--memory=512m",
	},
	{
		Name: "memory-reservation", Arg: "SIZE", Group: GroupLimits,
		Help: "soft memory limit", Example: "--memory-reservation=128m",
	},
	{
		Name: "memory-swap", Arg: "SIZE|-1", Group: GroupLimits,
		Help: "memory and swap together; -1 leaves swap alone", Example: "--memory-swap=1g",
	},
	{
		Name: "memory-swappiness", Kind: Int, Arg: "0-100", Group: GroupLimits, Default: "-1, the kernel's",
		Help: "how readily the kernel swaps; without effect on cgroup v2", Example: "--memory-swappiness=10",
	},
	{
		Name: "oom-kill-disable", Kind: Bool, Group: GroupLimits, Default: "false",
		Help: "let processes wait for memory; without effect on cgroup v2",
	},
	{
		Name: "oom-score-adj", Kind: Int, Arg: "-1000..1000", Group: GroupLimits,
		Help: "how readily the kernel kills the container for memory", Example: "--oom-score-adj=500",
	},
	{
		Name: "pids-limit", Kind: Int, Arg: "N", Group: GroupLimits, Default: "2048",
		Help: "most processes and threads; -1 and 0 mean no limit", Example: "--pids-limit=4096",
		Difference: "no limit is written as -1, which is what the runtime-spec now wants, podman 4.3.1 writes 0",
	},
	{
		Name: "sysctl", Kind: List, Arg: "NAME=VALUE", Group: GroupLimits, Default: "net.ipv4.ping_group_range=0 0",
		Help:    "kernel parameter of the container's own namespaces: net.*, fs.mqueue.*, kernel.msg*, sem, shm*",
		Example: "--sysctl=net.ipv4.ip_forward=1",
	},
	{
		Name: "ulimit", Kind: List, Arg: "NAME=SOFT[:HARD]|host", Group: GroupLimits, Default: "the agent's",
		Help:       "resource limit; host drops all limits given before",
		Difference: "nothing is added for limits that are not named, as in newer podman; 4.3.1 sets nofile and nproc",
		Example:    "--ulimit=nofile=1024:2048",
	},
}
