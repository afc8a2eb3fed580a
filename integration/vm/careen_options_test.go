package vm_test

import (
	"os"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// zone is a time zone that the guest gets a file of, if this machine has it.
const zone = "/usr/share/zoneinfo/Asia/Tokyo"

func zoneFiles() map[string]string {
	if _, err := os.Stat(zone); err != nil {
		return nil
	}
	return map[string]string{zone: zone}
}

// testOptions sees options at work from inside of containers: as many in each as
// do not get in one another's way.
func testOptions(g *careenGuest) {
	testLimits(g)
	testIdentity(g)
	testOOM(g)
	testHostPid(g)
	testFilters(g)
	testOwnership(g)
	testTraces(g)
}

// expect checks sections of a container's output.
func (g *careenGuest) expect(out string, want map[string]string) {
	g.t.Helper()
	for name, text := range want {
		if got := section(out, name); !strings.Contains(got, text) {
			g.t.Errorf("%s: want %q in %q", name, text, got)
		}
	}
}

func testLimits(g *careenGuest) {
	out, code := g.step("--memory=64m --cpus=0.5 --pids-limit=20 --tmpfs /scratch:size=1m --ulimit nofile=123:456 --shm-size=2m "+
		"--hostname=unit7 --add-host=peer.example:192.0.2.7 --network=none --security-opt=no-new-privileges --cap-drop=CHOWN "+
		"--cap-add=MKNOD --sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=4096 --device=/dev/vda:/dev/disk:r", `
echo == memory; cat /sys/fs/cgroup/memory.max
echo == cpus; cat /sys/fs/cgroup/cpu.max
echo == pids; cat /sys/fs/cgroup/pids.max
echo == forks; sh -c 'i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done' 2>&1; killall -9 sleep
echo == tmpfs; df -k /scratch | tail -n 1; dd if=/dev/zero of=/scratch/x bs=1k count=2000 2>&1
echo == ulimit; echo soft $(ulimit -Sn) hard $(ulimit -Hn)
echo == shm; df -k /dev/shm | tail -n 1
echo == hostname; hostname; cat /etc/hostname; echo
echo == hosts; cat /etc/hosts
echo == network; ls /sys/class/net; tail -n +3 /proc/net/dev | wc -l
echo == privileges; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status
echo == chown; touch /tmp/mine; chown 7 /tmp/mine 2>&1
echo == masked; head -c 16 /proc/kcore | wc -c; ls /sys/firmware | wc -l
echo == sysctl; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax
echo == device; dd if=/dev/disk of=/dev/null bs=512 count=1 2>&1
echo == device write; dd if=/dev/zero of=/dev/disk bs=512 count=1 conv=notrunc 2>&1
echo == device denied; mknod /tmp/zram b 253 7 && dd if=/tmp/zram of=/dev/null count=1 2>&1
echo == mount; mkdir /mnt; mount -t tmpfs x /mnt 2>&1
echo == root write; echo x >/file && cat /file
`)
	require.Zero(g.t, code, out)
	g.expect(out, map[string]string{
		"memory": "67108864", "cpus": "50000 100000", "pids": "20", "forks": "can't fork",
		"tmpfs": "No space left", "ulimit": "soft 123 hard 456", "hostname": "unit7\nunit7",
		"hosts": "192.0.2.7\tpeer.example", "network": "lo\n1",
		"privileges": "NoNewPrivs:\t1\nSeccomp:\t2", "chown": "Operation not permitted",
		"masked": "0\n0", "sysctl": "1\n4096", "device": "1+0 records in", "device write": "Operation not permitted",
		"device denied": "Operation not permitted", "mount": "ermission denied", "root write": "x",
	})
	require.Equal(g.t, "1024", strings.Fields(section(out, "tmpfs"))[1])
	require.Equal(g.t, "2048", strings.Fields(section(out, "shm"))[1])
	require.Equal(g.t, "0", g.MustRun("cat /proc/sys/net/ipv4/ip_forward"), "the node's own stays")
}

func testIdentity(g *careenGuest) {
	g.MustRun("mkdir -p /srv/data && echo node >/srv/data/word; echo FILE=yes >/srv/env")
	options := "--user=worker --group-add=flash -e WORD=hello --env-file=/srv/env -e FROM_CALLER --umask=0027 --init " +
		"-v /srv/data:/vol:O -v /srv/data:/plain:ro -v named:/data -w /data"
	if zoneFiles() != nil {
		options += " --tz=Asia/Tokyo"
	}
	script := `
echo == id; id
echo == env; env | sort
echo == umask; touch /tmp/new; stat -c %a /tmp/new
echo == first; tr '\0' ' ' </proc/1/cmdline; echo; echo I am $$
echo == zone; date +%Z
echo == reaped; sh -c 'sh -c "usleep 1000" & exit 0'; while cat /proc/[0-9]*/stat 2>/dev/null | grep -q ') Z '; do usleep 10000; done; echo none left
echo == overlay; cat /vol/word
echo == plain; echo x >/plain/word
echo == volume; cat /data/seed
echo == directory; pwd
`
	out, code := g.Run("FROM_CALLER=shell careen run --rm " + options + " " + g.plain + " sh -c " + quoted(script))
	require.Zero(g.t, code, out)
	g.expect(out, map[string]string{
		"id": "uid=1234(worker) gid=2345(worker) groups=77(flash),2345(worker)", "umask": "640",
		"reaped": "none left", "overlay": "node", "plain": "", "volume": "from the image", "directory": "/data",
	})
	for _, pair := range []string{"WORD=hello", "FILE=yes", "FROM_CALLER=shell", "LAYER=image", "HOME=/tmp", "PATH=/bin"} {
		require.Contains(g.t, section(out, "env"), pair)
	}
	require.Contains(g.t, section(out, "first"), "-- sh -c")
	require.NotContains(g.t, section(out, "first"), "I am 1\n")
	require.Contains(g.t, out, "can't create /plain/word: Read-only file system")
	if zoneFiles() != nil {
		require.Equal(g.t, "JST", section(out, "zone"))
	}

	// With the capability it is only the filter that keeps a step from swapoff(2).
	out, code = g.step("-v /srv/data:/vol:O --cap-add=SYS_ADMIN", "echo changed >/vol/word && touch /vol/new && cat /vol/word; swapoff /image-mark")
	require.NotZero(g.t, code, out)
	require.Contains(g.t, out, "changed")
	require.Contains(g.t, out, "swapoff: /image-mark: Operation not permitted")
	require.Equal(g.t, "node", g.MustRun("cat /srv/data/*"), "what is written to :O is dropped")
}

func testOOM(g *careenGuest) {
	out, code := g.step("--memory=32m", "exec tail /dev/zero")
	require.Equal(g.t, 137, code, out)
	run := g.last()
	require.Equal(g.t, string(fault.OOM), run.Outcome.Code, "%+v", run.Outcome)
	require.True(g.t, run.Outcome.OOMKilled)
	require.Contains(g.t, out, "memory")
}

func testHostPid(g *careenGuest) {
	out, code := g.step("--pid=host --uts=host --ipc=host", "cat /proc/1/comm; hostname; echo == self; cat /proc/self/comm")
	require.Zero(g.t, code, out)
	require.Contains(g.t, out, g.MustRun("cat /proc/1/comm; hostname"))
}

// noChmod is a filter of the operator's own: chmod fails with EACCES, which nothing else
// would give to root.
const noChmod = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmod","fchmodat","fchmodat2"],` +
	`"action":"SCMP_ACT_ERRNO","errnoRet":13}]}`

// testFilters sees filters, masks, namespaces and the limits that testLimits leaves.
func testFilters(g *careenGuest) {
	g.MustRun("mkdir -p /srv && echo " + quoted(noChmod) + " >/srv/seccomp.json")
	out, code := g.step("--security-opt seccomp=/srv/seccomp.json --security-opt mask=/proc/uptime --security-opt unmask=/proc/timer_list "+
		"--personality=LINUX32 --oom-score-adj=500 --memory-reservation=16m --cpu-shares=512 --cpuset-cpus=0 --cgroup-conf=memory.high=50331648 "+
		"--cgroup-parent=/steps --ipc=none --dns=192.0.2.53 --dns-search=lab.example --dns-option=ndots:3 --cap-drop=ALL --cap-add=CHOWN", `
echo == seccomp; touch /tmp/x; chmod 600 /tmp/x 2>&1
echo == masked; wc -c </proc/uptime
echo == unmasked; head -n 1 /proc/timer_list
echo == personality; uname -m
echo == score; cat /proc/self/oom_score_adj
echo == reservation; cat /sys/fs/cgroup/memory.low
echo == weight; cat /sys/fs/cgroup/cpu.weight
echo == cpus; cat /sys/fs/cgroup/cpuset.cpus
echo == high; cat /sys/fs/cgroup/memory.high
echo == cgroup; cat /proc/self/cgroup
echo == shm; ls -d /dev/shm 2>&1
echo == resolver; cat /etc/resolv.conf
echo == processes; ls -d /proc/[0-9]* | wc -l
echo == capabilities; grep CapEff /proc/self/status; chown 7 /tmp/x && stat -c %u /tmp/x
echo == bound; mkdir /tmp/d && chroot /tmp/d x 2>&1
`)
	require.NotZero(g.t, code, out)
	g.expect(out, map[string]string{
		"seccomp": "Permission denied", "masked": "0", "unmasked": "Timer List Version", "personality": "i686", "score": "500",
		"reservation": "16777216", "cpus": "0", "high": "50331648", "cgroup": "0::/",
		"shm": "No such file", "resolver": "search lab.example\nnameserver 192.0.2.53\noptions ndots:3",
		"capabilities": "CapEff:\t0000000000000001\n7", "bound": "Operation not permitted",
	})
	require.NotEqual(g.t, "100", section(out, "weight"), "the default")
	require.Equal(g.t, "0::/", section(out, "cgroup"), "a cgroup namespace of its own")
	require.Less(g.t, len(section(out, "processes")), 2, "a PID namespace of its own")
	g.MustRun("ls -d /sys/fs/cgroup/steps")
}

// testOwnership sees mounts with options of their own, and devices by rule.
func testOwnership(g *careenGuest) {
	major := g.MustRun("echo $((0x$(stat -c %t /dev/vda)))")
	g.MustRun("mkdir -p /srv/own/sub /srv/noexec && touch /srv/own/sub/file && mount -t tmpfs -o nosuid,nodev,noexec flagged /srv/noexec")
	out, code := g.step("--user=worker -v /srv/own:/own:U -v /srv/noexec:/flagged --mount type=tmpfs,dst=/t,tmpfs-size=64k,tmpfs-mode=0700 "+
		"--tmpfs /noexec:noexec,mode=1777 --mount type=bind,src=/srv/own,dst=/ro,readonly=true --read-only --passwd-entry='fw:*:$UID::::'", `
echo == own; stat -c %u:%g /own/sub/file; touch /own/new && echo written
echo == tmpfs; stat -c %a /t; df -k /t | tail -n 1
echo == noexec; cp /bin/busybox /noexec/true; /noexec/true 2>&1
echo == ro; touch /ro/new 2>&1
echo == inherited; grep ' /flagged ' /proc/mounts
`)
	g.MustRun("umount /srv/noexec")
	require.Zero(g.t, code, out)
	g.expect(out, map[string]string{
		"own": "1234:2345\nwritten", "tmpfs": "700", "noexec": "Permission denied", "ro": "Read-only file system",
		"inherited": "nosuid,nodev,noexec",
	})
	require.Equal(g.t, "64", strings.Fields(section(out, "tmpfs"))[2], out)

	const open = "mknod /tmp/disk b %s 0 && head -c 4 /tmp/disk | wc -c"
	script := strings.Replace(open, "%s", major, 1)
	rule := quoted("--device-cgroup-rule=b " + major + ":* r")
	out, code = g.step("--cap-add=MKNOD "+rule, script)
	require.Zero(g.t, code, out)
	require.Contains(g.t, out, "4")
	out, code = g.step("--cap-add=MKNOD", script+" 2>&1")
	require.Contains(g.t, out, "Operation not permitted", "%d", code)
}

// testTraces sees what options leave on the node, and the clock of --timeout.
func testTraces(g *careenGuest) {
	out, code := g.step("--cidfile=/srv/cid --pidfile=/srv/pid --timeout=10 --name=clocked -v /srv:/node:ro", "until [ -s /node/pid ]; do usleep 50000; done; "+
		"echo == cid; cat /node/cid; echo; echo == pid; cat /node/pid; echo; trap '' TERM; while :; do sleep 1000; done")
	require.NotZero(g.t, code, out)
	run := g.last()
	require.Equal(g.t, api.TimedOut, run.State, "%+v", run.Outcome)
	require.Equal(g.t, "clocked", run.Name)
	require.Regexp(g.t, "^[0-9a-f]{64}$", section(out, "cid"))
	require.Regexp(g.t, "^[0-9]+$", strings.Fields(section(out, "pid"))[0])
	out, code = g.step("--cidfile=/srv/seccomp.json", "true")
	require.Equal(g.t, 125, code, out)
	require.Contains(g.t, out, "--cidfile=/srv/seccomp.json")
	for _, refused := range []string{"--userns=auto", "--network=bridge", "--volumes-from=other", "--restart=always", "--secret=key"} {
		out, code = g.step(refused, "true")
		require.Equal(g.t, 125, code, out)
		require.Contains(g.t, out, refused)
	}
}
