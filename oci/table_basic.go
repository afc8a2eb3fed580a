package oci

// imageOptions choose the image and how it is pulled.
var imageOptions = []OptionInfo{
	{
		Name: "arch", Aliases: []string{"override-arch"}, On: OnBoth, Arg: "ARCH", Group: GroupImage, Default: "the node's",
		Help: "choose the image for this architecture", Example: "--arch=arm64",
	},
	{
		Name: "authfile", On: OnBoth, Arg: "FILE", Group: GroupImage, Default: "the default paths", Secret: false,
		Help: "path of the auth.json with the registry's credentials", Example: "--authfile=/etc/containers/auth.json",
	},
	{
		Name: "cert-dir", On: OnBoth, Arg: "DIR", Group: GroupImage, Podman: "4.3.1",
		Help:       "directory with the registry's CA (*.crt) and client certificates (*.cert, *.key)",
		Difference: "in podman 4.3.1 only pull has it", Example: "--cert-dir=/etc/containers/certs.d/registry",
	},
	{
		Name: "creds", On: OnBoth, Arg: "USER:PASSWORD", Group: GroupImage, Secret: true,
		Help: "credentials for the registry", Difference: "in podman 4.3.1 only pull has it",
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
		Help: "when to ask the registry for the image", Example: "--policy=missing",
	},
	{
		Name: "pull", Arg: "always|missing|never|newer", Group: GroupImage, Default: "missing",
		Help: "when to ask the registry for the image; the value is required", Example: "--pull=never",
	},
	{
		Name: "quiet", Short: "q", On: OnPull, Kind: Bool, Group: GroupImage, Default: "false",
		Help: "print only the image id, no progress",
	},
	{
		Name: "quiet", Short: "q", On: OnRun, Kind: Bool, Group: GroupNoOp, Verdict: Accept, Default: "false",
		Help: "it hides the progress of the pull, and run prints none",
	},
	{
		Name: "retry", On: OnBoth, Kind: Uint, Arg: "N", Group: GroupImage, Default: "3", Podman: "newer",
		Help: "number of retries of a failed pull", Example: "--retry=5",
	},
	{
		Name: "retry-delay", On: OnBoth, Arg: "DURATION", Group: GroupImage, Default: "1s, then longer", Podman: "newer",
		Help: "delay between retries; a number without a unit is seconds", Example: "--retry-delay=5s",
	},
	{
		Name: "rmi", Kind: Bool, Group: GroupImage, Default: "false",
		Help: "remove the image after the run, which frees its memory in a ramdisk",
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

// processOptions choose the command and how it runs.
var processOptions = []OptionInfo{
	{
		Name: "attach", Short: "a", Kind: List, Arg: "STREAM", Group: GroupProcess, Default: "stdout,stderr",
		Help: "streams to forward: stdin, stdout, stderr; the log keeps all output", Example: "--attach=stdout",
	},
	{
		Name: "entrypoint", Arg: "COMMAND|JSON", Group: GroupProcess, Default: "the image's",
		Help:    "override the image's ENTRYPOINT and ignore its CMD; a JSON list for several words",
		Example: `--entrypoint='["/bin/sh","-c"]'`,
	},
	{Name: "help", On: OnBoth, Kind: Bool, Group: GroupProcess, Default: "false", Help: "print the options and exit"},
	{
		Name: "init", Kind: Bool, Group: GroupProcess, Default: "false",
		Help:       "run careen as the init process (PID 1): it forwards signals and reaps processes",
		Difference: "the init binary is careen itself, mounted at /run/careen-init; the node needs no other",
	},
	{
		Name: "init-path", Arg: "FILE", Group: GroupProcess, Default: "careen itself",
		Help: "path of another init binary on the node", Example: "--init-path=/usr/libexec/podman/catatonit",
	},
	{
		Name: "interactive", Short: "i", Kind: Bool, Group: GroupProcess, Default: "false",
		Help: "keep standard input open",
	},
	{
		Name: "personality", Arg: "LINUX|LINUX32", Group: GroupProcess, Default: "none",
		Help: "execution domain, for 32-bit tools", Example: "--personality=LINUX32",
	},
	{
		Name: "sig-proxy", Kind: Bool, Group: GroupProcess, Default: "true",
		Help: "forward the caller's signals to the container",
	},
	{
		Name: "stop-signal", Arg: "SIGNAL", Group: GroupProcess, Default: "the image's or SIGTERM",
		Help: "signal that stops the container", Example: "--stop-signal=SIGINT",
	},
	{
		Name: "stop-timeout", Kind: Uint, Arg: "SECONDS", Group: GroupProcess, Default: "10",
		Help: "seconds between the stop signal and SIGKILL", Example: "--stop-timeout=30",
	},
	{
		Name: "systemd", Arg: "true|false|always", Group: GroupProcess, Default: "true",
		Help:    "set up systemd as PID 1: tmpfs on /run, /run/lock, /tmp and /var/log/journal, stop signal SIGRTMIN+3",
		Example: "--systemd=always",
	},
	{
		Name: "timeout", Kind: Uint, Arg: "SECONDS", Group: GroupProcess, Default: "0 (none)",
		Help: "kill the container after this time", Example: "--timeout=3600",
	},
	{
		Name: "tty", Short: "t", Kind: Bool, Group: GroupProcess, Default: "false",
		Help: "allocate a pseudo-terminal", Difference: "TERM is set only with a terminal, as in newer podman",
	},
	{
		Name: "umask", Arg: "OCTAL", Group: GroupProcess, Default: "0022",
		Help: "file mode creation mask", Example: "--umask=0077",
	},
	{
		Name: "workdir", Short: "w", Arg: "DIR", Group: GroupProcess, Default: "the image's or /",
		Help: "working directory; it must exist, except the image's own, which is created", Example: "--workdir=/work",
	},
}

// envOptions set environment variables.
var envOptions = []OptionInfo{
	{
		Name: "env", Short: "e", Kind: Array, Arg: "NAME=VALUE|NAME|PREFIX*", Group: GroupEnv, Secret: true,
		Help:    "set a variable; NAME copies it from the caller, PREFIX* copies all with the prefix",
		Example: "--env=NAME=value",
		Difference: "container= is careen; TERM is set only with -t; the caller's LISTEN_* and NOTIFY_SOCKET are not" +
			" passed, because the descriptors and the socket do not reach the container",
	},
	{
		Name: "env-file", Kind: List, Arg: "FILE", Group: GroupEnv,
		Help:    "file with one variable per line in the syntax of --env; quotes stay, # starts a comment line",
		Example: "--env-file=/etc/step.env",
	},
	{
		Name: "env-host", Kind: Bool, Group: GroupEnv, Default: "false",
		Help: "pass the caller's environment; it overrides the image's, and --env overrides it",
	},
	{
		Name: "env-merge", Kind: Array, Arg: "NAME=TEXT", Group: GroupEnv, Secret: true,
		Help:       "set a variable with $NAME, ${NAME}, ${NAME:-x} and ${NAME:+x} expanded from the image's; only if NAME is set",
		Difference: "podman 4.3.1 cuts the value at its second =",
		Example:    "--env-merge='PATH=/opt/bin:${PATH}'",
	},
	{
		Name: "http-proxy", Kind: Bool, Group: GroupEnv, Default: "true",
		Help: "pass the caller's http_proxy, https_proxy, ftp_proxy and no_proxy, in lower and upper case",
	},
	{
		Name: "unsetenv", Kind: Array, Arg: "NAME", Group: GroupEnv,
		Help: "unset a variable of the image or a default variable; --env is not affected", Example: "--unsetenv=LANG",
	},
	{
		Name: "unsetenv-all", Kind: Bool, Group: GroupEnv, Default: "false",
		Help: "unset all variables of the image and all default variables, PATH too",
	},
}

// userOptions choose the user of the process.
var userOptions = []OptionInfo{
	{
		Name: "group-add", Kind: List, Arg: "GROUP", Group: GroupUser,
		Help: "supplementary group: a name in the image, or a number", Example: "--group-add=disk",
	},
	{
		Name: "group-entry", Arg: "LINE", Group: GroupUser, Podman: "newer",
		Help: "template of the entry in /etc/group: $GROUPNAME, $GID, $USERLIST", Example: "--group-entry='fw:x:$GID:'",
	},
	{
		Name: "hostuser", Kind: List, Arg: "USER", Group: GroupUser,
		Help:       "add this user of the node to the container's /etc/passwd",
		Difference: "ids are decimal; podman 4.3.1 reads them as octal if --user names the account",
		Example:    "--hostuser=ironic",
	},
	{
		Name: "passwd", Kind: Bool, Group: GroupUser, Default: "true",
		Help: "add entries for an unknown numeric --user to /etc/passwd and /etc/group",
	},
	{
		Name: "passwd-entry", Arg: "LINE", Group: GroupUser,
		Help: "template of the entry in /etc/passwd: $USERNAME, $UID, $GID, $NAME, $HOME", Example: "--passwd-entry='fw:*:$UID:0::/:/bin/sh'",
	},
	{
		Name: "user", Short: "u", Arg: "USER[:GROUP]", Group: GroupUser, Default: "the image's or root",
		Help:    "user: a name in the image, or a number; users other than root start without capabilities",
		Example: "--user=1000:1000",
	},
}

// securityOptions set privileges.
var securityOptions = []OptionInfo{
	{
		Name: "cap-add", Kind: List, Arg: "CAP|ALL", Group: GroupSecurity,
		Help: "add a capability; the seccomp filter then allows its system calls", Example: "--cap-add=SYS_RAWIO",
	},
	{
		Name: "cap-drop", Kind: List, Arg: "CAP|ALL", Group: GroupSecurity,
		Help: "drop a capability; no effect with --privileged", Example: "--cap-drop=ALL",
		Default: "drops all but CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, NET_BIND_SERVICE, SETFCAP, SETGID, SETPCAP, SETUID, SYS_CHROOT",
	},
	{
		Name: "privileged", Kind: Bool, Group: GroupSecurity, Default: "false",
		Help: "give all capabilities and devices, without seccomp filter and masked paths, with /sys writable",
	},
	{
		Name: "read-only", Kind: Bool, Group: GroupSecurity, Default: "false",
		Help: "make the root file system read-only",
	},
	{
		Name: "read-only-tmpfs", Kind: Bool, Group: GroupSecurity, Default: "true",
		Help: "with --read-only, keep /run, /tmp and /var/tmp writable as tmpfs",
	},
	{
		Name: "seccomp-policy", Arg: "default|image", Group: GroupSecurity, Default: "default",
		Help: "image: use the filter in the image's label io.containers.seccomp.profile", Example: "--seccomp-policy=image",
	},
	{
		Name: "security-opt", Kind: Array, Arg: "OPTION", Group: GroupSecurity,
		Help: "no-new-privileges, seccomp=FILE|unconfined, mask=PATHS, unmask=ALL|PATHS, proc-opts=OPTIONS," +
			" systempaths=unconfined, apparmor=PROFILE, label=OPTION",
		Difference: "more paths are masked by default, as in newer podman; careen loads no default AppArmor profile;" +
			" SELinux labels are not set",
		Example: "--security-opt=seccomp=unconfined",
	},
}
