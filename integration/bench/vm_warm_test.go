package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/integration/vm"
)

// warmRounds is how often each of the two runs, in turns.
const warmRounds = 5

// podmanConf is what podman needs in a ramdisk; the first line is what makes its
// containers insecure there.
const podmanConf = `[engine]
no_pivot_root = true
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
[containers]
log_driver = "k8s-file"
[network]
network_backend = "cni"
`

// TestWarmInRAMDisk compares, in a ramdisk, a whole run of an image that is there
// with podman's, the registry asked by both: part of "make bench-vm". The processor
// is emulated for both of them.
func TestWarmInRAMDisk(t *testing.T) {
	if os.Getenv("CAREEN_BENCH_VM") == "" {
		t.Skip("compares times in a guest, which is no test: run make bench-vm")
	}
	binary, err := filepath.Abs(os.Getenv("CAREEN_BINARY"))
	require.NoError(t, err)
	reg := registry.Start(t)
	image, _ := reg.Push(t, "busybox:1", harness.Busybox(t))
	image = strings.Replace(image, "127.0.0.1", "10.0.2.2", 1)
	g := vm.Start(t, vm.Config{Binary: binary, Memory: 2048, HostFiles: podmanFiles(t), Files: map[string][]byte{
		"/etc/containers/containers.conf": []byte(podmanConf),
		"/etc/containers/policy.json":     []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`),
		"/etc/containers/storage.conf":    []byte("[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers\"\ngraphroot = \"/var/lib/containers\"\n"),
		"/etc/hosts":                      []byte("127.0.0.1 localhost\n"),
		"/etc/resolv.conf":                []byte("nameserver 10.0.2.3\n"),
		"/etc/passwd":                     []byte("root:x:0:0:root:/:/bin/sh\n"),
		"/etc/group":                      []byte("root:x:0:\n"),
	}})
	run := func(script string) time.Duration {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		began := time.Now()
		out, code, err := g.RunContext(ctx, script)
		took := time.Since(began)
		require.NoError(t, err, script)
		require.Zero(t, code, "%s: %s", script, out)
		return took
	}
	run("env -i PATH= /bin/busybox setsid /usr/bin/careen agent >/agent.log 2>&1 </dev/null &")
	g.Await("careen ps")
	run("mkdir -p /var/lib/containers /var/tmp && mount -t tmpfs tmpfs /var/lib/containers && mkdir -m 1777 -p /tmp")

	careen := "careen run --rm --net=host --pull=always --tls-verify=false " + image + " true"
	podman := "podman pull --quiet --tls-verify=false " + image + " && podman run --rm --net=host " + image + " true"
	run(careen)
	run(podman)
	l := line{What: "warm run in a ramdisk, tag asked for at the registry", Unit: "s", With: "podman pull && run", Limit: 0.15}
	for range warmRounds {
		l.Careen = append(l.Careen, run(careen).Seconds())
		l.Other = append(l.Other, run(podman).Seconds())
	}
	table := &table{part: "vm"}
	table.add(l)
	table.markdown(os.Stdout)
}

// podmanFiles are podman and what it is linked with or starts.
func podmanFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range []string{"podman", "conmon", "runc"} {
		path, err := exec.LookPath(name)
		require.NoError(t, err)
		files["/usr/bin/"+name] = path
		out, err := exec.CommandContext(t.Context(), "ldd", path).Output()
		require.NoError(t, err)
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				files[word] = word
			}
		}
	}
	for _, path := range []string{"/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json"} {
		if _, err := os.Stat(path); err == nil {
			files[path] = path
		}
	}
	return files
}
