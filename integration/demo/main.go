// Command demo serves a throw-away registry on loopback with small images made
// from busybox, prints its address, and ends when its standard input does.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/careen-project/careen/integration/registry"
)

// step is what the demo's image does: a disk check that reports as steps do.
const step = `#!/bin/sh
set -eu
echo "inspecting $(uname -n), kernel $(uname -r)"
for i in 1 2 3; do echo "checking region $i of 3"; sleep 0.3; done
echo "temperature is near its limit" >&2
echo '{"regions": 3, "bad_blocks": 0}' > /run/careen/result.json
echo done
`

func main() {
	s := &registry.Stage{}
	defer s.End()
	path, err := exec.LookPath("busybox")
	if err != nil {
		s.Fatalf("busybox is not installed: %v", err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		s.Fatalf("%v", err)
	}
	reg := registry.Start(s)
	shell := []registry.Entry{registry.Dir("bin"), registry.Dir("tmp"), executable("bin/busybox", busybox)}
	for _, applet := range []string{"sh", "echo", "cat", "sleep", "uname", "ls", "true"} {
		shell = append(shell, registry.Symlink("bin/"+applet, "busybox"))
	}
	tool := []registry.Entry{executable("bin/check-disk", []byte(step))}
	reg.Push(s, "demo/disk-check:1.0", registry.NewImage(s, []registry.Layer{
		registry.NewLayer(s, registry.Tar(s, shell...), registry.Gzip),
		registry.NewLayer(s, registry.Tar(s, tool...), registry.Zstd),
	}, registry.WithConfig(func(c *ocispec.Image) { c.Config.Cmd = []string{"/bin/check-disk"} })))
	fmt.Println(reg.Host)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func executable(name string, body []byte) registry.Entry {
	e := registry.File(name, string(body))
	e.Mode = 0o755
	return e
}
