package oci

// imageOptions choose the image and how it is pulled.
var imageOptions = []OptionInfo{
	{
		Name: "arch", Aliases: []string{"override-arch"}, On: OnBoth, Arg: "ARCH", Group: GroupImage, Default: "the node's",
		Help: "choose the image for this architecture", Example: "--arch=arm64",
	},
	{
		Name: "authfile", On: OnBoth, Arg: "FILE", Group: GroupImage, Default: "the usual places", Secret: false,
		Help: "read the registry's credentials from this auth.json", Example: "--authfile=/etc/containers/auth.json",
	},
	{
		Name: "cert-dir", On: OnBoth, Arg: "DIR", Group: GroupImage, Podman: "4.3.1",
		Help:       "take the registry's CA (*.crt) and client certificates (*.cert, *.key) from this directory",
		Difference: "podman 4.3.1 has it for pull only", Example: "--cert-dir=/etc/containers/certs.d/registry",
	},
	{
		Name: "creds", On: OnBoth, Arg: "USER:PASSWORD", Group: GroupImage, Secret: true,
		Help: "log in to the registry with these credentials", Difference: "podman 4.3.1 has it for pull only",
		Example: "--creds=user:password",
	},
	{
		Name: "os", Aliases: []string{"override-os"}, On: OnBoth, Arg: "OS", Group: GroupImage, Default: "linux",
		Help: "choose the image for this operating system", Example: "--os=linux",
	},
	{
		Name: "platform", On: OnBoth, Arg: "OS/ARCH[/VARIANT]", Group: GroupImage, Default: "the node's",
		Help: "choose the image for this platform; not with --os or --arch", Example: "--platform=linux/arm64/v8",
	},
	{
		Name: "policy", On: OnPull, Arg: "always|missing|never|newer", Group: GroupImage, Default: "always", Podman: "newer",
		Help: "when the registry is asked", Example: "--policy=missing",
	},
	{
		Name: "pull", Arg: "always|missing|never|newer", Group: GroupImage, Default: "missing",
		Help: "when the registry is asked; always takes a value", Example: "--pull=never",
	},
	{
		Name: "quiet", Short: "q", On: OnPull, Kind: Bool, Group: GroupImage, Default: "false",
		Help: "print the image's id only, no progress",
	},
	{
		Name: "quiet", Short: "q", On: OnRun, Kind: Bool, Group: GroupNoOp, Verdict: Accept, Default: "false",
		Help: "silences the progress of the pull, which run does not print",
	},
	{
		Name: "retry", On: OnBoth, Kind: Uint, Arg: "N", Group: GroupImage, Default: "3", Podman: "newer",
		Help: "try a failed pull again so many times", Example: "--retry=5",
	},
	{
		Name: "retry-delay", On: OnBoth, Arg: "DURATION", Group: GroupImage, Default: "grows from 1s", Podman: "newer",
		Help: "wait so long between attempts; a plain number is seconds", Example: "--retry-delay=5s",
	},
	{
		Name: "rmi", Kind: Bool, Group: GroupImage, Default: "false",
		Help: "remove the image afterwards, which gives its memory back to the ramdisk",
	},
	{
		Name: "tls-verify", On: OnBoth, Kind: Bool, Group: GroupImage, Default: "true",
		Help:    "require HTTPS and a valid certificate; false also accepts plain HTTP",
		Example: "--tls-verify=false",
	},
	{
		Name: "variant", Aliases: []string{"override-variant"}, On: OnBoth, Arg: "VARIANT", Group: GroupImage,
		Help: "choose the image for this variant of the architecture", Example: "--variant=v7",
	},
}

// processOptions say what runs.
var processOptions = []OptionInfo{
	{
		Name: "attach", Short: "a", Kind: List, Arg: "STREAM", Group: GroupProcess, Default: "stdout,stderr",
		Help: "forward only these of stdin, stdout and stderr; the log keeps all", Example: "--attach=stdout",
	},
	{
		Name: "entrypoint", Arg: "COMMAND|JSON", Group: GroupProcess, Default: "the image's",
		Help:    "replace the image's entry point and drop its CMD; a JSON list gives several words",
		Example: `--entrypoint='["/bin/sh","-c"]'`,
	},
	{Name: "help", On: OnBoth, Kind: Bool, Group: GroupProcess, Default: "false", Help: "print the options and leave"},
	{
		Name: "init", Kind: Bool, Group: GroupProcess, Default: "false",
		Help:       "run careen's reaper as process 1, which forwards signals to the command",
		Difference: "the reaper is careen itself, mounted at /run/careen-init, so that no binary has to be on the node",
	},
	{
		Name: "init-path", Arg: "FILE", Group: GroupProcess, Default: "careen itself",
		Help: "mount this binary of the node for --init", Example: "--init-path=/usr/libexec/podman/catatonit",
	},
	{
		Name: "interactive", Short: "i", Kind: Bool, Group: GroupProcess, Default: "false",
		Help: "keep standard input open",
	},
	{
		Name: "personality", Arg: "LINUX|LINUX32", Group: GroupProcess, Default: "none",
		Help: "execution domain, for 32-bit vendor tools", Example: "--personality=LINUX32",
	},
	{
		Name: "sig-proxy", Kind: Bool, Group: GroupProcess, Default: "true",
		Help: "forward the caller's signals to the container",
	},
	{
		Name: "stop-signal", Arg: "SIGNAL", Group: GroupProcess, Default: "the image's or SIGTERM",
		Help: "first signal when the container is stopped", Example: "--stop-signal=SIGINT",
	},
	{
		Name: "stop-timeout", Kind: Uint, Arg: "SECONDS", Group: GroupProcess, Default: "10",
		Help: "time between that signal and SIGKILL", Example: "--stop-timeout=30",
	},
	{
		Name: "systemd", Arg: "true|false|always", Group: GroupProcess, Default: "true",
		Help:    "prepare for systemd as process 1: tmpfs on /run, /run/lock, /tmp and /var/log/journal, SIGRTMIN+3",
		Example: "--systemd=always",
	},
	{
		Name: "timeout", Kind: Uint, Arg: "SECONDS", Group: GroupProcess, Default: "0, none",
		Help: "kill the container after so long", Example: "--timeout=3600",
	},
	{
		Name: "tty", Short: "t", Kind: Bool, Group: GroupProcess, Default: "false",
		Help: "give the container a terminal", Difference: "TERM is set with a terminal only, as newer podman does",
	},
	{
		Name: "umask", Arg: "OCTAL", Group: GroupProcess, Default: "0022",
		Help: "file mode creation mask", Example: "--umask=0077",
	},
	{
		Name: "workdir", Short: "w", Arg: "DIR", Group: GroupProcess, Default: "the image's or /",
		Help: "working directory; must exist, only the image's own is created", Example: "--workdir=/work",
	},
}

// envOptions make the environment.
var envOptions = []OptionInfo{
	{
		Name: "env", Short: "e", Kind: Array, Arg: "NAME=VALUE|NAME|PREFIX*", Group: GroupEnv, Secret: true,
		Help:    "set a variable, or copy it, or all with a prefix, from the caller",
		Example: "--env=NAME=value",
		Difference: "container= is careen, TERM is set with -t only; LISTEN_* and NOTIFY_SOCKET of the caller are not" +
			" passed in, since neither descriptors nor that socket reach the container",
	},
	{
		Name: "env-file", Kind: List, Arg: "FILE", Group: GroupEnv,
		Help:    "read variables by line, as --env takes them; quotes are kept, # begins a comment line",
		Example: "--env-file=/etc/step.env",
	},
	{
		Name: "env-host", Kind: Bool, Group: GroupEnv, Default: "false",
		Help: "pass in the caller's whole environment, below --env and above the image's",
	},
	{
		Name: "env-merge", Kind: Array, Arg: "NAME=TEXT", Group: GroupEnv, Secret: true,
		Help:       "expand $NAME, ${NAME}, ${NAME:-x} and ${NAME:+x} with the image's variables; only for names that are set",
		Difference: "a value keeps what follows its second =, which podman 4.3.1 cuts off",
		Example:    "--env-merge='PATH=/opt/bin:${PATH}'",
	},
	{
		Name: "http-proxy", Kind: Bool, Group: GroupEnv, Default: "true",
		Help: "pass in the caller's http_proxy, https_proxy, ftp_proxy and no_proxy, in both cases of letters",
	},
	{
		Name: "unsetenv", Kind: Array, Arg: "NAME", Group: GroupEnv,
		Help: "remove a variable of the image or a default one, not one of --env", Example: "--unsetenv=LANG",
	},
	{
		Name: "unsetenv-all", Kind: Bool, Group: GroupEnv, Default: "false",
		Help: "remove all variables of the image and all default ones, even PATH",
	},
}

// userOptions say as whom the process runs.
var userOptions = []OptionInfo{
	{
		Name: "group-add", Kind: List, Arg: "GROUP", Group: GroupUser,
		Help: "supplementary group, by the image's name or by number", Example: "--group-add=disk",
	},
	{
		Name: "group-entry", Arg: "LINE", Group: GroupUser, Podman: "newer",
		Help: "template of the line added to /etc/group: $GROUPNAME, $GID, $USERLIST", Example: "--group-entry='fw:x:$GID:'",
	},
	{
		Name: "hostuser", Kind: List, Arg: "USER", Group: GroupUser,
		Help:       "add this account of the node to the container's /etc/passwd",
		Difference: "ids are read as decimal numbers; podman 4.3.1 takes them for octal when --user names the account",
		Example:    "--hostuser=ironic",
	},
	{
		Name: "passwd", Kind: Bool, Group: GroupUser, Default: "true",
		Help: "add a line for an unknown numeric --user to /etc/passwd and /etc/group",
	},
	{
		Name: "passwd-entry", Arg: "LINE", Group: GroupUser,
		Help: "template of that line: $USERNAME, $UID, $GID, $NAME, $HOME", Example: "--passwd-entry='fw:*:$UID:0::/:/bin/sh'",
	},
	{
		Name: "user", Short: "u", Arg: "USER[:GROUP]", Group: GroupUser, Default: "the image's or root",
		Help:    "user by the image's name or by number; anyone but root starts without capabilities",
		Example: "--user=1000:1000",
	},
}

// securityOptions widen or narrow what the process may do.
var securityOptions = []OptionInfo{
	{
		Name: "cap-add", Kind: List, Arg: "CAP|ALL", Group: GroupSecurity,
		Help: "add a capability; also opens the system calls that need it", Example: "--cap-add=SYS_RAWIO",
	},
	{
		Name: "cap-drop", Kind: List, Arg: "CAP|ALL", Group: GroupSecurity,
		Help: "take a capability away; without effect beside --privileged", Example: "--cap-drop=ALL",
		Default: "keeps CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, NET_BIND_SERVICE, SETFCAP, SETGID, SETPCAP, SETUID, SYS_CHROOT",
	},
	{
		Name: "privileged", Kind: Bool, Group: GroupSecurity, Default: "false",
		Help: "all capabilities and devices, no seccomp filter, nothing masked, /sys writable",
	},
	{
		Name: "read-only", Kind: Bool, Group: GroupSecurity, Default: "false",
		Help: "read-only root file system",
	},
	{
		Name: "read-only-tmpfs", Kind: Bool, Group: GroupSecurity, Default: "true",
		Help: "with --read-only, keep /run, /tmp and /var/tmp writable as tmpfs",
	},
	{
		Name: "seccomp-policy", Arg: "default|image", Group: GroupSecurity, Default: "default",
		Help: "image takes the filter from the image's label io.containers.seccomp.profile", Example: "--seccomp-policy=image",
	},
	{
		Name: "security-opt", Kind: Array, Arg: "OPTION", Group: GroupSecurity,
		Help: "no-new-privileges, seccomp=FILE|unconfined, mask=PATHS, unmask=ALL|PATHS, proc-opts=OPTIONS," +
			" systempaths=unconfined, apparmor=PROFILE, label=OPTION",
		Difference: "more paths are masked by default, as in newer podman; no AppArmor profile of careen's own is loaded;" +
			" nothing is labelled for SELinux",
		Example: "--security-opt=seccomp=unconfined",
	},
}
