package gendoc

// Difference is something that careen does otherwise than podman 4.3.1 on purpose.
type Difference struct {
	// Case is the option set of testdata/conformance that shows it, "" where it
	// concerns every container.
	Case string
	// What is the difference, Reason why it is there.
	What, Reason string
}

// Differences returns all differences from podman 4.3.1, first those that concern
// every container or a kind of option, then those of single option sets of the
// conformance corpus. docs/options.md lists them.
func Differences() []Difference { return append([]Difference(nil), differences...) }

var differences = []Difference{
	{
		What:   "No --network, or an empty one, means the node's network, podman's default is a bridge",
		Reason: "a ramdisk has no bridge, and steps fetch firmware and report results over the node's network",
	},
	{
		What:   "container= in the environment is careen",
		Reason: "the variable names the engine",
	},
	{
		What:   "TERM is set with --tty only",
		Reason: "as podman does from 4.7 on; a program that writes to a log must not take it for a terminal",
	},
	{
		What:   "No resource limits but those of --ulimit; --ulimit=host adds none",
		Reason: "as podman does from 4.6 on; 4.3.1 raises nofile and nproc, which an agent without CAP_SYS_RESOURCE cannot",
	},
	{
		What: "/proc/interrupts, /sys/devices/virtual/powercap and the CPUs' thermal_throttle are masked too;" +
			" /sys/dev/block, which newer podman shows, stays masked",
		Reason: "the stricter of both lists",
	},
	{
		What:   "No limit of processes is written as -1, not as 0",
		Reason: "the runtime-spec now takes 0 for a limit of none at all, which would keep the container from starting",
	},
	{
		What:   "cgroups are /careen/careen-ID, not /libpod_parent/libpod-ID",
		Reason: "the names are the engine's; --cgroup-parent replaces the first part in both",
	},
	{
		What:   "/dev/shm is a tmpfs of the container's, not a bind of one that was mounted on the node",
		Reason: "same size and options, and nothing to clean up",
	},
	{
		What:   "copy and nocopy are not among the options of a volume's mount",
		Reason: "they are for the engine, which acts on them; podman leaves them in, and runtimes ignore them",
	},
	{
		What:   "No annotations io.podman.* and io.container.manager, no /run/secrets",
		Reason: "they are podman's own; /run/.containerenv is there, since programs look for it",
	},
	{
		What:   "/run/careen is mounted for the step's result and critical sections",
		Reason: "it is how a step talks to careen; anything that the options mount there wins",
	},
	{
		What:   "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES and NOTIFY_SOCKET of the caller do not leak in",
		Reason: "neither the descriptors nor the socket reach the container, so a program would wait for them in vain",
	},
	{
		What:   "/etc/hosts has no host.containers.internal, and with --network=none no name that the engine made up",
		Reason: "on the node's network the node is localhost; a made-up name is known to nobody",
	},
	{
		What:   "A network namespace of its own whose node has only name servers on its loopback gets none",
		Reason: "podman falls back to a public server; a machine in a data centre must not ask one",
	},
	{
		What:   "An entry without a value in the image's environment is ignored",
		Reason: "podman fills it in from the environment of the engine, which is none of an image's business",
	},
	{
		What:   "--env-merge keeps what follows the second = of a value",
		Reason: "podman 4.3.1 cuts it off; newer podman does not",
	},
	{
		What:   "--hostuser reads ids as decimal numbers when --user names the account",
		Reason: "podman 4.3.1 takes them for octal",
	},
	{
		What:   "No AppArmor profile is applied unless --security-opt=apparmor= names one that is loaded",
		Reason: "podman loads its own profile with a program that a ramdisk does not have",
	},
	{
		What:   "All that is wrong with a set of options is reported together, and before anything is pulled",
		Reason: "podman stops at the first, and finds some only when the image is there",
	},
	{
		What: "--oom-score-adj outside -1000 to 1000 and values that cannot work, such as an unknown --personality, a throttle" +
			" for a directory or an idmap without gids=, are refused",
		Reason: "podman passes them on, and the runtime fails later with a worse message",
	},
	{
		What:   "--log-opt=tag= passes whatever the log driver is, --env-merge without = is refused like any other wrong value",
		Reason: "the options of logs have no effect; podman's conmon refuses the first, podman itself ends with a panic at the second",
	},
	{Case: "container-ns", What: "container:NAME is refused", Reason: "there is no other container whose namespaces could be joined"},
	{Case: "detach", What: "--detach is refused", Reason: "a step is judged by its exit code"},
	{Case: "detach-cluster", What: "-d is refused in a cluster too", Reason: "a step is judged by its exit code"},
	{Case: "gpus-noop", What: "--gpus is refused", Reason: "podman 4.3.1 ignores it, and the container would run without the GPU"},
	{Case: "init", What: "the init binary is at /run/careen-init", Reason: "the name is the engine's"},
	{Case: "ip-mac-alias", What: "--ip, --mac-address and --network-alias are refused", Reason: "they need a bridge"},
	{Case: "mount-image", What: "--mount=type=image is refused", Reason: "one image runs at a time, and the store is small"},
	{
		Case: "neg-init-no-binary", What: "--init works where the node has no init binary", Reason: "careen is its own reaper",
	},
	{Case: "pidfiles", What: "--conmon-pidfile is refused", Reason: "there is no conmon"},
	{Case: "requires", What: "--requires is refused", Reason: "there is no other container to depend on"},
	{Case: "secret-mount", What: "--secret is refused", Reason: "a ramdisk has no store of secrets"},
	{Case: "userns-maps", What: "--uidmap and --gidmap are refused", Reason: "they need a copy of the image with shifted ids"},
	{
		Case: "vol-idmap", What: "idmap without a mapping is left out",
		Reason: "without a user namespace it is the identity, and the runtime refuses an id-mapped mount without a mapping",
	},
	{Case: "volumes-from", What: "--volumes-from is refused", Reason: "no earlier container is left"},
}
