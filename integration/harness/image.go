package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/registry"
)

// applets are the names under which busybox is in [Busybox].
var applets = []string{
	"sh", "echo", "cat", "sleep", "ls", "true", "false", "id", "env", "pwd", "touch", "kill", "mount", "dd", "tail", "head",
	"setsid", "reboot", "hostname", "printf", "seq", "stty", "test", "mkdir", "rm", "ps", "grep", "tr", "usleep", "yes", "readlink", "od",
}

// shell makes the layer once for all tests of a package.
var shell = sync.OnceValues(func() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

var shellLayer struct {
	sync.Once
	layer registry.Layer
}

// Busybox makes an image of busybox with a user "worker" (1234:2345), and further
// layers over it, each of the given entries.
func Busybox(t testing.TB, layers ...[]registry.Entry) *registry.Image {
	t.Helper()
	all := []registry.Layer{busyboxLayer(t)}
	for _, entries := range layers {
		all = append(all, registry.NewLayer(t, registry.Tar(t, entries...), registry.Gzip))
	}
	return registry.NewImage(t, all)
}

func busyboxLayer(t testing.TB) registry.Layer {
	t.Helper()
	program, err := shell()
	require.NoError(t, err, "busybox (package busybox-static) is not installed")
	shellLayer.Do(func() {
		entries := []registry.Entry{
			registry.Dir("bin"), registry.Dir("tmp"), registry.Dir("etc"), Executable("bin/busybox", program),
			registry.File("etc/passwd", "root:x:0:0:root:/:/bin/sh\nworker:x:1234:2345::/tmp:/bin/sh\n"),
			registry.File("etc/group", "root:x:0:\nworker:x:2345:\n"),
			// Exists and cannot be executed: exit code 126.
			registry.File("bin/text", "no program\n"),
		}
		for _, applet := range applets {
			entries = append(entries, registry.Symlink("bin/"+applet, "busybox"))
		}
		shellLayer.layer = registry.NewLayer(t, registry.Tar(t, entries...), registry.Gzip)
	})
	return shellLayer.layer
}

// Executable is a regular file, mode 0755.
func Executable(name string, body []byte) registry.Entry {
	e := registry.File(name, string(body))
	e.Mode = 0o755
	return e
}

// Probe makes an image with nothing in it but one static Go program: see
// integration/harness/probe.
func Probe(t testing.TB) *registry.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file,
		"github.com/careen-project/careen/integration/harness/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, strings.TrimSpace(string(out)))
	program, err := os.ReadFile(file)
	require.NoError(t, err)
	layer := registry.NewLayer(t, registry.Tar(t, Executable("probe", program)), registry.Zstd)
	return registry.NewImage(t, []registry.Layer{layer}, registry.WithConfig(func(c *ocispec.Image) {
		c.Config.Entrypoint, c.Config.Cmd = []string{"/probe"}, []string{"report"}
		c.Config.Env = []string{"FROM_IMAGE=yes"}
		c.Config.WorkingDir = "/work"
	}))
}
