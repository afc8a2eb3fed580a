package oci

// lifeOptions name the container and write its ids to files.
var lifeOptions = []OptionInfo{
	{
		Name: "annotation", Kind: List, Arg: "NAME=VALUE", Group: GroupLife,
		Help: "annotation of the spec", Example: "--annotation=com.example.job=42",
		Difference: "podman's io.podman.* and io.container.* annotations are not set",
	},
	{
		Name: "cidfile", Arg: "FILE", Group: GroupLife,
		Help: "write the container id to this new file", Example: "--cidfile=/run/step.id",
	},
	{
		Name: "label", Short: "l", Kind: Array, Arg: "NAME[=VALUE]", Group: GroupLife,
		Help:    "set a label; io.containers.capabilities restricts the capabilities",
		Example: "--label=job=42",
	},
	{
		Name: "label-file", Kind: List, Arg: "FILE", Group: GroupLife,
		Help: "file with one label per line", Example: "--label-file=/etc/step.labels",
	},
	{
		Name: "name", Arg: "NAME", Group: GroupLife, Default: "generated",
		Help: "name of the container in lists and logs", Example: "--name=fw-step-1",
	},
	{
		Name: "pidfile", Arg: "FILE", Group: GroupLife,
		Help: "write the container's process id on the node to this file", Example: "--pidfile=/run/step.pid",
	},
}

// noopOptions are checked, then ignored.
var noopOptions = []OptionInfo{
	{
		Name: "detach-keys", Arg: "KEYS", Group: GroupNoOp, Verdict: Accept,
		Help: "a step is not attached to, so there is nothing to detach from",
	},
	{
		Name: "disable-content-trust", On: OnBoth, Kind: Bool, Group: GroupNoOp, Verdict: Accept,
		Help: "an option of docker; podman ignores it too",
	},
	{
		Name: "expose", Kind: List, Arg: "PORT[/PROTOCOL]", Group: GroupNoOp, Verdict: Accept, Example: "--expose=80/tcp",
		Help: "it is metadata only; on the node's network every port is reachable",
	},
	{
		Name: "health-cmd", Aliases: []string{"healthcheck-command"}, Arg: "COMMAND", Group: GroupNoOp, Verdict: Accept,
		Help: "a step runs once and has no health checks",
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
		Help: "there are no health checks, so the action would never run", Instead: "give the step a timeout",
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
		Help: "the kernel no longer has this limit; podman ignores it with a warning",
	},
	{
		Name: "link-local-ip", Kind: List, Arg: "IP", Group: GroupNoOp, Verdict: Accept, Podman: "newer",
		Help: "podman does not implement it either",
	},
	{
		Name: "log-driver", Arg: "DRIVER", Group: GroupNoOp, Verdict: Accept, Example: "--log-driver=none",
		Help: "the output always goes to the caller and to careen's log",
	},
	{
		Name: "log-opt", Kind: List, Arg: "NAME=VALUE", Group: GroupNoOp, Verdict: Accept, Example: "--log-opt=max-size=1mb",
		Help: "the output always goes to the caller and to careen's log",
	},
	{
		Name: "no-healthcheck", Kind: Bool, Group: GroupNoOp, Verdict: Accept, Help: "there are no health checks",
	},
	{
		Name: "publish", Short: "p", Kind: List, Arg: "[[IP:]PORT:]PORT", Group: GroupNoOp, Verdict: Accept,
		Help: "the value is checked and ignored with a warning, as podman does on the node's network", Example: "--publish=8080:80",
	},
	{
		Name: "publish-all", Short: "P", Kind: Bool, Group: GroupNoOp, Verdict: Accept,
		Help: "ignored, as podman does on the node's network",
	},
	{
		Name: "replace", Kind: Bool, Group: GroupNoOp, Verdict: Accept, Help: "no earlier container with this name exists",
	},
	{
		Name: "rm", Aliases: []string{"purge"}, Kind: Bool, Group: GroupNoOp, Verdict: Accept, Default: "true",
		Help: "a step is always removed after it ran",
	},
	{
		Name: "sdnotify", Arg: "container|conmon|healthy|ignore", Group: GroupNoOp, Verdict: Accept,
		Help: "no service manager waits for a notification of a step", Example: "--sdnotify=ignore",
	},
}

// rejectedOptions are refused by name.
var rejectedOptions = []OptionInfo{
	emptyPasses(reject("conmon-pidfile", String, "there is no conmon process", "use --pidfile")),
	rejectOn("decryption-key", List, OnBoth, "newer", "encrypted images are not supported", "push the image unencrypted"),
	{
		Name: "detach", Short: "d", Kind: Bool, Group: GroupReject, Verdict: Reject, Harmless: []string{"false"},
		Help:    "the result of a step is its exit code, so the caller has to wait for it",
		Instead: "leave it out; the agent runs steps in the background and keeps their logs",
	},
	emptyPasses(reject("gidmap", List, "user namespaces need a copy of the image with shifted ids", "use --user")),
	emptyPasses(reject("gpus", String, "CDI devices are not supported; podman 4.3.1 ignores the option, and the container runs without the GPU",
		"name the device nodes with --device")),
	reject("init-ctr", String, "there are no pods on a node that runs one step", "leave it out"),
	reject("ip", String, "there is no bridge network, so the container has no private address to set", "use --network=host"),
	reject("ip6", String, "there is no bridge network, so the container has no private address to set", "use --network=host"),
	reject("mac-address", String, "there is no bridge network, so the container has no interface to set it on", "use --network=host"),
	emptyPasses(reject("network-alias", List, "there is no bridge network that resolves aliases", "use --add-host")),
	emptyPasses(reject("pod", String, "there are no pods on a node that runs one step", "leave it out")),
	emptyPasses(reject("pod-id-file", String, "there are no pods on a node that runs one step", "leave it out")),
	rejectOn("preserve-fd", List, OnRun, "newer", "file descriptors of the caller cannot be passed to the container", "use a bind mount"),
	{
		Name: "preserve-fds", Kind: Uint, Arg: "N", Group: GroupReject, Verdict: Reject, Harmless: []string{"0"},
		Help: "file descriptors of the caller cannot be passed to the container", Instead: "use a bind mount", Example: "--preserve-fds=0",
	},
	rejectOn("rdt-class", String, OnRun, "newer", "careen does not manage resctrl classes", "leave it out"),
	emptyPasses(reject("requires", List, "there is no other container to depend on", "leave it out")),
	{
		Name: "restart", Arg: "no", Group: GroupReject, Verdict: Reject, Harmless: []string{"", "no"},
		Help: "a step runs once", Instead: "use --restart=no, or repeat inside the container",
	},
	{
		Name: "rootfs", Kind: Bool, Group: GroupReject, Verdict: Reject, Harmless: []string{"false"},
		Help: "steps are images, not directories", Instead: "use an image, or oci:DIR for an image in the ramdisk",
	},
	reject("secret", Array, "there is no store of secrets in a ramdisk", "use --env-file or a read-only bind"),
	rejectOn("signature-policy", String, OnBoth, "4.3.1", "careen reads policy.json from its default path only",
		"put the policy in /etc/containers/policy.json"),
	emptyPasses(reject("subgidname", String, "user namespaces need a copy of the image with shifted ids", "use --user")),
	emptyPasses(reject("subuidname", String, "user namespaces need a copy of the image with shifted ids", "use --user")),
	emptyPasses(reject("uidmap", List, "user namespaces need a copy of the image with shifted ids", "use --user")),
	reject("volumes-from", Array, "there are no other containers to take volumes from", "use a named volume: -v NAME:/dir"),
	{
		Name: "all-tags", Short: "a", On: OnPull, Kind: Bool, Group: GroupReject, Verdict: Reject, Harmless: []string{"false"},
		Help: "a step names one image, not a repository", Instead: "name the tag",
	},
	rejectDocker("runtime", String, "careen has a single runtime", "leave it out"),
	rejectDocker("domainname", String, "podman has no such option", "use a full name with --hostname"),
	rejectDocker("link", List, "containers cannot be linked; podman refuses it too", "use --add-host"),
	rejectDocker("net-alias", List, "there is no bridge network that resolves aliases", "use --add-host"),
	rejectDocker("storage-opt", List, "the store has one size limit for all containers", "leave it out"),
	rejectDocker("volume-driver", String, "there are no volume plugins", "use a bind or a named volume"),
	rejectDocker("cpu-count", Int, "Windows only", "use --cpus"),
	rejectDocker("cpu-percent", Int, "Windows only", "use --cpus"),
	rejectDocker("io-maxbandwidth", String, "Windows only", "use --device-read-bps and --device-write-bps"),
	rejectDocker("io-maxiops", Uint, "Windows only", "use --device-read-iops and --device-write-iops"),
	rejectDocker("isolation", String, "Windows only", "leave it out"),
	rejectDocker("use-api-socket", Bool, "there is no docker socket to mount", "leave it out"),
}

// emptyPasses accepts an empty value: podman treats it as if the option was not given.
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
