package images

import (
	"os"
	"os/exec"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/careen-project/careen/integration/registry"
)

// scripts are what the images do, by name.
var scripts = map[string]string{
	"ok": `echo "flashing $(uname -n)"
echo '{"firmware": "2.1"}' >/run/careen/result.json
`,
	"fail": `echo "cannot find controller" >&2
exit 3
`,
	// Not forever, should a test leave it behind.
	"wait": `echo half-way
n=0
until [ -e /gate/open ]; do n=$((n+1)); [ $n -lt 3000 ] || exit 1; usleep 100000; done
echo the rest
`,
}

// Push makes the images from the busybox of this machine and stores them in reg.
// The test fails where there is none.
func Push(t testing.TB, reg *registry.Registry) {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("busybox is not installed: %v", err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v", err)
	}
	shell := []registry.Entry{registry.Dir("bin"), registry.Dir("tmp"), executable("bin/busybox", string(busybox))}
	for _, applet := range []string{"sh", "uname", "usleep"} {
		shell = append(shell, registry.Symlink("bin/"+applet, "busybox"))
	}
	base := registry.NewLayer(t, registry.Tar(t, shell...), registry.Gzip)
	for name, script := range scripts {
		tool := registry.NewLayer(t, registry.Tar(t, executable("bin/tool", "#!/bin/sh\n"+script)), registry.Gzip)
		reg.Push(t, "ipa/"+name+":1", registry.NewImage(t, []registry.Layer{base, tool},
			registry.WithConfig(func(c *ocispec.Image) { c.Config.Cmd = []string{"/bin/tool"} })))
	}
}

func executable(name, body string) registry.Entry {
	e := registry.File(name, body)
	e.Mode = 0o755
	return e
}
