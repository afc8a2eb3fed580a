package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// careen pulls through an agent that runs: the whole command, to the image record.
func (b *bench) careenPull(n *node, image string) (usage, error) {
	if _, err := n.start(); err != nil {
		return usage{}, err
	}
	return n.careen("pull", "--quiet", "--tls-verify=false", b.ref(image))
}

// podmanArgs are podman's, with a store of its own. It puts what it downloads
// into TMPDIR first, which on a node is memory too.
func podmanArgs(n *node, args ...string) *exec.Cmd {
	_ = os.MkdirAll(n.dir+"/tmp", 0o700)
	cmd := exec.Command("podman", append([]string{"--root", n.dir + "/podman", "--runroot", n.dir + "/podman-run", "--storage-driver", "overlay",
		"--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "runc"}, args...)...)
	if n.group != nil {
		cmd = n.group.wrap(cmd)
	}
	cmd.Env = append(os.Environ(), "TMPDIR="+n.dir+"/tmp")
	return cmd
}

func (b *bench) podmanPull(n *node, image string) (usage, error) {
	return timed(podmanArgs(n, "pull", "--quiet", "--tls-verify=false", b.ref(image)))
}

// podmanRun runs what the image names. The limits are podman's defaults where a
// process may not raise its own.
func (b *bench) podmanRun(n *node, image string) (usage, error) {
	return timed(podmanArgs(n, "run", "--rm", "--privileged", "--network=host", "--ulimit", "nofile=20000:20000",
		"--ulimit", "nproc=20000:20000", "--pull=never", b.ref(image)))
}

func (b *bench) careenRun(n *node, image, pull string) (usage, error) {
	return n.careen("run", "--rm", "--privileged", "--network=host", "--tls-verify=false", "--pull="+pull, b.ref(image))
}

// containerd pulls with containerd's own client and unpacker, as they come, in
// the same embedded daemon.
func (b *bench) containerd(n *node, image string) (usage, error) {
	return b.pullProcess(n, "containerd", nil, image)
}

// pullProcess runs one of this program's own pulls, which reports how long it
// took without the start of the process.
func (b *bench) pullProcess(n *node, kind string, args []string, images ...string) (usage, error) {
	args = append([]string{kind, "-root", n.dir}, args...)
	for _, image := range images {
		args = append(args, b.ref(image))
	}
	cmd := exec.Command(b.self, args...)
	if n.group != nil {
		cmd = n.group.wrap(cmd)
	}
	out, err := output(cmd)
	var u usage
	if err == nil {
		err = json.Unmarshal(out, &u)
	}
	return u, err
}

// floor unpacks with the fastest programs that Debian has.
func (b *bench) floor(n *node, image string) (usage, error) {
	layers, err := layersOf(filepath.Join(b.images, image))
	if err != nil {
		return usage{}, err
	}
	var script strings.Builder
	for i, l := range layers {
		fmt.Fprintf(&script, "mkdir %s/%d; igzip -dc <%s | tar -x -C %s/%d &\n", n.dir, i, l, n.dir, i)
	}
	script.WriteString("wait\n")
	return timed(exec.Command("/bin/sh", "-c", script.String()))
}

// bundle prepares what [bench.runcRun] runs: the spec of [bench.careenRun] without the
// files that a run generates, and a root with the image's program.
func (b *bench) bundle(n *node) (string, error) {
	dir := filepath.Join(n.dir, "bundle")
	root := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/true"), exitZero(runtime.GOARCH), 0o755); err != nil {
		return "", err
	}
	out, err := output(exec.Command(b.binary, "spec", "--rootfs", root, "--privileged", "--network=host", b.ref(small.Name), "/bin/true"))
	if err != nil {
		return "", err
	}
	var spec specs.Spec
	if err := json.Unmarshal(out, &spec); err != nil {
		return "", err
	}
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return m.Type == "bind" })
	spec.Linux.CgroupsPath = "/careen-bench/floor"
	if out, err = json.Marshal(spec); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "config.json"), out, 0o644)
}

// runcRun is the least that a run with the same isolation takes: no client, no agent,
// no registry, no layer, no record.
func (b *bench) runcRun(n *node, bundle string) (usage, error) {
	return timed(exec.Command("runc", "--root", n.dir+"/runc", "run", "--bundle", bundle, "floor"))
}

func (b *bench) ref(image string) string { return b.addr + "/" + image + ":latest" }
