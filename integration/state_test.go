package integration

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/harness"
)

// smallDisk mounts a tmpfs for a state directory.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	harness.NeedRoot(t)
	dir := t.TempDir()
	require.NoError(t, unix.Mount("state", dir, "tmpfs", 0, options))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// TestStateDirectoryFull: what cannot be put on record does not start; what runs goes
// on, and its end is told, and written once there is room.
func TestStateDirectoryFull(t *testing.T) {
	state, dir := smallDisk(t, "size=256k"), t.TempDir()
	agent, image := node(t, harness.WithFlags("--state", state))
	before := shell(image, "echo up; while ! test -e /sync/go; do usleep 10000; done; exit 6", "-v", dir+":/sync")
	before.ID = "before"
	submit(t, agent, before)
	said(t, agent, "before", "up")

	ballast := filepath.Join(state, "ballast")
	file, err := os.Create(ballast)
	require.NoError(t, err)
	for size := 64 << 10; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	require.NoError(t, file.Close())
	// The journal's last page may have room for a few more, which wait for their turn.
	var refused error
	for i := 0; i < 16 && refused == nil; i++ {
		_, _, refused = agent.Client.Submit(within(t, 10*time.Second), shell(image, "echo "+strings.Repeat("x", i)))
	}
	require.Equal(t, fault.Space, fault.CodeOf(refused), "%v", refused)
	health, _ := agent.Client.Health(within(t, 10*time.Second))
	assert.False(t, health.Ready)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	assert.Equal(t, 6, *ended(t, agent, "before").Outcome.ExitCode)
	require.NoError(t, os.Remove(ballast))
	assert.Equal(t, api.Succeeded, ended(t, agent, submit(t, agent, shell(image, "true"))).State)
	health, err = agent.Client.Health(within(t, 10*time.Second))
	require.NoError(t, err)
	assert.True(t, health.Ready)
	agent.Kill()
	agent.Launch()
	assert.Equal(t, 6, *ended(t, agent, "before").Outcome.ExitCode, "it was written later")
}

// TestStateDirectoryReadOnly: an operator who asked for records that last does not get
// an agent without them.
func TestStateDirectoryReadOnly(t *testing.T) {
	state := smallDisk(t, "ro")
	agent, _ := node(t)
	agent.Kill()
	said := refusal(t, agent, state)
	assert.Contains(t, said, "read-only file system")
	assert.Contains(t, said, "Check the directory given with --state")
}

// TestJournalOfANewerVersion is refused, and left as it is.
func TestJournalOfANewerVersion(t *testing.T) {
	state := t.TempDir()
	agent, _ := node(t)
	agent.Kill()
	require.NoError(t, os.Mkdir(filepath.Join(state, "journal"), 0o700))
	path, body := filepath.Join(state, "journal", "journal.jsonl"), `{"v":99}`
	line := fmt.Sprintf("%08x %s\n", crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)), body)
	require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
	said := refusal(t, agent, state)
	assert.Contains(t, said, "it has format 99")
	assert.Contains(t, said, "Run the careen that wrote it")
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, line, string(now))
}

// refusal starts the agent with a state directory and returns why it does not run.
func refusal(t *testing.T, agent *harness.Agent, state string) string {
	t.Helper()
	cmd := agent.Command(within(t, time.Minute), "agent", "--root", agent.Root, "--run-dir", agent.RunDir,
		"--socket", agent.Socket, "--state", state)
	got := harness.RunCommand(t, cmd)
	assert.Positive(t, got.Code, "%s", got)
	return got.Stderr
}

// TestTornJournal: a power cut in the middle of a record costs that record only.
func TestTornJournal(t *testing.T) {
	agent, image := node(t, harness.WithFlags("--state", t.TempDir()))
	req := shell(image, "exit 3")
	req.ID = "whole"
	submit(t, agent, req)
	ended(t, agent, "whole")
	require.NoError(t, agent.Client.Delete(within(t, 10*time.Second), submitAndWait(t, agent, shell(image, "true"))))
	agent.Kill()
	journal, err := os.OpenFile(filepath.Join(agent.State(), "journal", "journal.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = journal.WriteString(`0badc0de {"n":999,"k":"torn","d":{"run":{"id":"to`)
	require.NoError(t, err)
	require.NoError(t, journal.Close())
	agent.Launch()
	assert.Equal(t, 3, *ended(t, agent, "whole").Outcome.ExitCode)
	runs, err := agent.Client.Runs(within(t, 10*time.Second))
	require.NoError(t, err)
	assert.Len(t, runs, 1)
	assert.Equal(t, api.Succeeded, ended(t, agent, submit(t, agent, shell(image, "true"))).State)
}

func submitAndWait(t *testing.T, agent *harness.Agent, req api.RunRequest) string {
	t.Helper()
	id := submit(t, agent, req)
	ended(t, agent, id)
	return id
}
