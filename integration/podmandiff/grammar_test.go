package podmandiff

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/careen-project/careen/oci"
)

// rule draws one use of an option.
type rule struct {
	name, short string
	aliases     []string
	// values are drawn from; "" in a list is a value too. No values is a boolean.
	values []string
}

// places that values refer to, made by the test.
const (
	placeDir  = "@DIR@"  // a directory with files of all kinds
	placeFlag = "@FLAG@" // a directory on a file system that is nosuid, nodev, noexec
)

// rules is the grammar: every option that careen implements or accepts, with values
// of all kinds that podman tells apart, some of them wrong.
var rules = []rule{
	{name: "add-host", values: []string{"mirror:10.0.0.5", "a:10.0.0.1,b:fe80::1", "mirror", ":10.0.0.1", "x:300.1.1.1", "localhost:10.9.9.9"}},
	{name: "annotation", values: []string{"com.acme.job=42", "a=1,b=2", "novalue", "x=", "k=v=w"}},
	{name: "arch", aliases: []string{"override-arch"}, values: []string{"amd64"}},
	{name: "attach", short: "a", values: []string{"stdout", "STDERR", "stdin,stdout", "nothing"}},
	{name: "authfile", values: []string{placeDir + "/auth.json", "/no/such/auth.json"}},
	{name: "blkio-weight", values: []string{"500", "10", "1001", "0", "heavy", "70000"}},
	{name: "cap-add", values: []string{"SYS_ADMIN", "net_admin,sys_rawio", "CAP_SYS_MODULE", "ALL", "all", "NOPE", "cap_bpf", "", "SYS_TIME"}},
	{name: "cap-drop", values: []string{"ALL", "CHOWN", "kill,setuid", "SYS_ADMIN", "cap_setpcap", "NOPE"}},
	{name: "cidfile", values: []string{placeDir + "/file.txt"}},
	{name: "cgroup-conf", values: []string{"memory.high=1073741824", "a.b=1,c.d=2", "novalue"}},
	{name: "cgroup-parent", values: []string{"/fw", "fw/steps", "x.slice", "/"}},
	{name: "cgroupns", values: []string{"host", "private", "ns:/proc/self/ns/cgroup", "guest", ""}},
	{name: "cgroups", values: []string{"enabled", "no-conmon", "disabled"}},
	{name: "chrootdirs", values: []string{"/srv/chroot", "/a,/b"}},
	{name: "cpu-period", values: []string{"100000", "0x186a0", "500", "2000000", "-1", "0"}},
	{name: "cpu-quota", values: []string{"50000", "999", "-5", "x", "0"}},
	{name: "cpu-rt-period", values: []string{"1000000", "0"}},
	{name: "cpu-rt-runtime", values: []string{"950000", "-1"}},
	{name: "cpu-shares", short: "c", values: []string{"512", "0", "-1", "1e3"}},
	{name: "cpus", values: []string{"1.5", "0", "2", "0.001", "-1", ".5", "two", "1e0"}},
	{name: "cpuset-cpus", values: []string{"0", "0-1", "0,1", "99", "x", "1-0"}},
	{name: "cpuset-mems", values: []string{"0", "7", "a"}},
	{name: "device", values: []string{
		"/dev/null", "/dev/zero:/dev/xzero:r", "/dev/null:/dev/a,/dev/zero:/dev/b:rw", "/dev/kmsg:w", "/dev/not-there",
		placeDir + "/devlink", placeDir + "/devlink:/dev/linked", placeDir + "/file.txt", "/dev/null:/dev/x:rx",
		"/dev/null:rwmr", placeDir + "/devdir:/dev/inside", placeDir + "/devdir:r", placeDir + "/empty", "/dev/net", "/dev/loop-control",
	}},
	{name: "device-cgroup-rule", values: []string{"c 188:* rmw", "b *:* r", "a *:* rwm", "c 1:3", "x 1:1 r", "c 1:3 rx", "c 10 w"}},
	{name: "device-read-bps", values: []string{"/dev/null:1mb", "/dev/null", "x:1", "/dev/null:-1", "/dev/zero:512"}},
	{name: "device-read-iops", values: []string{"/dev/null:1000", "/dev/null:1k"}},
	{name: "device-write-bps", values: []string{"/dev/null:1g,/dev/zero:7"}},
	{name: "device-write-iops", values: []string{"/dev/null:5", "/dev/not-there:5"}},
	{name: "blkio-weight-device", values: []string{"/dev/null:200", "/dev/null:5", "/dev/null:1001", "/dev/null:0"}},
	{name: "dns", values: []string{"10.0.0.53", "10.0.0.53,fe80::53", "none", "none,10.0.0.1", "nota.server"}},
	{name: "dns-option", aliases: []string{"dns-opt"}, values: []string{"ndots:2", "a,b"}},
	{name: "dns-search", values: []string{"lab.example", ".", ".,a.example", "a.example,b", "1234", "-x"}},
	{name: "detach-keys", values: []string{"ctrl-p,ctrl-q", ""}},
	{name: "disable-content-trust"},
	{name: "entrypoint", values: []string{"/bin/sh", `["/bin/sh","-c"]`, "", "[]", `["broken`, "/bin/sh -c"}},
	{name: "env", short: "e", values: []string{
		"FOO=bar", "FOO=", "HOSTVAR", "NOT_SET", "FW_*", "PATH=/opt", "=x", "A=b=c", "HOME=/h", "HOSTNAME=h", "MSG=hello  world",
		"TERM=linux", " LEAD=1", "*", "container=x",
	}},
	{name: "env-file", values: []string{placeDir + "/basic.env", placeDir + "/crlf.env", placeDir + "/bad.env", "basic.env", "/no/such.env", placeDir + "/basic.env," + placeDir + "/crlf.env"}},
	{name: "env-host"},
	{name: "env-merge", values: []string{"PATH=/opt:${PATH}", "LANG=${LANG:-x}", "NEW=${PATH}", "EMPTY=${EMPTY:+set}y", "TOOL_VERSION='$PATH'", `LANG="${LANG}.x"`, "LANG=$HOSTVAR"}},
	{name: "expose", values: []string{"80", "80/tcp", "1-3/udp", "0", "3-1", "a"}},
	{name: "group-add", values: []string{"disk", "6", "4711", "ghosts", "disk,video"}},
	{name: "health-cmd", values: []string{"/bin/true", "none"}},
	{name: "health-interval", values: []string{"disable", "3s", "x"}},
	{name: "health-retries", values: []string{"0", "2"}},
	{name: "health-start-period", aliases: []string{"healthcheck-start-period"}, values: []string{"0s", "1m", "-1s"}},
	{name: "health-timeout", values: []string{"5s", "0s"}},
	{name: "hostname", short: "h", values: []string{"flasher", "node.example"}},
	{name: "hostuser", values: []string{"root", "daemon", "no-such-account", "root,daemon"}},
	{name: "http-proxy"},
	{name: "image-volume", values: []string{"bind", "tmpfs", "ignore", "x"}},
	{name: "init"},
	{name: "init-path", values: []string{placeDir + "/init", "init"}},
	{name: "interactive", short: "i"},
	{name: "ipc", values: []string{"host", "none", "private", "shareable", "ns:/proc/self/ns/ipc", "ns:/no/such", "x", ""}},
	{name: "kernel-memory", values: []string{"64m"}},
	{name: "label", short: "l", values: []string{"job=42", "empty", "=x", "io.containers.capabilities=CHOWN", "io.containers.capabilities=SYS_ADMIN"}},
	{name: "label-file", values: []string{placeDir + "/labels.txt", "/no/labels"}},
	{name: "log-driver", values: []string{"k8s-file", "none", "passthrough", "json-file", "syslog"}},
	{name: "log-opt", values: []string{"max-size=1mb", "novalue", "max-size=x", "path=@DIR@/log", "driver=none"}},
	{name: "memory", short: "m", values: []string{"512m", "1.5g", "1g", "0", "abc", "100000000", "2GiB", "-1"}},
	{name: "memory-reservation", values: []string{"128m", "4g", "x"}},
	{name: "memory-swap", values: []string{"768m", "-1", "256m", "x", "0"}},
	{name: "memory-swappiness", values: []string{"10", "-1", "101", "0"}},
	{name: "mount", values: []string{
		"type=bind,src=@DIR@/dir,dst=/a", "type=bind,source=@DIR@/dir,target=/a,ro", "type=bind,src=@DIR@/file.txt,destination=/b,readonly=true,nosuid",
		"type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1777", "type=tmpfs,target=/t,notmpcopyup,ro", "type=volume,source=cache,target=/c,ro",
		"type=volume,target=/c", "type=devpts,destination=/dev/pts,gid=5,newinstance", "type=bind,src=@DIR@/dir", "src=@DIR@/dir,dst=/b",
		"type=nfs,src=a,dst=/b", "type=bind,src=@DIR@/dir,dst=/a,bind-propagation=rslave", "type=bind,src=@FLAG@,dst=/f,exec",
		"type=bind,src=@DIR@/dir,dst=/a,rw=false", "type=bind,src=@DIR@/dir,dst=/a,ro=false", "type=bind,src=@DIR@/dir,dst=/a,bind-nonrecursive,relabel=shared",
		"type=tmpfs,dst=/t,src=x", "type=tmpfs,dst=/t,U", "type=bind,src=/no/such,dst=/a", "type=bind,src=@DIR@/dir,dst=rel",
		"type=bind,src=@DIR@/dir,dst=/a/../x,private,consistency=cached", "\"type=bind\",\"src=@DIR@/with,comma\",dst=/a", "type=bind,dst=/dev",
		"type=bind,src=@DIR@/dir,dst=/a,ro,rw", "type=bind,src=@DIR@/dir,dst=/a,shared", "type=tmpfs,dst=/t,exec,suid,dev", "type=tmpfs,dst=/t,U=false",
	}},
	{name: "name", values: []string{"step", "fw-step_1.x", "-bad", "a b"}},
	{name: "no-healthcheck"},
	{name: "no-hosts"},
	{name: "oom-kill-disable"},
	{name: "oom-score-adj", values: []string{"500", "-500", "0", "x", "0x10"}},
	{name: "os", aliases: []string{"override-os"}, values: []string{"linux"}},
	{name: "passwd"},
	{name: "passwd-entry", values: []string{"fw:*:$UID:$GID:$NAME:$HOME:/bin/sh", "$USERNAME"}},
	{name: "personality", values: []string{"LINUX32", "LINUX"}},
	{name: "pid", values: []string{"host", "private", "ns:/proc/self/ns/pid", "guest", ""}},
	{name: "pidfile", values: []string{placeDir + "/pid"}},
	{name: "pids-limit", values: []string{"100", "-1", "0", "lots", "0x40", "99999999999"}},
	{name: "platform", values: []string{"linux/amd64"}},
	{name: "privileged"},
	{name: "publish", short: "p", values: []string{"8080:80", "99999:1", "80", "127.0.0.1:80:80/udp", "[::1]:80:80", "1-2:3-5", ":80", "80/"}},
	{name: "publish-all", short: "P"},
	{name: "pull", values: []string{"never", "missing", "perhaps", "ifnotpresent", "Never"}},
	{name: "quiet", short: "q"},
	{name: "read-only"},
	{name: "read-only-tmpfs"},
	{name: "replace"},
	{name: "restart", values: []string{"no", ""}},
	{name: "rm"},
	{name: "rmi"},
	{name: "sdnotify", values: []string{"ignore", "container", "conmon", "x"}},
	{name: "seccomp-policy", values: []string{"default", "x"}},
	{name: "security-opt", values: []string{
		"no-new-privileges", "no-new-privileges=true", "no-new-privileges:false", "no-new-privileges=maybe", "seccomp=unconfined",
		"seccomp=@DIR@/seccomp.json", "seccomp=@DIR@/broken.json", "seccomp=/no/such.json", "mask=/proc/cpuinfo:/sys/class", "mask=rel",
		"unmask=ALL", "unmask=all", "unmask=/proc/acpi:/sys/firmware", "unmask=/proc/*", "unmask=/sys/fs/cgroup", "unmask=/sys/fs/cgroup/",
		"proc-opts=nosuid,exec,hidepid=2", "systempaths=unconfined", "systempaths=x", "frob=1", "frob", "apparmor=unconfined", "label=disable", "seccomp:unconfined",
	}},
	{name: "shm-size", values: []string{"64m", "1g", "big", "0", "65536000"}},
	{name: "sig-proxy"},
	{name: "stop-signal", values: []string{"SIGINT", "9", "usr1", "SIGRTMIN+3", "RTMAX-1", "SIGFOO", "0", "65", "-9"}},
	{name: "stop-timeout", values: []string{"3", "0", "-1", "x"}},
	{name: "sysctl", values: []string{
		"kernel.shm_rmid_forced=1", "net.ipv4.ip_forward=1", "fs.mqueue.msg_max=10", "vm.swappiness=10", "kernel.sem=250 32000 100 128",
		"novalue", "net.x=a=b", "kernel.msgmax= 1", "net.a=1,net.b=2", "kernel.hostname=x",
	}},
	{name: "systemd", values: []string{"always", "false", "true", "True", "x"}},
	{name: "timeout", values: []string{"20", "0", "x"}},
	{name: "tls-verify"},
	{name: "tmpfs", values: []string{
		"/scratch", "/run:rw,size=64m,mode=1777", "/x:frob", "rel", "/tmp:noexec,nosuid", "/x:exec,dev,suid", "/var/run:size=1m", "/x:notmpcopyup",
		"/x:rw,ro", "/x:size=1,size=2", "/x/", "/x:bind", "/dev/shm:size=1m", "/data", "/x:U", "/x:z", "/x:shared",
	}},
	{name: "tty", short: "t"},
	{name: "tz", values: []string{"UTC", "Mars/Base", "local", "America"}},
	{name: "ulimit", values: []string{"nofile=1024:2048", "nofile=1024", "memlock=-1:-1", "core=0", "host", "nofile", "frob=1", "nofile=2:1", "nproc=5,core=1", "cpu=-1"}},
	{name: "umask", values: []string{"0077", "22", "9999", "00022", "", "7"}},
	{name: "unsetenv", values: []string{"LANG", "PATH", "TERM,LANG", "NOT_SET", "HOME"}},
	{name: "unsetenv-all"},
	{name: "user", short: "u", values: []string{
		"svc", "svc:disk", "1000", "1000:1000", "4242", "4242:4343", "ghost", "svc:ghosts", "root", "0", "0:0", ":disk", "root:6", "1001:video", "nobody:",
	}},
	{name: "userns", values: []string{"host", ""}},
	{name: "uts", values: []string{"host", "private", "ns:/proc/self/ns/uts", "x"}},
	{name: "volume", short: "v", values: []string{
		"@DIR@/dir:/payload", "@DIR@/dir:/payload:ro", "@DIR@/file.txt:/etc/payload.txt:ro,noexec", "/dev:/dev", "/:/host:ro,rslave", "./dir:/a", "../x:/a",
		"cache:/cache", "cache:/cache:ro,noexec", "/scratch", "/does/not/exist:/x", ":/x", "@DIR@/dir:x", "@DIR@/dir:/x:zz", "@DIR@/dir:/x:rshared", "@DIR@/dir:/x:shared",
		"@DIR@/dir:/a:O", "@DIR@/dir:/a:z", "@DIR@/dir:/a:U", "@FLAG@:/f", "@FLAG@:/f:exec,suid", "@DIR@/link:/a", "@DIR@/file.txt:/etc/hosts", "rel/dir:/x",
		"@DIR@/dir:/x/", "@DIR@/dir:/a/../b", "cache:/x:nocopy", "@DIR@/dir:/payload:rw,ro", "a:b:c:d", "@DIR@/dir:/etc/passwd", "@DIR@/passwd:/etc/passwd",
		"@DIR@/dir:/run", "@DIR@/dir:/dev/shm", "@DIR@/dir:/proc", "@DIR@/dir:/sys/fs/cgroup", "@DIR@/dir:/tmp:bind", "@DIR@/dir:/tmp:cached", "@DIR@/dir:/", ".:/dot",
		"cache:/data", "@DIR@/etc:/etc", "/run/../run/lock:/l", "@DIR@/dir:/a:unbindable", "cache:rel", "@DIR@/dir:/work:slave,nodev",
	}},
	{name: "workdir", short: "w", values: []string{"/tmp", "/no/such", "/payload", "/", "tmp", "/dev", "/payload/sub/deep", "/var/run", "/etc/passwd", "/home/svc"}},
}

// undrawn are options of podman 4.3.1 that careen takes and that are not drawn, with the
// reason.
var undrawn = map[string]string{
	"help": "runs nothing", "variant": "podman would look for another image", "cert-dir": "run has it in newer podman only",
	"creds": "run has it in newer podman only", "network": "it is drawn for every set",
}

// TestGrammarIsComplete makes sure that every option that careen takes is drawn.
func TestGrammarIsComplete(t *testing.T) {
	known := make(map[string]bool)
	for _, r := range rules {
		known[r.name] = true
	}
	for _, option := range oci.Options() {
		if option.On&oci.OnRun == 0 || option.Verdict == oci.Reject || option.Podman != "4.3.1" || undrawn[option.Name] != "" {
			continue
		}
		require.True(t, known[option.Name], "--%s is not drawn", option.Name)
	}
}

// optionSet is one drawn command line.
type optionSet struct {
	words   []string
	image   *testImage
	command []string
	v2      bool
}

func (s optionSet) line() []string {
	return append(append(append([]string{}, s.words...), s.image.reference()), s.command...)
}

func (s optionSet) String() string {
	return fmt.Sprintf("cgroup v2 %v: %s", s.v2, strings.Join(s.line(), " "))
}

// drawSet draws up to six options, a network, an image and sometimes a command.
func drawSet(t *rapid.T, replace *strings.Replacer) optionSet {
	network := rapid.SampledFrom([]string{"--network=host", "--net=none", "--network host", "--net ns:/proc/self/ns/net"}).Draw(t, "network")
	set := optionSet{
		words: strings.Fields(replace.Replace(network)),
		image: images[uniform(t, len(images))],
		v2:    rapid.Bool().Draw(t, "cgroup v2"),
	}
	for range rapid.IntRange(1, 6).Draw(t, "options") {
		r := rules[uniform(t, len(rules))]
		words := drawRule(t, r)
		for i := range words {
			words[i] = replace.Replace(words[i])
		}
		if *mutate && !unmutated[r.name] && uniform(t, 2) == 0 {
			last := len(words) - 1
			words[last] = mutated(t, words[last])
		}
		set.words = append(set.words, words...)
	}
	set.giveInit(replace)
	if rapid.IntRange(0, 3).Draw(t, "command") == 0 {
		set.command = rapid.SampledFrom([][]string{{"/bin/true"}, {"--flag", "-v", "/x:/y"}, {"/sbin/init"}}).Draw(t, "words")
	}
	return set
}

// giveInit puts an --init-path before an --init without one, since a machine may have
// no binary of podman's choice; careen needs none.
func (s *optionSet) giveInit(replace *strings.Replacer) {
	for _, word := range s.words {
		if strings.HasPrefix(word, "--init-path") {
			return
		}
	}
	for _, word := range s.words {
		if strings.HasPrefix(word, "--init") {
			s.words = append([]string{"--init-path=" + replace.Replace(placeDir+"/init")}, s.words...)
			return
		}
	}
}

// uniform draws an index below n. rapid's own numbers lean to small ones, which
// would leave most options out; booleans do not.
func uniform(t *rapid.T, n int) int {
	index := 0
	for bits := 1; bits < 4*n; bits *= 2 {
		index *= 2
		if rapid.Bool().Draw(t, "") {
			index++
		}
	}
	return index % n
}

// drawRule draws one use of an option in one of its spellings.
func drawRule(t *rapid.T, r rule) []string {
	name := "--" + rapid.SampledFrom(append([]string{r.name}, r.aliases...)).Draw(t, "name")
	if r.values == nil {
		forms := []string{name, name, name + "=true", name + "=false", name + "=1", name + "=F", name + "=maybe"}
		if r.short != "" {
			forms = append(forms, "-"+r.short, "-"+r.short+"=false", "-i"+r.short)
		}
		return []string{rapid.SampledFrom(forms).Draw(t, "form")}
	}
	value := r.values[uniform(t, len(r.values))]
	if draw := drawn[r.name]; draw != nil && rapid.Bool().Draw(t, "") {
		value = draw(t)
	}
	forms := [][]string{{name + "=" + value}, {name, value}}
	if r.short != "" {
		forms = append(forms, []string{"-" + r.short, value}, []string{"-i" + r.short + "=" + value})
		if value != "" {
			forms = append(forms, []string{"-" + r.short + value}, []string{"-t" + r.short, value})
		}
	}
	return rapid.SampledFrom(forms).Draw(t, "form")
}

// unmutated are options whose wrong values differ on purpose (see gendoc.Differences),
// or make podman ask a registry.
var unmutated = map[string]bool{
	"personality": true, "oom-score-adj": true, "platform": true, "pull": true, "arch": true, "os": true,
}

// mutated changes one character of the value in word, which may be --name=value:
// it comes upon values that nobody thinks of.
func mutated(t *rapid.T, word string) string {
	start := 0
	if strings.HasPrefix(word, "-") {
		start = strings.Index(word, "=") + 1
		if start == 0 {
			return word
		}
	}
	value := word[start:]
	at := uniform(t, len(value)+1)
	insert := pick(t, ", : = / . .. - + 0 1 9 k m G s a A _ @ * \\ ' \" $ # % { [ ; true :: ,, ns: é")
	switch {
	case at == len(value) || uniform(t, 3) == 0:
		value = value[:at] + insert + value[at:]
	case uniform(t, 2) == 0:
		value = value[:at] + value[at+1:]
	default:
		value = value[:at] + insert + value[at+1:]
	}
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return word
	}
	return word[:start] + value
}
