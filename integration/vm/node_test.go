package vm_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/vm"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
)

// buildNode builds the command that shows package rootfs at work.
func buildNode(t *testing.T) string {
	t.Helper()
	vm.Require(t)
	path := filepath.Join(t.TempDir(), "node")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./internal/node")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// prepared is what "node prepare" prints.
type prepared struct {
	Layout  rootfs.Layout
	Actions []rootfs.Action
	PID     int
}

func prepare(t *testing.T, guest *vm.VM, args string) prepared {
	t.Helper()
	var p prepared
	out := guest.MustRun("node prepare " + args)
	require.NoError(t, json.Unmarshal([]byte(out), &p), out)
	return p
}

// did returns the actions as lines.
func (p prepared) did() string {
	var lines []string
	for _, a := range p.Actions {
		lines = append(lines, a.String())
	}
	return strings.Join(lines, "\n")
}

func TestPrepareABareInitramfs(t *testing.T) {
	t.Parallel()
	guest := vm.Start(t, vm.Config{Memory: 512, HostFiles: map[string]string{"/usr/bin/node": buildNode(t)}})

	p := prepare(t, guest, "")
	t.Logf("%s", p.did())
	for _, want := range []string{
		"mount /proc: proc", "mount /sys: sysfs", "mount /dev: devtmpfs", "mount /dev/pts", "mount /dev/shm",
		"mount /dev/mqueue", "mount /run: tmpfs", "mount /tmp", "mount /sys/fs/cgroup: cgroup2", "load overlay:",
		"+memory", "create mount namespace", "mount /var/lib/careen: tmpfs size=",
	} {
		require.Contains(t, p.did(), want)
	}
	require.NotContains(t, p.did(), "cannot")
	l := p.Layout
	require.True(t, l.PivotRoot && l.Overlay && l.Entered && l.StoreTmpfs, "%+v", l)
	require.Equal(t, rootfs.CgroupV2, l.CgroupMode)
	require.Subset(t, l.CgroupControllers, []string{"cpu", "cpuset", "io", "memory", "pids"})
	require.InDelta(t, 0.75*512*(1<<20), float64(l.StoreSize), 0.25*512*(1<<20))

	t.Run("what is there is left alone", func(t *testing.T) {
		again := prepare(t, guest, "")
		require.Empty(t, again.Actions)
		require.True(t, again.Layout.Entered && again.Layout.StoreTmpfs)
		require.Equal(t, l.StoreSize, again.Layout.StoreSize)
	})
	t.Run("two at once on a fresh store", func(t *testing.T) {
		guest.MustRun("node run umount /var/lib/careen; node prepare >/run/one & node prepare >/run/two; wait")
		require.Equal(t, "1", guest.MustRun("node run cat /proc/mounts | grep -c careen-store"))
	})
	t.Run("the same namespace after a restart", func(t *testing.T) {
		one := guest.MustRun("node run readlink /proc/self/ns/mnt")
		require.Equal(t, one, guest.MustRun("node run readlink /proc/self/ns/mnt"))
		require.NotEqual(t, one, guest.MustRun("readlink /proc/self/ns/mnt"))
		guest.MustRun("node run mount -t tmpfs inside /var/lib/careen/x 2>/dev/null || node run sh -c 'mkdir -p /var/lib/careen/x; mount -t tmpfs inside /var/lib/careen/x'")
		require.Contains(t, guest.MustRun("node run cat /proc/mounts"), "inside")
		require.NotContains(t, guest.MustRun("cat /proc/mounts"), "inside", "the node must not see careen's mounts")
	})
	t.Run("later mounts of the node are seen", func(t *testing.T) {
		guest.MustRun("mkdir -p /mnt/late; node run sh -c 'until [ -e /mnt/late/word ]; do usleep 10000; done; cp /mnt/late/word /run/seen' & " +
			"mount -t tmpfs late /mnt/late; echo yes >/mnt/late/word; wait")
		require.Equal(t, "yes", guest.MustRun("cat /run/seen"))
	})
	t.Run("the working directory is kept", func(t *testing.T) {
		require.Equal(t, "/etc", guest.MustRun("cd /etc; node run pwd"))
	})
	t.Run("a cgroup that is not the root", func(t *testing.T) {
		// Its processes have to make room before controllers can be passed on.
		out := guest.MustRun("node boxed node prepare")
		require.Contains(t, out, "its processes to /sys/fs/cgroup/init.scope")
		require.NotContains(t, out, `"error"`)
		require.Contains(t, guest.MustRun("cat /sys/fs/cgroup/box/cgroup.subtree_control"), "memory")
	})
	t.Run("gather", func(t *testing.T) {
		out := guest.MustRun("node gather")
		require.Contains(t, out, `"CgroupV2": true`)
		require.Contains(t, out, `"CAP_SYS_ADMIN"`)
		require.Contains(t, out, `"/dev/null"`)
	})
}

// libraries returns a program of the host and what it is linked with.
func libraries(t *testing.T, program string) map[string]string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("needs Debian's %s: %v", program, err)
	}
	files := map[string]string{path: path}
	out, err := exec.CommandContext(t.Context(), "ldd", path).Output()
	require.NoError(t, err)
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			files[word] = word
		}
	}
	return files
}

// TestRuncPivots has Debian's own runc start a container: it refuses to on a bare
// initramfs, and does not after Enter.
func TestRuncPivots(t *testing.T) {
	t.Parallel()
	files := libraries(t, "runc")
	files["/usr/bin/node"] = buildNode(t)
	guest := vm.Start(t, vm.Config{Memory: 512, HostFiles: files})
	guest.MustRun("node prepare")
	guest.MustRun(`mkdir -p /run/c/rootfs/bin /run/c/rootfs/old && cp /.vm/busybox /run/c/rootfs/bin/ && cd /run/c && runc spec &&
		sed -i 's/"terminal": true/"terminal": false/; s,"sh",["/bin/busybox"@"cat"@"/proc/self/mountinfo"],' config.json &&
		tr -d '\n' <config.json | sed 's/\[[ \t]*\[/[/; s/\][ \t]*\]/]/; s/@/,/g' >c && mv c config.json`)

	out, code := guest.Run("cd /run/c && runc run one")
	require.NotZero(t, code, out)
	require.Contains(t, out, "pivot_root")

	out, code = guest.Run("cd /run/c && node run runc run two")
	require.Zero(t, code, out)
	root, _, _ := strings.Cut(out, "\n")
	require.Equal(t, "/", strings.Fields(root)[4], "the container's root has to be a mount of its own: %s", root)
	require.NotContains(t, out, "/old", "nothing of the old root may be left")
}

func TestLoadCompressedModules(t *testing.T) {
	t.Parallel()
	kernel, err := vm.FindKernel()
	if err != nil {
		vm.Require(t)
	}
	dir := t.TempDir()
	files := map[string]string{"/usr/bin/node": buildNode(t)}
	for name, compress := range map[string][]string{
		"kernel/lib/libcrc32c.ko": {"xz", "--check=crc32", "-c"},
		"kernel/fs/xfs/xfs.ko":    {"zstd", "-c"},
		"kernel/drivers/net/dummy.ko": {
			"gzip", "-c",
		},
	} {
		suffix := map[string]string{"xz": ".xz", "zstd": ".zst", "gzip": ".gz"}[compress[0]]
		target := filepath.Join(dir, filepath.Base(name)+suffix)
		data, err := exec.CommandContext(t.Context(), compress[0], append(compress[1:], filepath.Join(kernel.Modules, name))...).Output()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(target, data, 0o600))
		files["/alt/"+kernel.Release+"/"+name+suffix] = target
	}
	dep := "kernel/lib/libcrc32c.ko.xz:\nkernel/fs/xfs/xfs.ko.zst: kernel/lib/libcrc32c.ko.xz\nkernel/drivers/net/dummy.ko.gz:\n"
	guest := vm.Start(t, vm.Config{
		Memory: 512, HostFiles: files,
		Files: map[string][]byte{"/alt/" + kernel.Release + "/modules.dep": []byte(dep)},
	})
	guest.MustRun("node prepare")
	out := guest.MustRun("node load -modules /alt xfs")
	require.Contains(t, out, "xfs.ko.zst")
	// An image that requires a module has it loaded where it may, and nothing else is missing.
	for label, why := range map[string]string{"module=dummy": "it is not loaded", "module=dummy,kernel>=99.0": "Linux"} {
		out, code := guest.Run("node require -modules /alt '" + label + "'")
		require.NotZero(t, code)
		require.Contains(t, out, why)
	}
	out, code := guest.Run("node require -load -modules /alt 'module=dummy,kernel>=99.0'")
	require.NotZero(t, code, out)
	require.NotContains(t, guest.MustRun("cat /proc/modules"), "dummy ")
	out = guest.MustRun("node require -load -modules /alt 'module=dummy,device=/dev/null,modules,lockdown=none' && node require -modules /alt module=dummy")
	require.Contains(t, out, "dummy.ko.gz")
	require.Contains(t, guest.MustRun("cat /proc/modules"), "xfs ")
	require.Contains(t, guest.MustRun("cat /proc/modules"), "dummy ")
	require.Contains(t, guest.MustRun("cat /proc/filesystems"), "xfs")

	out, code = guest.Run("node load nothing")
	require.NotZero(t, code)
	require.Contains(t, out, "cannot load the kernel module nothing: not in /lib/modules/")
}

// makeOrphan leaves a process whose parent has ended; it ends a moment later. noZombie is true
// when the init has reaped every ended process.
const (
	makeOrphan = `sh -c 'sh -c "usleep 1000" & exit 0'`
	noZombie   = `! cat /proc/[0-9]*/stat 2>/dev/null | grep ') Z '`
)

func TestInitKeepsTheAgent(t *testing.T) {
	t.Parallel()
	node := buildNode(t)
	for _, tt := range []struct{ name, init, first string }{
		{"alone", "/careen-init-alone", "careen-init-alone"},
		{"beside busybox", "/careen-init", "init"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			guest := vm.Start(t, vm.Config{
				Memory: 512, HostFiles: map[string]string{"/usr/bin/node": node}, Init: tt.init,
				Links: map[string]string{tt.init: "/usr/bin/node"},
			})
			// busybox's init mounts nothing here; the supervisor waits for that.
			guest.MustRun("mkdir -p /proc /sys /run; for d in proc sysfs devtmpfs tmpfs; do case $d in sysfs) p=/sys;; devtmpfs) p=/dev;; tmpfs) p=/run;; *) p=/proc;; esac; grep -q \" $p \" /proc/mounts 2>/dev/null || mount -t $d $d $p 2>/dev/null || true; done")
			first := guest.Await("pidof careen")
			require.Contains(t, guest.MustRun("cat /proc/1/comm"), tt.first[:min(len(tt.first), 15)])
			guest.MustRun("kill -9 " + first)
			second := guest.Await("pid=$(pidof careen) && [ \"$pid\" != " + first + " ] && echo $pid")
			require.NotEqual(t, first, second)
			// An orphan that ends must not stay.
			guest.MustRun(makeOrphan)
			guest.Await(noZombie)
			guest.Leave("reboot")
			guest.AwaitEnd()
		})
	}
}

// findings returns what "node doctor" prints, by name.
func findings(t *testing.T, guest *vm.VM, args string) map[string]api.Check {
	t.Helper()
	var checks []api.Check
	out := guest.MustRun("node doctor " + args)
	require.NoError(t, json.Unmarshal([]byte(out), &checks), out)
	byName := map[string]api.Check{}
	for _, c := range checks {
		byName[c.Name] = c
	}
	return byName
}

// TestDoctorInABareInitramfs looks before and after, and at cgroup v1 in between.
func TestDoctorInABareInitramfs(t *testing.T) {
	t.Parallel()
	registry := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(registry.Close)
	_, port, err := net.SplitHostPort(registry.Listener.Addr().String())
	require.NoError(t, err)
	guest := vm.Start(t, vm.Config{Memory: 512, HostFiles: map[string]string{"/usr/bin/node": buildNode(t)}})

	before := findings(t, guest, "http://10.0.2.2:"+port)
	for name, c := range before {
		require.NotEqual(t, doctor.StatusError, c.Status, "%s: %+v", name, c)
	}
	require.Contains(t, before["mounts"].Detail, "careen agent will mount /proc")
	require.Contains(t, before["overlay"].Detail, "will load the module")
	require.Contains(t, before["pivot_root"].Detail, "in careen's own mount namespace")
	require.Contains(t, before["dns"].Detail, "no such file")
	for _, name := range []string{"privileges", "namespaces", "dev_mem", "ipmi", "memory"} {
		require.Equal(t, doctor.StatusOK, before[name].Status, "what is not mounted yet is no finding: %+v", before[name])
	}
	require.Equal(t, doctor.StatusOK, before["registry http://10.0.2.2:"+port].Status)
	require.Empty(t, guest.MustRun("ls /proc /sys /run 2>/dev/null | grep -v : || true"), "looking has to change nothing")

	guest.MustRun("mount -t proc proc /proc; mkdir -p /sys; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /sys/fs/cgroup; " +
		"for c in memory devices pids cpu; do mkdir /sys/fs/cgroup/$c; mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c; done")
	p := prepare(t, guest, "")
	require.Equal(t, rootfs.CgroupV1, p.Layout.CgroupMode)
	require.Equal(t, []string{"cpu", "devices", "memory", "pids"}, p.Layout.CgroupControllers)
	require.NotContains(t, p.did(), "cgroup", "v1 needs nothing")

	after := findings(t, guest, "http://10.0.2.2:1")
	require.Equal(t, "all present", after["mounts"].Detail)
	require.Contains(t, after["cgroup_devices"].Detail, "v1")
	require.Contains(t, after["registry http://10.0.2.2:1"].Detail, "refused")
	for _, name := range []string{"overlay", "store", "pivot_root", "namespaces", "seccomp", "keyring", "cgroups"} {
		require.Equal(t, doctor.StatusOK, after[name].Status, "%+v", after[name])
	}
}
