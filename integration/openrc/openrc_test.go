package openrc_test

import (
	"bytes"
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
)

// script is what happens in the root; each line that starts with a colon is looked at.
const script = `
until_ok() { n=0; until "$@" >/run/until 2>&1; do n=$((n+1)); [ $n -lt 600 ] || { cat /run/until; exit 1; }; sleep 0.1; done; }
agent() { pgrep -o -f '^/usr/bin/careen agent'; }
other() { now=$(agent) && [ "$now" != "$old" ]; }
at_work() { careen ps | grep -q running; }
none_at_work() { ! at_work; }

openrc sysinit && openrc boot && openrc default
echo ":booted $?"
until_ok careen ps
rc-service careen status
echo ":status $?"

mkdir /run/gate
careen run --rm --tls-verify=false -v /run/gate:/gate "$IMAGE" \
	sh -c 'echo at work; until [ -e /gate/open ]; do usleep 20000; done; echo done; exit 7' >/run/out 2>/run/err &
step=$!
until_ok at_work
old=$(agent)
kill -9 "$old"
until_ok other
until_ok careen ps
at_work && echo ":still at work"
: >/run/gate/open
wait $step
echo ":ended $? $(tr '\n' ' ' </run/out)"

rc-service careen stop
echo ":stopped $?"
agent || echo ":no agent"
rc-service careen start && until_ok careen ps && rc-service careen restart && until_ok careen ps
echo ":started $?"
careen run --rm --tls-verify=false "$IMAGE" echo :again
CAREEN_OPTS=; echo 'CAREEN_OPTS="--log-level debug"' >/etc/conf.d/careen
rc-service careen restart && until_ok careen ps
tr '\0' ' ' </proc/$(agent)/cmdline | sed 's/^/:/'
echo

careen run --rm --tls-verify=false "$IMAGE" sh -c 'trap "exit 9" TERM; while :; do usleep 20000; done' >/dev/null 2>&1 &
until_ok at_work
echo shutdown >/run/openrc/softlevel
rc-service careen stop
grep -o '"code":"node_shutdown"' /run/careen/state/audit.jsonl | sed 's/^/:/'
`

// TestServiceFile boots OpenRC with careen's service: it is started, comes back when
// it is killed, with its container at work all the while, and stops when told to.
func TestServiceFile(t *testing.T) {
	harness.NeedRoot(t)
	get := exec.CommandContext(t.Context(), "./get-openrc.sh")
	var stderr bytes.Buffer
	get.Stderr = &stderr
	tree, err := get.Output()
	if err != nil {
		t.Skipf("OpenRC is not to be had here: %v: %s", err, stderr.String())
	}
	reg := registry.Start(t)
	image, _ := reg.Push(t, "tools/busybox:1", harness.Busybox(t))
	service, err := filepath.Abs("../../rootfs/ramdisk/files/careen.openrc")
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts",
		"sh", "root.sh", strings.TrimSpace(string(tree)), t.TempDir(), harness.Binary(t), service)
	cmd.Env = append(os.Environ(), "IMAGE="+image)
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	var said []string
	for line := range strings.Lines(string(out)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), ":"); ok {
			said = append(said, strings.TrimSpace(text))
		}
	}
	require.NoError(t, err, "%s", out)
	require.Equal(t, []string{
		"booted 0", "status 0", "still at work", "ended 7 at work done", "stopped 0", "no agent", "started 0", "again",
		"/usr/bin/careen agent --log-level debug", `"code":"node_shutdown"`,
	}, said, "%s", out)
}
