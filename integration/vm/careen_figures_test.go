package vm_test

import (
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// idleLimit is what an agent may hold of a ramdisk's memory while nothing runs, in
// KiB.
const idleLimit = 32 << 10

// testFigures measures what an agent and a step cost in a ramdisk. Times are those
// of an emulated processor and are logged only.
func testFigures(g *careenGuest) {
	for range 3 {
		began := time.Now()
		out, code := g.step("", "true")
		require.Zero(g.t, code, out)
		g.t.Logf("warm run: %s in all, %v", time.Since(began).Round(time.Millisecond), g.last().Outcome.Phases)
	}
	status := g.MustRun("cat /proc/" + g.agentPid() + "/status")
	for _, name := range []string{"VmRSS", "RssAnon", "RssFile", "VmHWM", "Threads"} {
		g.t.Logf("agent: %s %s", name, field(status, name))
	}
	anon, err := strconv.Atoi(strings.Fields(field(status, "RssAnon"))[0])
	require.NoError(g.t, err)
	require.Less(g.t, anon, idleLimit, "KiB of the agent's own memory, idle")
	// The store is a mount of careen's own namespace.
	store := g.MustRun("nsenter --mount=/run/careen/ns/mnt df -k /var/lib/careen | tail -n 1")
	blobs := g.MustRun("nsenter --mount=/run/careen/ns/mnt du -sk /var/lib/careen/containerd/io.containerd.content.v1.content | cut -f 1")
	layers := g.MustRun("nsenter --mount=/run/careen/ns/mnt du -sk /var/lib/careen/containerd/io.containerd.snapshotter.v1.overlayfs | cut -f 1")
	g.t.Logf("store: %s; blobs %s KiB, layers %s KiB", strings.Join(strings.Fields(store), " "), blobs, layers)
	kept, err := strconv.Atoi(blobs)
	require.NoError(g.t, err)
	require.Less(g.t, kept, 200, "KiB of blobs: layers are not kept compressed")
}

// field returns one line of /proc/PID/status.
func field(status, name string) string {
	_, rest, _ := strings.Cut("\n"+status, "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
