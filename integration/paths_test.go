package integration

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestRelativePaths: an agent with relative directories runs containers, and leaves no
// mount in them.
func TestRelativePaths(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	cmd := exec.CommandContext(within(t, time.Minute), "unshare", "--mount", "sh", "-c", `
		mount -t tmpfs t /run; mount -t tmpfs t /var/lib; cd /run
		"$1" agent --run-dir here --root store --log-level error & agent=$!
		until "$1" --socket here/careen.sock ps >/dev/null 2>&1; do kill -0 $agent || exit 9; sleep 0.1; done
		"$1" --socket here/careen.sock run --rm --tls-verify=false "$2" echo fine; code=$?
		kill $agent; wait $agent
		grep -c here/runs /proc/self/mountinfo
		exit $code`, "sh", harness.Binary(t), image)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	got := harness.RunCommand(t, cmd)
	assert.Zero(t, got.Code, "%s", got)
	assert.Equal(t, "fine\n0\n", got.Stdout, "%s", got)
}
