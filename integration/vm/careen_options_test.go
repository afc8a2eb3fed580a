package vm_test

import (
	"os"
	"strings"

	"github.com/stretchr/testify/require"

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
echo == reaped; sh -c 'sh -c "usleep 1000" & exit 0'; n=0; while cat /proc/[0-9]*/stat 2>/dev/null | grep -q ') Z '; do n=$((n+1)); [ $n -lt 300 ] || { ps; break; }; usleep 10000; done; echo none left
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
