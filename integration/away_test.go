package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/harness"
)

// TestPodmanOutlivesTheAgent: what stands in for podman must not end before its
// container, or Ironic's agent takes a step that goes on for one that failed.
func TestPodmanOutlivesTheAgent(t *testing.T) {
	for name, end := range map[string]func(*harness.Agent){
		"killed":      (*harness.Agent).Kill,
		"told to end": func(a *harness.Agent) { a.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			agent, image := node(t)
			dir := t.TempDir()
			line := "i=0; while ! test -e /sync/go; do i=$((i+1)); echo line $i; echo $i > /sync/count; usleep 20000; done; exit 7"
			cmd := agent.CommandAs(within(t, time.Minute), "podman", "run", "--rm", "-v", dir+":/sync", image, "sh", "-c", line)
			result := make(chan harness.Result, 1)
			go func() { result <- harness.RunCommand(t, cmd) }()
			appears(t, filepath.Join(dir, "count"))
			for range 2 {
				end(agent)
				count := readCount(t, dir)
				require.Eventually(t, func() bool { return readCount(t, dir) > count+3 }, 10*time.Second, 5*time.Millisecond)
				agent.Launch()
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
			got := <-result
			assert.Equal(t, 7, got.Code, "%s", got)
			var want []string
			for i := range readCount(t, dir) {
				want = append(want, "line "+strconv.Itoa(i+1))
			}
			assert.Equal(t, want, strings.Split(strings.TrimSpace(got.Stdout), "\n"), "each line once, in order")
			assert.Empty(t, got.Stderr)
		})
	}
}
