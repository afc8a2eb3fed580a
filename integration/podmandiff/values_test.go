package podmandiff

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// pick draws one of the words.
func pick(t *rapid.T, words string) string {
	list := strings.Split(words, " ")
	return strings.ReplaceAll(list[uniform(t, len(list))], "~", "")
}

// some draws up to n of the words and joins them.
func some(t *rapid.T, n int, separator, words string) string {
	var drawn []string
	for range uniform(t, n+1) {
		drawn = append(drawn, pick(t, words))
	}
	return strings.Join(drawn, separator)
}

// drawn makes values by composition for options whose values have a grammar of
// their own. A ~ stands for an empty word.
var drawn = map[string]func(t *rapid.T) string{
	"volume": func(t *rapid.T) string {
		source := pick(t, "@DIR@/dir @DIR@/file.txt @FLAG@ /dev/null cache other ./dir ../ / . @DIR@/link")
		value := source + ":" + pick(t, "/a /a /b /a/ /data /etc/hosts /run /tmp /dev/x a /work/sub /var/run/x //a")
		if options := some(t, 4, ",", volumeWords); options != "" {
			value += ":" + options
		}
		return value
	},
	"mount": func(t *rapid.T) string {
		fields := []string{"type=" + pick(t, "bind bind tmpfs volume devpts")}
		fields = append(fields, pick(t, "dst=/a target=/a destination=/b dst=/data dst=/dev/pts dst=/tmp dst=a dst=/a/../b dst=/run target"))
		if uniform(t, 3) > 0 {
			fields = append(fields, pick(t, "src=@DIR@/dir source=@DIR@/file.txt src=@FLAG@ src=cache src= source=./dir src=/no/such"))
		}
		for range uniform(t, 4) {
			fields = append(fields, pick(t, mountWords))
		}
		return strings.Join(fields, ",")
	},
	"tmpfs": func(t *rapid.T) string {
		value := pick(t, "/a /tmp /run /var/run /data /dev/shm /dev /proc a /a/../b /var/tmp /work /sys/fs/cgroup")
		if options := some(t, 4, ",", tmpfsWords); options != "" {
			value += ":" + options
		}
		return value
	},
	"cap-add": func(t *rapid.T) string { return some(t, 3, ",", capWords) },
	"cap-drop": func(t *rapid.T) string {
		return some(t, 3, ",", capWords)
	},
	"memory":             drawSize,
	"memory-swap":        drawSize,
	"memory-reservation": drawSize,
	"shm-size":           drawSize,
	"ulimit": func(t *rapid.T) string {
		name := pick(t, "nofile nproc core cpu data fsize locks memlock msgqueue nice rss rtprio rttime sigpending stack as NOFILE x")
		return name + "=" + pick(t, "0 1 1024 -1 x 1:2 2:1 -1:-1 -1:5 5:-1 1:2:3 ~ 18446744073709551615 0x10")
	},
	"device": func(t *rapid.T) string {
		value := pick(t, "/dev/null /dev/zero @DIR@/devlink @DIR@/devdir @DIR@/file.txt @DIR@/empty /dev/loop-control")
		if uniform(t, 2) > 0 {
			value += ":" + pick(t, "/dev/x /y r w m rw rwm mwr rr x dev/x")
		}
		if uniform(t, 3) > 0 {
			return value
		}
		return value + ":" + pick(t, "r rw rwm x rr")
	},
	"security-opt": func(t *rapid.T) string {
		if uniform(t, 2) > 0 {
			return pick(t, "mask unmask") + pick(t, "= = :") + some(t, 3, ":", "/proc/acpi /proc/* /sys/firmware /proc/sys ALL all /sys/dev/block /x rel /proc/k* /sys/fs/cgroup [")
		}
		return "proc-opts=" + some(t, 3, ",", "nosuid noexec nodev hidepid=2 ro subset=pid ~")
	},
	"user": func(t *rapid.T) string {
		value := pick(t, "root svc disktool nobody ghost 0 1 1000 1001 4242 65534 ~ 2147483647 -1 01000")
		if uniform(t, 2) > 0 {
			value += ":" + pick(t, "root disk video ghosts 0 6 1000 4343 ~ -1 x:y")
		}
		return value
	},
	"group-add": func(t *rapid.T) string { return some(t, 3, ",", "disk video 4711 0 svc dialout -1 nogroup") },
	"env": func(t *rapid.T) string {
		return pick(t, "A PATH HOME TERM HOSTNAME LANG FW_A FW_ container HOSTVAR http_proxy ~") + pick(t, "= =1 * ~ ==x =a,b =$X")
	},
	"unsetenv": func(t *rapid.T) string {
		return pick(t, "A PATH HOME TERM LANG TOOL_VERSION container http_proxy EMPTY")
	},
	"env-merge": func(t *rapid.T) string {
		name := pick(t, "PATH LANG HOME EMPTY NONE http_proxy")
		return name + "=" + some(t, 3, "", "$PATH ${LANG} ${NONE:-d} ${EMPTY:-e} ${LANG:+l} '$PATH' \"$LANG\" \\$ x : ${NONE} $ ${HOSTVAR}")
	},
	"stop-signal": func(t *rapid.T) string {
		return pick(t, "SIG sig ~ ~") + pick(t, "INT TERM kill 1 64 65 RTMIN RTMAX RTMIN+15 RTMIN+16 RTMAX-14 CLD IOT POLL -3 x WINCH 015")
	},
	"publish": func(t *rapid.T) string {
		return pick(t, "~ ~ 1.2.3.4: [::1]: x: :") + pick(t, "~ 80: 80-81: : 0:") + pick(t, "80 80-81 81-80 0 70000 x ~") + pick(t, "~ ~ /tcp / /a/b")
	},
	"cpuset-cpus": func(t *rapid.T) string { return some(t, 3, ",", "0 1 0-1 1-0 9 x ~ 0-") },
	"dns-search":  func(t *rapid.T) string { return some(t, 2, ",", "a.example b a-b.c -a 1.2 a_b . a. ~") },
	"dns":         func(t *rapid.T) string { return some(t, 2, ",", "10.0.0.1 ::1 fe80::1 none x 1.2.3 0010.0.0.1") },
	"add-host": func(t *rapid.T) string {
		return pick(t, "a a.b ~ localhost") + ":" + pick(t, "10.0.0.1 ::1 x ~ 10.0.0.1:1")
	},
	"sysctl": func(t *rapid.T) string {
		return pick(t, "kernel.msgmax kernel.sem net.core.somaxconn fs.mqueue.queues_max kernel.panic net fs.x kernel.shm_rmid_forced") + pick(t, "=1 = =a=b ~ = 1 =1 2")
	},
	"device-cgroup-rule": func(t *rapid.T) string {
		return pick(t, "a b c d") + " " + pick(t, "1:3 *:* 1:* *:3 * 1 1: x:1 1:3:5 -1:1") + " " + pick(t, "r rwm mr rr x ~")
	},
	"blkio-weight": func(t *rapid.T) string { return pick(t, "0 9 10 1000 1001 65535 65536 -1 0x10 ~") },
	"pids-limit":   func(t *rapid.T) string { return pick(t, "0 1 -1 -2 100 2147483647 2147483648 0b11 1_000 ~") },
	"cpus":         func(t *rapid.T) string { return pick(t, "0 0.01 0.5 1 2.75 -1 1e-3 NaN 0x1p-1 ~") },
	"label": func(t *rapid.T) string {
		return pick(t, "a io.containers.capabilities ~ b.c") + pick(t, "=chown,KILL =SYS_ADMIN =NOPE = ~ =a=b =all =CHOWN")
	},
	"annotation": func(t *rapid.T) string { return some(t, 2, ",", "a=1 b= =c d e=f=g") },
	"expose":     func(t *rapid.T) string { return pick(t, "80 1-2 2-1 x 0 65536 ~") + pick(t, "~ /tcp /a/b /") },
}

const (
	volumeWords = "ro rw exec noexec suid nosuid dev nodev private rprivate slave rslave shared rshared unbindable bind rbind z Z U O cached delegated copy nocopy x ~"
	mountWords  = "ro rw ro=true ro=false rw=false readonly readonly=true nosuid suid dev nodev exec noexec bind-propagation=slave bind-propagation=x rshared" +
		" bind-nonrecursive relabel=private relabel=x U U=false chown=true consistency=x tmpfs-size=1m tmpfs-mode=755 tmpcopyup notmpcopyup gid=5 uid=1 newinstance max=9 x z ro=x"
	tmpfsWords = "rw ro noexec exec nosuid suid nodev dev size=1m size=50% mode=1777 mode=755 tmpcopyup notmpcopyup private rslave shared U z bind x consistency=1 size uid=5"
	capWords   = "ALL all CHOWN kill CAP_SYS_ADMIN net_raw SYS_MODULE SYS_TIME bpf perfmon SYS_PTRACE syslog SETUID cap_setgid NOPE dac_read_search"
)

// drawSize draws a size, right or wrong.
func drawSize(t *rapid.T) string {
	return fmt.Sprintf("%s%s%s", pick(t, "1 64 512 0 1.5 .5 100000000 -1 1e3 ~"), pick(t, "~ ~ ~ ~"), pick(t, "m M mb MiB g k b ~ t x p"))
}
