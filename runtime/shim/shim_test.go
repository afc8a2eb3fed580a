package shim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	_ "github.com/careen-project/careen/runtime/reexec"

	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/logs"
	"github.com/careen-project/careen/runtime/shim"
)

// The test binary is the shim, as careen is: under the shim's name it serves.
func TestMain(m *testing.M) {
	if os.Getenv(unusualEnv) != "" {
		executeUnusual(os.Args[1:])
	}
	if filepath.Base(os.Args[0]) == shim.Name {
		os.Exit(shim.Main(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// box is a bundle of a busybox image and a shim that keeps it.
type box struct {
	t       *testing.T
	id      string
	bundle  string
	run     string
	task    taskapi.TTRPCTaskService
	target  shim.Target
	address string
	// unusual starts the shim from a process as executeUnusual makes it.
	unusual bool
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: containers need mounts and cgroups")
	}
}

// newBox makes a bundle and starts a shim for it as containerd does.
func newBox(t *testing.T, change func(*specs.Spec)) *box {
	t.Helper()
	b := newBundle(t, change)
	b.start()
	return b
}

// newBundle makes what a shim is started for.
func newBundle(t *testing.T, change func(*specs.Spec)) *box {
	t.Helper()
	requireRoot(t)
	b := &box{t: t, id: fmt.Sprintf("shimtest-%d-%d", os.Getpid(), time.Now().UnixNano()), bundle: t.TempDir(), run: t.TempDir()}
	b.target = shim.Target{Dir: container.Dir(b.run)}
	busybox, err := exec.LookPath("busybox")
	require.NoError(t, err, "install busybox-static")
	bin := filepath.Join(b.bundle, "rootfs", "bin")
	for _, dir := range []string{bin, filepath.Join(b.bundle, "rootfs/proc"), filepath.Join(b.bundle, "rootfs/dev")} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
	data, err := os.ReadFile(busybox)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755))
	for _, name := range []string{"sh", "sleep", "cat", "echo", "kill", "reboot", "seq", "stty"} {
		require.NoError(t, os.Symlink("busybox", filepath.Join(bin, name)))
	}
	spec := baseSpec(b.id)
	change(spec)
	data, err = json.Marshal(spec)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(b.bundle, "config.json"), data, 0o600))
	return b
}

func baseSpec(id string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: "/careen-test/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.UTSNamespace},
			},
		},
	}
}

func (b *box) start() {
	self, err := os.Executable()
	require.NoError(b.t, err)
	cmd := exec.Command(self, "-namespace", "test", "-id", b.id, "-address", b.bundle, "start")
	cmd.Args[0] = shim.Name
	cmd.Dir = b.bundle
	if b.unusual {
		args := append([]string{self, cmd.Args[0]}, cmd.Args[1:]...)
		cmd = exec.Command(self, args...)
		cmd.Env = append(os.Environ(), unusualEnv+"=1")
		cmd.Dir = b.bundle
	}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	require.NoError(b.t, cmd.Run(), stderr.String())
	var params struct{ Address, Protocol string }
	require.NoError(b.t, json.Unmarshal(out.Bytes(), &params), out.String())
	b.address = strings.TrimPrefix(params.Address, "unix://")
	conn, err := net.Dial("unix", b.address)
	require.NoError(b.t, err)
	client := ttrpc.NewClient(conn)
	b.task = taskapi.NewTTRPCTaskClient(client)
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _ = b.task.Kill(ctx, &taskapi.KillRequest{ID: b.id, Signal: uint32(unix.SIGKILL), All: true})
		_, _ = b.task.Delete(ctx, &taskapi.DeleteRequest{ID: b.id})
		_, _ = b.task.Shutdown(ctx, &taskapi.ShutdownRequest{ID: b.id})
		_ = client.Close()
	})
}

func (b *box) create() error {
	_, err := b.task.Create(b.t.Context(), &taskapi.CreateTaskRequest{
		ID: b.id, Bundle: b.bundle, Stdout: b.target.String(), Terminal: b.terminal(),
	})
	return err
}

func (b *box) terminal() bool {
	var spec specs.Spec
	data, err := os.ReadFile(filepath.Join(b.bundle, "config.json"))
	require.NoError(b.t, err)
	require.NoError(b.t, json.Unmarshal(data, &spec))
	return spec.Process.Terminal
}

func (b *box) mustStart() {
	require.NoError(b.t, b.create())
	_, err := b.task.Start(b.t.Context(), &taskapi.StartRequest{ID: b.id})
	require.NoError(b.t, err)
}

// wait returns the record, which has to agree with what containerd is told.
func (b *box) wait() container.Exit {
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	answer, err := b.task.Wait(ctx, &taskapi.WaitRequest{ID: b.id})
	require.NoError(b.t, err)
	exit, err := container.Dir(b.run).ReadExit(b.id)
	require.NoError(b.t, err)
	assert.EqualValues(b.t, exit.Code, answer.ExitStatus)
	return exit
}

func (b *box) output(stream string) string {
	var out strings.Builder
	require.NoError(b.t, logs.Read(b.t.Context(), b.target.Dir.Log(), logs.ReadOptions{Stream: stream}, func(l logs.Line) error {
		out.Write(l.Text)
		if !l.Partial {
			out.WriteByte('\n')
		}
		return nil
	}))
	return out.String()
}

// waitFor blocks until the container has written a line that contains text.
func (b *box) waitFor(text string) {
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	found := fmt.Errorf("found")
	err := logs.Read(ctx, b.target.Dir.Log(), logs.ReadOptions{Follow: true}, func(l logs.Line) error {
		if bytes.Contains(l.Text, []byte(text)) {
			return found
		}
		return nil
	})
	require.ErrorIs(b.t, err, found, "waiting for %q", text)
}

func command(args ...string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = args }
}

func script(text string) func(*specs.Spec) { return command("sh", "-c", text) }

func TestExitCodeAndStreams(t *testing.T) {
	b := newBox(t, script("echo out; echo err >&2; exit 7"))
	b.mustStart()
	exit := b.wait()
	assert.Equal(t, 7, exit.Code)
	assert.Zero(t, exit.Signal)
	assert.Equal(t, "out\n", b.output("stdout"))
	assert.Equal(t, "err\n", b.output("stderr"))
}

func TestReopenedStreams(t *testing.T) {
	b := newBox(t, func(s *specs.Spec) {
		script("echo one > /proc/self/fd/1; echo two > /proc/self/fd/2")(s)
		s.Process.User = specs.User{UID: 1000, GID: 1000}
	})
	b.mustStart()
	assert.Equal(t, 0, b.wait().Code)
	assert.Equal(t, "one\n", b.output("stdout"))
	assert.Equal(t, "two\n", b.output("stderr"))
}

func TestAMissingCommandLeavesNothing(t *testing.T) {
	b := newBox(t, command("nosuch"))
	err := b.create()
	require.ErrorContains(t, err, `"nosuch"`)
	require.ErrorContains(t, err, "not found")
	entries, err := os.ReadDir(filepath.Join(b.run, "libcontainer"))
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestASignalIsToldFromAReboot(t *testing.T) {
	b := newBox(t, script("trap : USR1; echo ready; while :; do sleep 1; done"))
	b.mustStart()
	b.waitFor("ready")
	_, err := b.task.Kill(t.Context(), &taskapi.KillRequest{ID: b.id, Signal: uint32(syscall.SIGKILL)})
	require.NoError(t, err)
	exit := b.wait()
	assert.Equal(t, 137, exit.Code)
	assert.Equal(t, int(syscall.SIGKILL), exit.Signal)
	assert.Empty(t, exit.Reboot)
}

func TestRebootInItsOwnNamespace(t *testing.T) {
	for how, want := range map[string]string{"reboot -f": "restart", "busybox poweroff -f": "halt"} {
		t.Run(want, func(t *testing.T) {
			b := newBox(t, func(s *specs.Spec) {
				script("echo going; " + how + "; sleep 60")(s)
				caps := []string{"CAP_SYS_BOOT"}
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
			})
			b.mustStart()
			exit := b.wait()
			assert.Equal(t, want, exit.Reboot)
			assert.Equal(t, "going\n", b.output("stdout"))
		})
	}
}

func TestWhatItDaemonisedGoesWithIt(t *testing.T) {
	b := newBox(t, func(s *specs.Spec) {
		// Without a PID namespace the kernel does not clean up by itself.
		s.Linux.Namespaces = s.Linux.Namespaces[:1]
		script("(sleep 1000 &) ; (sleep 1000 &) ; echo done")(s)
	})
	b.mustStart()
	exit := b.wait()
	assert.Equal(t, 0, exit.Code)
	assert.Equal(t, 2, exit.Killed)
	pids, err := b.task.Pids(t.Context(), &taskapi.PidsRequest{ID: b.id})
	require.NoError(t, err)
	assert.Empty(t, pids.Processes)
}

func TestStdin(t *testing.T) {
	b := newBox(t, command("cat"))
	b.target.Stdin = true
	require.NoError(t, unix.Mkfifo(b.target.Dir.Stdin(), 0o600))
	b.mustStart()
	fifo, err := os.OpenFile(b.target.Dir.Stdin(), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fifo.WriteString("first\nsecond")
	require.NoError(t, err)
	require.NoError(t, fifo.Close())
	_, err = b.task.CloseIO(t.Context(), &taskapi.CloseIORequest{ID: b.id, Stdin: true})
	require.NoError(t, err)
	assert.Equal(t, 0, b.wait().Code)
	assert.Equal(t, "first\nsecond", b.output("stdout"))
}

func TestTerminal(t *testing.T) {
	b := newBox(t, func(s *specs.Spec) {
		script("stty size; echo err >&2")(s)
		s.Process.Terminal = true
		s.Process.ConsoleSize = &specs.Box{Width: 77, Height: 33}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
	})
	b.mustStart()
	assert.Equal(t, 0, b.wait().Code)
	assert.Equal(t, "33 77\r\nerr\r\n", b.output("stdout"))
}

func TestDeviceNodes(t *testing.T) {
	mode, owner, group := os.FileMode(0o640), uint32(12), uint32(34)
	device := func(path, kind string, major, minor int64) specs.LinuxDevice {
		return specs.LinuxDevice{Path: path, Type: kind, Major: major, Minor: minor, FileMode: &mode, UID: &owner, GID: &group}
	}
	// Where something of the node's may be mounted below /dev, libcontainer makes them.
	for name, below := range map[string]string{"by the shim": "/dev/else", "by libcontainer": "/dev/sub"} {
		t.Run(name, func(t *testing.T) {
			bound := filepath.Join(t.TempDir(), "bound")
			require.NoError(t, os.WriteFile(bound, []byte("it is\n"), 0o600))
			b := newBox(t, func(s *specs.Spec) {
				script("cd /dev; busybox stat -c '%n %F %a %u:%g %t:%T' one queue sub/dir/two null zero random; cat bound; busybox stat -c '%a' sub/dir; busybox readlink ptmx")(s)
				s.Mounts = append(s.Mounts,
					specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
					specs.Mount{Destination: "/dev/bound", Type: "bind", Source: bound, Options: []string{"bind"}},
					specs.Mount{Destination: below, Type: "tmpfs", Source: "tmpfs"})
				s.Linux.Devices = []specs.LinuxDevice{
					device("/dev/one", "c", 1, 3), device("/dev/queue", "p", 0, 0),
					device("/dev/sub/dir/two", "b", 7, 9), device("/dev/bound", "c", 1, 5),
				}
			})
			b.mustStart()
			assert.Equal(t, 0, b.wait().Code)
			assert.Equal(t, `one character special file 640 12:34 1:3
queue fifo 640 12:34 0:0
sub/dir/two block special file 640 12:34 7:9
null character special file 666 0:0 1:3
zero character special file 666 0:0 1:5
random character special file 666 0:0 1:8
it is
755
pts/ptmx
`, b.output("stdout"))
			assert.Empty(t, b.output("stderr"))
		})
	}
}

func TestDeleteCleansUpAfterADeadShim(t *testing.T) {
	b := newBox(t, script("echo ready; sleep 1000"))
	b.mustStart()
	b.waitFor("ready")
	connected, err := b.task.Connect(t.Context(), &taskapi.ConnectRequest{ID: b.id})
	require.NoError(t, err)
	require.NoError(t, unix.Kill(int(connected.ShimPid), unix.SIGKILL))

	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-namespace", "test", "-id", b.id, "-bundle", b.bundle, "delete")
	cmd.Args[0] = shim.Name
	cmd.Dir = b.bundle
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	_, err = container.Dir(b.run).ReadExit(b.id)
	require.ErrorIs(t, err, container.ErrLost)
	// Gone, or dead and waiting for the node's init to bury it.
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", connected.TaskPid)); err == nil {
		assert.Contains(t, string(data), ") Z ")
	}
}

func TestTarget(t *testing.T) {
	for _, target := range []shim.Target{
		{Dir: "/run/careen/runs/a"}, {Dir: "/a b/ü?&", LogLimit: 12, Stdin: true},
	} {
		got, err := shim.ParseTarget(target.String())
		require.NoError(t, err)
		assert.Equal(t, target, got)
	}
	for _, bad := range []string{"", "/x", "file:///x", "careen://host/x", "careen:x", "careen:///x?log_limit=-1", "careen:///x?log_limit=1e9", "careen://%"} {
		_, err := shim.ParseTarget(bad)
		assert.Error(t, err, bad)
	}
}

func TestTheKernelsOOMKillIsOnRecord(t *testing.T) {
	b := newBox(t, func(s *specs.Spec) {
		script("busybox dd if=/dev/zero of=/dev/null bs=200M count=1")(s)
		limit := int64(32 << 20)
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	})
	b.mustStart()
	exit := b.wait()
	assert.Equal(t, 137, exit.Code)
	assert.True(t, exit.OOMKilled)
}

func TestTheStepDiesBeforeItsShim(t *testing.T) {
	b := newBox(t, command("cat", "/proc/self/oom_score_adj"))
	b.mustStart()
	b.wait()
	assert.Equal(t, "0\n", b.output("stdout"))
}

func TestALimitThatCannotBeRaisedIsLowered(t *testing.T) {
	var have unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &have))
	b := newBox(t, func(s *specs.Spec) {
		script("ulimit -Hn")(s)
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: have.Max + 1000, Soft: have.Max + 1000}}
	})
	b.mustStart()
	assert.Equal(t, 0, b.wait().Code)
	assert.Contains(t, []string{fmt.Sprintf("%d\n", have.Max), fmt.Sprintf("%d\n", have.Max+1000)}, b.output("stdout"))
}
