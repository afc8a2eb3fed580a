package vm_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
)

// testAllowedReboot: an agent that may, reboots the node for a container that asks
// for it, and not before that one's outcome and output are stored. What waited is
// told why it did not begin. Both are also pushed before that. It follows testReboot,
// whose disk it uses.
func testAllowedReboot(g *careenGuest, formatted bool) {
	if !formatted {
		g.t.Skip("needs mke2fs of Debian's e2fsprogs")
	}
	g.endAgent("TERM")
	var pushed sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if plain, err := gzip.NewReader(r.Body); err == nil {
			bundle, _ := io.ReadAll(plain)
			pushed.Store(r.Method+" "+r.URL.Path, string(bundle))
		}
	}))
	defer server.Close()
	g.MustRun(`printf '[push]\nurl = "` + inGuest(server.URL) + `/{run}.tar.gz"\n' > /push.toml`)
	g.startAgent("--state /persistent/careen --allow-reboot --config /push.toml")
	before := g.MustRun("cat /proc/sys/kernel/random/boot_id")
	g.MustRun("mkdir -p /ctl")
	g.background("update", "-v /ctl:/ctl", `echo flashed; until test -e /ctl/go; do usleep 20000; done; echo '{"reboot": true, "reason": "new firmware"}' > /run/careen/result.json`)
	g.MustRun("setsid careen run --name waits " + g.plain + " true >/dev/null 2>&1 </dev/null &")
	g.Await("careen ps --all | grep queued")
	g.Leave("touch /ctl/go")
	g.AwaitBoot()

	g.MustRun("mkdir -p /dev && mount -t devtmpfs devtmpfs /dev; mkdir -p /persistent; mount -t ext4 /dev/vda /persistent")
	g.startAgent("--state /persistent/careen --allow-reboot")
	require.NotEqual(g.t, before, g.MustRun("cat /proc/sys/kernel/random/boot_id"))
	found := map[string]api.Run{}
	for _, run := range g.all() {
		found[run.Name] = run
	}
	update, waited := found["update"], found["waits"]
	require.Equal(g.t, api.Succeeded, update.State, "%+v", update.Outcome)
	require.True(g.t, update.Outcome.RebootRequested)
	require.Contains(g.t, update.Outcome.RebootReason, "new firmware")
	require.NotNil(g.t, waited.Outcome, "%+v", waited)
	require.Equal(g.t, "reboot_pending", waited.Outcome.Code, "%+v", waited.Outcome)
	for id, want := range map[string]string{update.ID: "stdout F flashed", waited.ID: `"code": "reboot_pending"`} {
		bundle, _ := pushed.Load("PUT /" + id + ".tar.gz") // the agent of now is not told to
		require.Contains(g.t, bundle, want)
	}
	out, code := g.careen("logs " + update.ID)
	require.Zero(g.t, code, out)
	require.Equal(g.t, "flashed", strings.TrimSpace(out))

	out, code = g.careen("run --rm --tls-verify=false " + g.plain + " echo once is enough")
	require.Zero(g.t, code, out)
	require.Contains(g.t, out, "once is enough")
}
