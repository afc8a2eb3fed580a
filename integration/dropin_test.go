package integration

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestPodmanDropInWithoutAgent: as Ironic's agent calls podman, a version, a pull and
// a run, where nobody has started an agent; each command is one for as long as it
// takes, and what one has pulled the next has.
func TestPodmanDropInWithoutAgent(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	// /run and /var/lib are empty and go with the shell.
	cmd := exec.CommandContext(within(t, 2*time.Minute), "unshare", "--mount", "sh", "-c", `
		set -e; mount -t tmpfs t /run; mount -t tmpfs t /var/lib; ln -s "$1" /run/podman
		/run/podman --version
		/run/podman pull --tls-verify=false "$2"
		test ! -e /run/careen/careen.sock
		exec /run/podman --log-level=debug run "--rm --network=host -e WORD=said" --pull=never "$2" sh -c 'echo $WORD; exit 3'
		`, "sh", harness.Binary(t), "docker://"+image)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	got := harness.RunCommand(t, cmd)
	assert.Equal(t, 3, got.Code, "%s", got)
	assert.Regexp(t, regexp.MustCompile(`\Apodman version 4\.3\.1\n[0-9a-f]{64}\nsaid\n\z`), got.Stdout)
}
