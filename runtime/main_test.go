package runtime_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	_ "github.com/careen-project/careen/runtime/reexec"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/runtime"
	"github.com/careen-project/careen/runtime/container/containertest"
	"github.com/careen-project/careen/runtime/shim"
)

// The test binary is the shim, as careen is.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == shim.Name {
		os.Exit(shim.Main(os.Args[1:]))
	}
	// Every containerd that starts leaves the goroutines of its event exchanges: they have
	// no Close.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/docker/go-events.(*Broadcaster).run"))
}

// rig is an engine on a store of its own, and an image of busybox.
type rig struct {
	t      *testing.T
	root   string
	image  string
	engine *runtime.Engine
}

// openMu: one embedded containerd at a time may start in a process.
var openMu sync.Mutex

func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: containers need mounts and cgroups")
	}
	root, err := os.MkdirTemp("/run", "ce-")
	require.NoError(t, err)
	require.NoError(t, unix.Mount("careen-test", root, "tmpfs", 0, "size=512m"))
	r := &rig{t: t, root: root}
	t.Cleanup(func() {
		require.NoError(t, r.engine.Close())
		assert.Eventually(t, func() bool { return len(r.shims()) == 0 }, time.Minute, 10*time.Millisecond, "shims are left")
		require.Eventually(t, func() bool {
			// containerd's check for fsverity leaves a file open until it is collected.
			goruntime.GC()
			return unix.Unmount(root, 0) == nil
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, os.Remove(root))
	})
	for _, dir := range []string{"root", "state"} {
		require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o700))
	}
	r.open()
	r.image, _ = registry.Start(t).Push(t, "busybox:1", harness.Busybox(t))
	return r
}

func (r *rig) open() *runtime.Engine {
	r.t.Helper()
	self, err := os.Executable()
	require.NoError(r.t, err)
	openMu.Lock()
	defer openMu.Unlock()
	r.engine, err = runtime.Open(context.WithoutCancel(r.t.Context()), runtime.Config{Root: filepath.Join(r.root, "root"),
		State: filepath.Join(r.root, "state"), Binary: self, StoreInMemory: true})
	require.NoError(r.t, err)
	return r.engine
}

// shims lists the processes of this rig's shims.
func (r *rig) shims() (pids []int) {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(r.t, err)
	for _, file := range found {
		words, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(words), shim.Name) || !strings.Contains(string(words), r.root+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		require.NoError(r.t, err)
		pids = append(pids, pid)
	}
	return pids
}

// run is a container of the rig's image.
func (r *rig) run(options string, command ...string) *oci.Run {
	r.t.Helper()
	words := append(strings.Fields(options), "--rm", "--net=host", "--tls-verify=false", r.image)
	run, err := oci.ParseRun(append(words, command...), oci.Caller{Host: rootfs.Host()})
	require.NoError(r.t, err)
	return run
}

func TestTheEnginePassesTheSuite(t *testing.T) {
	containertest.Run(t, func(t *testing.T) containertest.Subject {
		r := newRig(t)
		return containertest.Subject{
			Engine: r.engine,
			Reopen: func(t *testing.T) containertest.Engine {
				require.NoError(t, r.engine.Close())
				return r.open()
			},
			Exiting: func(code int) *oci.Run { return r.run("", "sh", "-c", fmt.Sprintf("exit %d", code)) },
			Endless: func() *oci.Run { return r.run("", "sleep", "100000") },
			Echo:    func() *oci.Run { return r.run("-i", "cat") },
		}
	})
}
