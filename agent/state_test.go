package agent_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

// smallDisk mounts a tmpfs of a few pages for the state directory.
func smallDisk(t *testing.T, options string) string {
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system to fill up")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); errors.Is(err, unix.EPERM) {
		t.Skip("this root may not mount")
	} else {
		require.NoError(t, err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fill writes until there is no space, and returns what gives it back.
func fill(t *testing.T, dir string) (empty func()) {
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	require.NoError(t, err)
	for size := 64 << 10; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			size /= 2
		}
	}
	require.NoError(t, file.Close())
	return func() { require.NoError(t, os.Remove(path)) }
}

func TestFullStateDirectoryStartsNothingAndLosesNothing(t *testing.T) {
	for _, persistent := range []bool{true, false} {
		t.Run(fmt.Sprintf("persistent=%v", persistent), func(t *testing.T) {
			cfg := newConfig(t)
			cfg.StateDir, cfg.Persistent = smallDisk(t, "size=256k"), persistent
			rg := start(t, cfg)
			rg.submit(t, api.RunRequest{ID: "before", Image: "run=forever"})
			rg.waitFor(t, "before", api.Running)
			empty := fill(t, cfg.StateDir)

			// The journal's last page may have room for a few more.
			var err error
			id := ""
			for i := 0; i < 10 && err == nil; i++ {
				id = fmt.Sprintf("full%d", i)
				_, _, err = rg.Submit(context.Background(), &api.RunRequest{ID: id, Image: "run=0s"}, root)
			}
			require.Equal(t, fault.Space, fault.CodeOf(err), "%v", err)
			require.NotEmpty(t, fault.RemedyOf(err))
			_, err = rg.Run(id)
			require.Equal(t, fault.NotFound, fault.CodeOf(err), "what is not on record was not accepted")
			require.False(t, rg.Health().Ready)

			// A running container goes on, and its end is shown although it cannot be written yet.
			rg.runner.End("before", container.Exit{Code: 6})
			require.Equal(t, 6, *rg.end(t, "before").Outcome.ExitCode)
			empty()
			rg.submit(t, api.RunRequest{ID: "after", Image: "run=0s"})
			require.Equal(t, api.Succeeded, rg.end(t, "after").State)
			require.True(t, rg.Health().Ready)
			rg = rg.again(t, nil)
			require.Equal(t, 6, *rg.end(t, "before").Outcome.ExitCode, "it was written later")
			require.NoError(t, rg.Close())
		})
	}
}

func TestReadOnlyStateDirectory(t *testing.T) {
	cfg := newConfig(t)
	cfg.StateDir, cfg.Persistent = smallDisk(t, "ro"), true
	_, err := agent.New(cfg)
	require.Equal(t, fault.Node, fault.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "read-only")

	cfg.Persistent = false
	rg := start(t, cfg)
	h := rg.Health()
	require.True(t, h.Ready)
	require.Equal(t, "warning", h.Checks[0].Status)
	require.Contains(t, h.Checks[0].Detail, "a crash of the agent will lose its runs")
	rg.submit(t, api.RunRequest{ID: "a", Image: "out=still readable/run=0s"})
	require.Equal(t, api.Succeeded, rg.end(t, "a").State)
	require.Contains(t, rg.get(t, "/v1/runs/a/logs").Body.String(), "still readable")
	require.NoError(t, rg.Close())
}

func TestNewerJournalIsRefused(t *testing.T) {
	cfg := newConfig(t)
	dir := filepath.Join(cfg.StateDir, "journal")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	body := `{"v":99}`
	line := fmt.Sprintf("%08x %s\n", crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)), body)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(line), 0o600))
	for _, cfg.Persistent = range []bool{true, false} {
		_, err := agent.New(cfg)
		require.Equal(t, fault.BadConfig, fault.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "format 99")
	}
}

func TestTornJournalLosesOnlyItsLastRecord(t *testing.T) {
	rg := newRig(t)
	rg.submit(t, api.RunRequest{ID: "a", Image: "run=0s/exit=2"})
	rg.end(t, "a")
	require.NoError(t, rg.Close())
	path := filepath.Join(rg.cfg.StateDir, "journal", "journal.jsonl")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(data, `deadbeef {"n":99,"k":"a","d":{"ru`...), 0o600))
	rg = rg.again(t, nil)
	require.Equal(t, 2, *rg.end(t, "a").Outcome.ExitCode)
	require.NoError(t, rg.Close())
}

func TestTwoAgentsDoNotShareAJournal(t *testing.T) {
	rg := newRig(t)
	_, err := agent.New(rg.cfg)
	require.Equal(t, fault.Conflict, fault.CodeOf(err), "%v", err)
	require.NoError(t, rg.Close())
}

// TestDurationsDoNotFollowTheWallClock: a ramdisk's clock jumps by years when NTP
// arrives; here the two clocks have nothing to do with each other.
func TestDurationsDoNotFollowTheWallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := newConfig(t)
		began := time.Now()
		cfg.Clock = func() time.Duration { return time.Hour + time.Since(began)/10 }
		rg := start(t, cfg)
		rg.submit(t, api.RunRequest{ID: "a", Image: "pull=100s/run=forever", Timeout: "20s"})
		v := rg.end(t, "a")
		require.Equal(t, api.TimedOut, v.State)
		require.Equal(t, "20s", v.Outcome.Duration)
		require.Equal(t, "10s", v.Outcome.Phases["pulling"])
		require.NoError(t, rg.Close())
	})
}

func TestRetention(t *testing.T) {
	cfg := newConfig(t)
	cfg.KeepRuns, cfg.KeepIDs, cfg.KeepLogs = 6, 3, 2
	rg := start(t, cfg)
	for i := range 10 {
		id := fmt.Sprintf("r%d", i)
		rg.submit(t, api.RunRequest{ID: id, Image: "out=hello/run=0s/result={\"n\":" + fmt.Sprint(i) + "}"})
		rg.end(t, id)
	}
	require.NoError(t, rg.Drain(t.Context(), false)) // what follows an end is done
	var known []string
	for _, v := range rg.Runs() {
		known = append(known, v.ID)
	}
	require.Equal(t, []string{"r4", "r5", "r6", "r7", "r8", "r9"}, known)
	require.Equal(t, 404, rg.get(t, "/v1/runs/r7/logs").Code)
	require.Equal(t, 404, rg.get(t, "/v1/runs/r3").Code)
	require.Equal(t, "hello\n", rg.get(t, "/v1/runs/r8/logs").Body.String())
	v := rg.end(t, "r5")
	require.JSONEq(t, `{"n":5}`, string(v.Outcome.Result), "a small result is kept with the run")
	kept, err := os.ReadDir(filepath.Join(cfg.StateDir, "runs"))
	require.NoError(t, err)
	require.Len(t, kept, 2)
	left, err := os.ReadDir(filepath.Join(cfg.RunDir, "runs"))
	require.NoError(t, err)
	require.Empty(t, left)
	rg = rg.again(t, nil)
	require.Len(t, rg.Runs(), 6)
	// What is forgotten is not run again, for as long as its id is known.
	for _, id := range []string{"r1", "r2", "r3"} {
		_, _, err := rg.Submit(context.Background(), &api.RunRequest{ID: id, Image: "run=0s"}, root)
		require.Equal(t, fault.Conflict, fault.CodeOf(err), "%s: %v", id, err)
		require.Contains(t, err.Error(), "(succeeded)")
	}
	rg.submit(t, api.RunRequest{ID: "r0", Image: "run=0s"})
	rg.end(t, "r0")
	rg = rg.again(t, func(cfg *agent.Config) { cfg.KeepRuns = 7 })
	var states []api.State
	for _, e := range rg.events(t, "r9") {
		if e.Type == "state" {
			states = append(states, e.State)
		}
	}
	require.Equal(t, []api.State{api.Queued, api.Pulling, api.Creating, api.Running, api.Succeeded}, states)
	require.NoError(t, rg.Close())
}

func TestLeftoversAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		mount := "mount " + strings.Repeat("x", 900)
		rg.runner.Script = func(string) (agenttest.Script, error) {
			return agenttest.Script{Leftovers: slices.Repeat([]string{mount}, 10_000)}, nil
		}
		rg.submit(t, api.RunRequest{ID: "b", Image: "x"})
		v := rg.end(t, "b")
		require.Len(t, v.Outcome.Leftovers, 201)
		require.Equal(t, "and 9800 more", v.Outcome.Leftovers[200])
		require.True(t, rg.Health().Ready)
		rg = rg.again(t, nil)
		require.Equal(t, v.Outcome.Leftovers, rg.end(t, "b").Outcome.Leftovers)
		require.NoError(t, rg.Close())
	})
}

func TestHostileControlFiles(t *testing.T) {
	write := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	for name, place := range map[string]func(path string) error{
		"a link out of there": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a link to a device":  func(path string) error { return os.Symlink("/dev/zero", path) },
		"a pipe":              func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory":         func(path string) error { return os.Mkdir(path, 0o700) },
		"too large":           func(path string) error { return os.WriteFile(path, []byte(strings.Repeat(" ", 65<<10)+"1"), 0o600) },
		"no JSON":             func(path string) error { return os.WriteFile(path, []byte(`{"a":`), 0o600) },
		"a deep one":          write(strings.Repeat("[", 9999) + strings.Repeat("]", 9999)),
		"a deep one inside":   write(`{"a":` + strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 41)),
		"a long number":       write(`{"a":` + strings.Repeat("1", 5000) + "}"),
		"no UTF-8":            func(path string) error { return os.WriteFile(path, []byte("\"\xff\""), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			rg := newRig(t)
			rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever"})
			rg.waitFor(t, "a", api.Running)
			control := filepath.Join(rg.cfg.RunDir, "runs", "a", "control")
			require.NoError(t, place(filepath.Join(control, "result.json")))
			rg.runner.End("a", container.Exit{})
			v := rg.end(t, "a")
			require.Equal(t, api.Succeeded, v.State)
			require.Nil(t, v.Outcome.Result)
			require.Len(t, v.Warnings, 1)
			require.Contains(t, v.Warnings[0], "does not count")
			// Nothing of it is in the way of what comes after.
			rg.submit(t, api.RunRequest{ID: "b", Image: "run=0s"})
			require.Equal(t, api.Succeeded, rg.end(t, "b").State)
			require.True(t, rg.Health().Ready)
			require.NoError(t, rg.again(t, nil).Close())
		})
	}
}
