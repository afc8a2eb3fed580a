package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/vm"
)

// ramdiskMemory is the guest's, in MiB.
const ramdiskMemory = 2560

// TestInRAMDisk measures in a guest that has nothing but memory: "make bench-vm".
// CAREEN_BENCH_VM is the size of the image in MiB, unpacked; 526 is that of the
// other figures. The processor is emulated, so only what is not time counts.
func TestInRAMDisk(t *testing.T) {
	size, err := strconv.ParseInt(os.Getenv("CAREEN_BENCH_VM"), 10, 64)
	if err != nil {
		t.Skip("boots a large guest for minutes and is no test: run make bench-vm")
	}
	binary, err := filepath.Abs(os.Getenv("CAREEN_BINARY"))
	require.NoError(t, err)
	images := filepath.Join("/var/tmp/careen-bench", generation)
	s := tool
	if s.Bytes != size<<20 {
		s.Name, s.Bytes, s.Files = fmt.Sprintf("tool%d", size), size<<20, int(size*12000/526)
	}
	require.NoError(t, os.MkdirAll(images, 0o700))
	require.NoError(t, generate(filepath.Join(images, s.Name), s))
	ref := strings.Replace(serveForGuest(t, images), "127.0.0.1", "10.0.2.2", 1) + "/" + s.Name + ":latest"

	g := vm.Start(t, vm.Config{Binary: binary, Memory: ramdiskMemory})
	run := func(script string) string {
		t.Helper()
		// An emulated processor on a busy machine needs minutes for a pull.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		out, code, err := g.RunContext(ctx, script)
		require.NoError(t, err, script)
		require.Zero(t, code, "%s: %s", script, out)
		return strings.TrimSpace(string(out))
	}
	mib := func(script string) float64 {
		t.Helper()
		v, err := strconv.ParseFloat(run(script), 64)
		require.NoError(t, err)
		return v / 1024
	}
	const available = `sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo`
	run("mkdir -p /proc; mount -t proc proc /proc; echo 3 >/proc/sys/vm/drop_caches")
	before := mib(available)
	run("env -i PATH= /bin/busybox setsid /usr/bin/careen agent >/agent.log 2>&1 </dev/null &")
	g.Await("careen ps")
	agent := run(`for p in /proc/[0-9]*; do case "$(tr '\0' ' ' <$p/cmdline)" in *careen' agent '*) echo ${p#/proc/};; esac; done 2>/dev/null | head -n 1`)
	const store = "nsenter --mount=/run/careen/ns/mnt df -k /var/lib/careen | tail -n 1 | awk '{print $3}'"
	empty := mib(store)
	status := func(field string) float64 {
		t.Helper()
		return mib("sed -n 's/^" + field + ":[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/" + agent + "/status")
	}
	idle, idleAnon := status("VmRSS"), status("RssAnon")

	// The least that was available, looked at ten times a second.
	run(`(least=999999999; while [ ! -e /stop ]; do while read name value rest; do [ $name = MemAvailable: ] && break; done </proc/meminfo; ` +
		`[ $value -ge $least ] || { least=$value; echo $least >/least.new; mv /least.new /least; }; usleep 100000; done) >/dev/null 2>&1 </dev/null &`)
	began := time.Now()
	run("careen pull --quiet --tls-verify=false " + ref)
	pulled := time.Since(began)
	began = time.Now()
	run("careen run --rm --privileged --network=host --pull=never " + ref)
	ran := time.Since(began)
	run("touch /stop; sleep 2")
	least := mib("cat /least")
	after := mib(available)
	used := mib(store)
	blobs := mib("nsenter --mount=/run/careen/ns/mnt du -sk /var/lib/careen/containerd/io.containerd.content.v1.content | cut -f 1")

	unpacked := used - empty - blobs
	table := &table{part: "vm"}
	base := fmt.Sprintf("unpacked %.0f MiB", unpacked)
	table.add(line{What: "memory, peak over agent, pull and run", Unit: "MiB", Careen: []float64{before - least}, With: base, Limit: 1.08*unpacked + 48})
	table.add(line{What: "memory after, agent still there", Unit: "MiB", Careen: []float64{before - after}, With: base, Limit: 1.02*unpacked + 32})
	table.add(line{What: "store", Unit: "MiB", Careen: []float64{used}, With: base, Limit: 1.02 * unpacked})
	table.add(line{What: "blobs kept, manifest and configuration", Unit: "MiB", Careen: []float64{blobs}, Limit: 1})
	table.add(line{What: "agent before the pull, resident", Unit: "MiB", Careen: []float64{idle}, Limit: 32})
	table.add(line{What: "agent before the pull, anonymous", Unit: "MiB", Careen: []float64{idleAnon}})
	table.add(line{What: "agent after, resident", Unit: "MiB", Careen: []float64{status("VmRSS")}, Limit: 32})
	table.add(line{What: "agent after, anonymous", Unit: "MiB", Careen: []float64{status("RssAnon")}})
	table.add(line{What: "pull, processor emulated", Unit: "s", Careen: []float64{pulled.Seconds()}})
	table.add(line{What: "run, processor emulated", Unit: "s", Careen: []float64{ran.Seconds()}})
	fmt.Printf("\nin a ramdisk of %d MiB, image of %d MiB in %d layers\n\n", ramdiskMemory, s.Bytes>>20, s.Layers)
	table.markdown(os.Stdout)
	for _, l := range table.Lines {
		require.True(t, l.Met == nil || *l.Met, "%s is over its limit", l.What)
	}
}

// serveForGuest starts the registry process and returns its address.
func serveForGuest(t *testing.T, images string) string {
	t.Helper()
	// This binary is a test's: the registry is a process of the real program.
	program := filepath.Join(t.TempDir(), "bench")
	out, err := exec.Command("go", "build", "-tags", "seccomp netgo osusergo grpcnotrace runc_nocriu containers_image_openpgp", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	cmd := exec.Command(program, "serve", "-root", images)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}
