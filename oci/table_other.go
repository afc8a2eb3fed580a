package oci

// lifeOptions name the container and leave traces of it.
var lifeOptions = []OptionInfo{
	{
		Name: "annotation", Kind: List, Arg: "NAME=VALUE", Group: GroupLife,
		Help: "annotation of the spec", Example: "--annotation=com.example.job=42",
		Difference: "podman's own io.podman.* and io.container.* annotations are not made",
	},
	{
		Name: "cidfile", Arg: "FILE", Group: GroupLife,
		Help: "write the container's id to this file, which must not exist", Example: "--cidfile=/run/step.id",
	},
	{
		Name: "label", Short: "l", Kind: Array, Arg: "NAME[=VALUE]", Group: GroupLife,
		Help:    "label; io.containers.capabilities narrows the capabilities",
		Example: "--label=job=42",
	},
	{
		Name: "label-file", Kind: List, Arg: "FILE", Group: GroupLife,
		Help: "read labels by line", Example: "--label-file=/etc/step.labels",
	},
	{
		Name: "name", Arg: "NAME", Group: GroupLife, Default: "made up",
		Help: "name in lists and logs", Example: "--name=fw-step-1",
	},
	{
		Name: "pidfile", Arg: "FILE", Group: GroupLife,
		Help: "write the process id of the container on the node to this file", Example: "--pidfile=/run/step.pid",
	},
}

// noopOptions are checked and have no effect.
var noopOptions = []OptionInfo{
	{
		Name: "detach-keys", Arg: "KEYS", Group: GroupNoOp, Verdict: Accept,
		Help: "nobody attaches, so nobody detaches",
	},
	{
		Name: "disable-content-trust", On: OnBoth, Kind: Bool, Group: GroupNoOp, Verdict: Accept,
		Help: "docker's, ignored by podman too",
	},
	{
		Name: "expose", Kind: List, Arg: "PORT[/PROTOCOL]", Group: GroupNoOp, Verdict: Accept, Example: "--expose=80/tcp",
		Help: "metadata; on the node's network every port is reachable",
	},
	{
		Name: "health-cmd", Aliases: []string{"healthcheck-command"}, Arg: "COMMAND", Group: GroupNoOp, Verdict: Accept,
		Help: "no health checks beside a step that runs once",
	},
	{
		Name: "health-interval", Aliases: []string{"healthcheck-interval"}, Arg: "DURATION", Group: GroupNoOp,
		Verdict: Accept, Help: "no health checks", Example: "--health-interval=30s",
	},
	{
		Name: "health-log-destination", Arg: "WHERE", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "no health checks",
	},
	{
		Name: "health-max-log-count", Kind: Uint, Arg: "N", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "no health checks", Example: "--health-max-log-count=5",
	},
	{
		Name: "health-max-log-size", Kind: Uint, Arg: "N", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "no health checks", Example: "--health-max-log-size=500",
	},
	{
		Name: "health-on-failure", Arg: "none", Group: GroupReject, Verdict: Reject, Harmless: []string{"", "none"},
		Help: "no health check ever fails, so the action would never happen", Instead: "give the step a timeout",
	},
	{
		Name: "health-retries", Aliases: []string{"healthcheck-retries"}, Kind: Uint, Arg: "N", Group: GroupNoOp,
		Verdict: Accept, Help: "no health checks", Example: "--health-retries=3",
	},
	{
		Name: "health-start-period", Aliases: []string{"healthcheck-start-period"}, Arg: "DURATION", Group: GroupNoOp,
		Verdict: Accept, Help: "no health checks", Example: "--health-start-period=10s",
	},
	{
		Name: "health-startup-cmd", Arg: "COMMAND", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "no health checks",
	},
	{
		Name: "health-startup-interval", Arg: "DURATION", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "no health checks", Example: "--health-startup-interval=30s",
	},
	{
		Name: "health-startup-retries", Kind: Uint, Arg: "N", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "no health checks", Example: "--health-startup-retries=3",
	},
	{
		Name: "health-startup-success", Kind: Uint, Arg: "N", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "no health checks", Example: "--health-startup-success=1",
	},
	{
		Name: "health-startup-timeout", Arg: "DURATION", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "no health checks", Example: "--health-startup-timeout=30s",
	},
	{
		Name: "health-timeout", Aliases: []string{"healthcheck-timeout"}, Arg: "DURATION", Group: GroupNoOp,
		Verdict: Accept, Help: "no health checks", Example: "--health-timeout=30s",
	},
	{
		Name: "health-start-interval", Arg: "DURATION", Group: GroupNoOp, Verdict: Accept, Podman: "docker",
		Help: "no health checks", Example: "--health-start-interval=5s",
	},
	{
		Name: "kernel-memory", Arg: "SIZE", Group: GroupNoOp, Verdict: Accept,
		Help: "gone from the kernel; podman warns and does nothing",
	},
	{
		Name: "link-local-ip", Kind: List, Arg: "IP", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "not implemented by podman either",
	},
	{
		Name: "log-driver", Arg: "DRIVER", Group: GroupNoOp, Verdict: Accept, Example: "--log-driver=none",
		Help: "output always goes to the caller and to careen's log",
	},
	{
		Name: "log-opt", Kind: List, Arg: "NAME=VALUE", Group: GroupNoOp, Verdict: Accept, Example: "--log-opt=max-size=1mb",
		Help: "output always goes to the caller and to careen's log",
	},
	{
		Name: "no-healthcheck", Kind: Bool, Group: GroupNoOp, Verdict: Accept, Help: "no health checks anyway",
	},
	{
		Name: "publish", Short: "p", Kind: List, Arg: "[[IP:]PORT:]PORT", Group: GroupNoOp, Verdict: Accept,
		Help: "checked and discarded with a warning, as podman does on the node's network", Example: "--publish=8080:80",
	},
	{
		Name: "publish-all", Short: "P", Kind: Bool, Group: GroupNoOp, Verdict: Accept,
		Help: "discarded, as podman does on the node's network",
	},
	{
		Name: "replace", Kind: Bool, Group: GroupNoOp, Verdict: Accept, Help: "no older container of that name is left",
	},
	{
		Name: "rm", Aliases: []string{"purge"}, Kind: Bool, Group: GroupNoOp, Verdict: Accept, Default: "true",
		Help: "always so: a step leaves nothing behind",
	},
	{
		Name: "sdnotify", Arg: "container|conmon|healthy|ignore", Group: GroupNoOp, Verdict: Accept,
		Help: "no supervisor listens to a step", Example: "--sdnotify=ignore",
	},
}

// rejectedOptions are refused by name.
var rejectedOptions = []OptionInfo{
	emptyPasses(reject("conmon-pidfile", String, "there is no conmon whose process id could be written", "use --pidfile")),
	rejectOn("decryption-key", List, OnBoth, "newer", "encrypted images are not supported", "push the image unencrypted"),
	{
		Name: "detach", Short: "d", Kind: Bool, Group: GroupReject, Verdict: Reject, Harmless: []string{"false"},
		Help:    "a step is judged by its exit code, so somebody has to wait for it",
		Instead: "leave it out; the agent runs the step in the background and keeps its log",
	},
	emptyPasses(reject("gidmap", List, "id shifting needs a shifted copy of the image", "use --user")),
	emptyPasses(reject("gpus", String, "no CDI devices are injected; podman 4.3.1 ignores the option, which would mislead",
		"give the device nodes with --device")),
	reject("init-ctr", String, "there are no pods on a node that runs one step", "leave it out"),
	reject("ip", String, "no addresses are managed without a bridge", "use --network=host"),
	reject("ip6", String, "no addresses are managed without a bridge", "use --network=host"),
	reject("mac-address", String, "the container has no interface of its own", "use --network=host"),
	emptyPasses(reject("network-alias", List, "there is no bridge network with a name server", "use --add-host")),
	emptyPasses(reject("pod", String, "there are no pods on a node that runs one step", "leave it out")),
	emptyPasses(reject("pod-id-file", String, "there are no pods on a node that runs one step", "leave it out")),
	rejectOn("preserve-fd", List, OnRun, "newer", "the caller's descriptors do not reach the container", "use a bind mount"),
	{
		Name: "preserve-fds", Kind: Uint, Arg: "N", Group: GroupReject, Verdict: Reject, Harmless: []string{"0"},
		Help: "the caller's descriptors do not reach the container", Instead: "use a bind mount", Example: "--preserve-fds=0",
	},
	rejectOn("rdt-class", String, OnRun, "newer", "nobody prepares resctrl classes in a ramdisk", "leave it out"),
	emptyPasses(reject("requires", List, "there is no other container to depend on", "leave it out")),
	{
		Name: "restart", Arg: "no", Group: GroupReject, Verdict: Reject, Harmless: []string{"", "no"},
		Help: "a step runs once", Instead: "use --restart=no, or repeat inside the container",
	},
	{
		Name: "rootfs", Kind: Bool, Group: GroupReject, Verdict: Reject, Harmless: []string{"false"},
		Help: "steps are images, not directories", Instead: "use an image, or oci:DIR for one that is baked into the ramdisk",
	},
	reject("secret", Array, "there is no store of secrets in a ramdisk", "use --env-file or a read-only bind"),
	rejectOn("signature-policy", String, OnBoth, "4.3.1", "policy.json is read from its usual place only",
		"put the policy into /etc/containers/policy.json"),
	emptyPasses(reject("subgidname", String, "id shifting needs a shifted copy of the image", "use --user")),
	emptyPasses(reject("subuidname", String, "id shifting needs a shifted copy of the image", "use --user")),
	emptyPasses(reject("uidmap", List, "id shifting needs a shifted copy of the image", "use --user")),
	reject("volumes-from", Array, "no earlier container is left to take volumes from", "use a named volume: -v NAME:/dir"),
	{
		Name: "all-tags", Short: "a", On: OnPull, Kind: Bool, Group: GroupReject, Verdict: Reject, Harmless: []string{"false"},
		Help: "a step names one image, not a repository", Instead: "name the tag",
	},
	rejectDocker("runtime", String, "careen has one runtime, its own", "leave it out"),
	rejectDocker("domainname", String, "podman has no such option", "give a full name to --hostname"),
	rejectDocker("link", List, "containers are not linked; podman refuses it too", "use --add-host"),
	rejectDocker("net-alias", List, "there is no bridge network with a name server", "use --add-host"),
	rejectDocker("storage-opt", List, "the store has one size for all", "leave it out"),
	rejectDocker("volume-driver", String, "there are no volume plugins", "use a bind or a named volume"),
	rejectDocker("cpu-count", Int, "Windows only", "use --cpus"),
	rejectDocker("cpu-percent", Int, "Windows only", "use --cpus"),
	rejectDocker("io-maxbandwidth", String, "Windows only", "use --device-read-bps and --device-write-bps"),
	rejectDocker("io-maxiops", Uint, "Windows only", "use --device-read-iops and --device-write-iops"),
	rejectDocker("isolation", String, "Windows only", "leave it out"),
	rejectDocker("use-api-socket", Bool, "there is no docker socket to hand in", "leave it out"),
}

// emptyPasses lets an empty value pass, which podman takes for no use of the option.
func emptyPasses(option OptionInfo) OptionInfo {
	option.Harmless = []string{""}
	return option
}

func reject(name string, kind Kind, why, instead string) OptionInfo {
	return rejectOn(name, kind, OnRun, "4.3.1", why, instead)
}

func rejectDocker(name string, kind Kind, why, instead string) OptionInfo {
	return rejectOn(name, kind, OnRun, "docker", why, instead)
}

func rejectOn(name string, kind Kind, on Command, podman, why, instead string) OptionInfo {
	option := OptionInfo{
		Name: name, Kind: kind, On: on, Group: GroupReject, Verdict: Reject, Help: why, Instead: instead, Podman: podman,
	}
	if kind != Bool {
		option.Arg = "VALUE"
	}
	return option
}
