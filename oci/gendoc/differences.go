package gendoc

// Difference is an intended difference from podman 4.3.1.
type Difference struct {
	// Case is the option set of testdata/conformance that shows it, "" if it concerns
	// every container.
	Case string
	// What describes the difference, Reason why it exists.
	What, Reason string
}

// Differences returns all differences from podman 4.3.1, first those that concern
// every container or a kind of option, then those of single option sets of the
// conformance corpus. docs/options.md lists them.
func Differences() []Difference { return append([]Difference(nil), differences...) }

var differences = []Difference{
	{
		What:   "Without --network, or with an empty value, the container uses the node's network; podman's default is a bridge",
		Reason: "a ramdisk has no bridge, and steps use the node's network to fetch firmware and report results",
	},
	{
		What:   "container= in the environment is careen",
		Reason: "the variable names the engine",
	},
	{
		What:   "TERM is set only with --tty",
		Reason: "as in podman from 4.7 on; programs must not treat the log as a terminal",
	},
	{
		What:   "No resource limits except those of --ulimit; --ulimit=host adds none",
		Reason: "as in podman from 4.6 on; 4.3.1 raises nofile and nproc, which needs CAP_SYS_RESOURCE",
	},
	{
		What: "/proc/interrupts, /sys/devices/virtual/powercap and the CPUs' thermal_throttle are masked too;" +
			" /sys/dev/block, which newer podman shows, stays masked",
		Reason: "the stricter of both lists",
	},
	{
		What:   "No process limit is written as -1, not as 0",
		Reason: "in the runtime-spec 0 now means that no process may exist, and the container could not start",
	},
	{
		What:   "The cgroup is /careen/careen-ID, not /libpod_parent/libpod-ID",
		Reason: "each engine uses its name; --cgroup-parent replaces the first part in both",
	},
	{
		What:   "/dev/shm is a tmpfs in the container, not a bind of a tmpfs on the node",
		Reason: "size and options are the same, and the node needs no cleanup",
	},
	{
		What:   "copy and nocopy are not among the options of a volume's mount",
		Reason: "they are instructions for the engine; podman passes them on, and runtimes ignore them",
	},
	{
		What:   "No annotations io.podman.* and io.container.manager, no /run/secrets",
		Reason: "they are specific to podman; /run/.containerenv exists because programs look for it",
	},
	{
		What:   "/run/careen is mounted, for the step's result and critical sections",
		Reason: "a step communicates with careen through it; a mount of the options at this path wins",
	},
	{
		What:   "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES and NOTIFY_SOCKET of the caller are not passed",
		Reason: "the descriptors and the socket do not reach the container, so a program would wait for them forever",
	},
	{
		What:   "/etc/hosts has no host.containers.internal, and with --network=none no generated name",
		Reason: "on the node's network the node is localhost; a generated name does not resolve anywhere else",
	},
	{
		What:   "A private network namespace gets no name server if the node has only servers on its loopback",
		Reason: "podman falls back to public servers; a machine in a data centre must not use them",
	},
	{
		What:   "An entry without a value in the image's environment is ignored",
		Reason: "podman takes the value from the engine's environment, which an image must not read",
	},
	{
		What:   "--env-merge keeps the value after a second =",
		Reason: "podman 4.3.1 cuts the value there; newer podman does not",
	},
	{
		What:   "--hostuser reads ids as decimal numbers if --user names the account",
		Reason: "podman 4.3.1 reads them as octal",
	},
	{
		What:   "No AppArmor profile is applied unless --security-opt=apparmor= names one that is loaded",
		Reason: "podman loads a default profile with a program that a ramdisk does not have",
	},
	{
		What:   "All problems of a set of options are reported together, before the pull",
		Reason: "podman stops at the first, and finds some only after the pull",
	},
	{
		What: "--oom-score-adj outside -1000 to 1000 and values that cannot work, such as an unknown --personality, a throttle" +
			" for a directory or an idmap without gids=, are refused",
		Reason: "podman passes them on, and the runtime fails later with a less clear message",
	},
	{
		What:   "--log-opt=tag= is accepted with any log driver; --env-merge without = is refused like other wrong values",
		Reason: "log options have no effect; podman's conmon refuses the first, and podman panics at the second",
	},
	{Case: "container-ns", What: "container:NAME is refused", Reason: "there is no other container to share namespaces with"},
	{Case: "detach", What: "--detach is refused", Reason: "the result of a step is its exit code"},
	{Case: "detach-cluster", What: "-d is refused in a cluster too", Reason: "the result of a step is its exit code"},
	{Case: "gpus-noop", What: "--gpus is refused", Reason: "podman 4.3.1 ignores it, and the container would run without the GPU"},
	{Case: "init", What: "the init binary is at /run/careen-init", Reason: "each engine uses its name"},
	{Case: "ip-mac-alias", What: "--ip, --mac-address and --network-alias are refused", Reason: "they need a bridge network"},
	{Case: "mount-image", What: "--mount=type=image is refused", Reason: "one image runs at a time, and the store is small"},
	{
		Case: "neg-init-no-binary", What: "--init works on a node without an init binary", Reason: "careen is the init process",
	},
	{Case: "pidfiles", What: "--conmon-pidfile is refused", Reason: "there is no conmon"},
	{Case: "requires", What: "--requires is refused", Reason: "there is no other container to depend on"},
	{Case: "secret-mount", What: "--secret is refused", Reason: "careen has no store of secrets"},
	{Case: "userns-maps", What: "--uidmap and --gidmap are refused", Reason: "they need a copy of the image with shifted ids"},
	{
		Case: "vol-idmap", What: "idmap without a mapping is ignored",
		Reason: "without a user namespace it maps each id to itself, and the runtime refuses a mount without a mapping",
	},
	{Case: "volumes-from", What: "--volumes-from is refused", Reason: "there are no other containers"},
}
