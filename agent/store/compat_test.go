package store_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/store"
	"github.com/careen-project/careen/agent/store/journal"
)

// openV1 opens a copy of what an older release wrote; see testdata/v1/README.md.
func openV1(t *testing.T) (s *store.Store, dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/v1")))
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := store.Open(store.Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
		Persistent: true, KeepIDs: 10, Log: log})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	status := s.Status()
	require.Zero(t, status.Damaged)
	require.Zero(t, status.TornBytes)
	return s, dir
}

// lastRecords returns the last record of each key of a journal, as text.
func lastRecords(t *testing.T, path string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	last := map[string]string{}
	for line := range bytes.Lines(data) {
		var l struct {
			Key   string          `json:"k"`
			Value json.RawMessage `json:"d"`
		}
		require.NoError(t, json.Unmarshal(line[len("cccccccc "):], &l))
		if l.Key != "" {
			last[l.Key] = string(l.Value)
		}
	}
	return last
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return string(data)
}

// TestReadsJournalV1 compares every record with what each member means, and with its text:
// a member that this careen renamed or does not know would be missing from the latter.
func TestReadsJournalV1(t *testing.T) {
	s, dir := openV1(t)
	records, err := s.Load()
	require.NoError(t, err)
	texts := lastRecords(t, filepath.Join(dir, "state/journal/journal.jsonl"))
	byID := map[string]machine.Record{}
	var order []string
	for _, rec := range records {
		id := rec.Run.ID
		byID[id], order = rec, append(order, id)
		require.JSONEq(t, texts[id], asJSON(t, rec), "record of %s", id)
		require.Equal(t, machine.Peer{PID: 321, Command: "ironic-python-agent"}, rec.Peer)
		require.Len(t, rec.Hash, 64)
	}
	require.Equal(t, []string{"dropped", "ended", "failed", "reboot", "running", "sequence", "stopping", "pulling", "queued"}, order)

	rec := byID["queued"]
	require.Equal(t, machine.Queued, rec.Run.State)
	require.Equal(t, "last", rec.Run.Step)
	require.False(t, rec.Starting)
	require.Greater(t, rec.Accepted, time.Hour)
	require.Equal(t, machine.Pulling, byID["pulling"].Run.State)

	rec = byID["running"]
	require.Equal(t, machine.Running, rec.Run.State)
	require.True(t, rec.Starting, "never created again")
	require.Nil(t, rec.Exit)
	require.Len(t, rec.ContainerID, 64)
	require.Equal(t, 4242, rec.Run.Pid)
	require.False(t, rec.Run.Abortable)
	require.Equal(t, time.Hour, rec.Timeout)
	require.Equal(t, "boot-1", rec.Run.BootID)

	rec = byID["sequence"]
	require.Equal(t, []int{2, 2, 1}, []int{rec.Run.Part, rec.Run.Parts, rec.Part})
	require.Len(t, rec.Audit, 2)
	require.Len(t, rec.Previous, 1)
	require.Equal(t, "first/run=20ms", rec.Previous[0].Image)
	require.JSONEq(t, `{"disk": "sda"}`, string(rec.Previous[0].Result))

	rec = byID["stopping"]
	require.Equal(t, machine.Stopping, rec.Run.State)
	require.Equal(t, machine.CauseAbort, rec.Stop.Cause)
	require.Equal(t, "operator", rec.Stop.Reason)
	require.Equal(t, time.Minute, rec.Stop.Grace)
	require.True(t, rec.Stop.Applied)

	rec = byID["ended"]
	require.Equal(t, machine.Succeeded, rec.Run.State)
	require.Equal(t, []string{"clean", "node-1", "ipa"}, []string{rec.Run.Phase, rec.Run.Node, rec.Route})
	require.JSONEq(t, `{"serial": "X1"}`, string(rec.Run.Outcome.Result))
	require.Equal(t, []string{"line one", "line two"}, rec.Run.Outcome.LogTail)
	require.Equal(t, []string{"mount /mnt/left"}, rec.Run.Outcome.Leftovers)
	require.Equal(t, []bool{true, true, false}, []bool{rec.Audited, rec.Kept, rec.Dropped})

	rec = byID["dropped"]
	require.True(t, rec.Dropped)
	require.Empty(t, rec.Run.Outcome.LogTail)
	require.JSONEq(t, `{"kept": true}`, string(rec.Run.Outcome.Result))

	rec = byID["failed"]
	require.Equal(t, machine.Failed, rec.Run.State)
	require.Equal(t, string(fault.Exit), rec.Run.Outcome.Code)
	require.Equal(t, 3, *rec.Run.Outcome.ExitCode)

	rec = byID["reboot"]
	require.True(t, rec.RebootClaim)
	require.True(t, rec.Run.Outcome.RebootRequested)
	require.Equal(t, "restart", rec.Exit.Reboot)
}

// TestReadsAuditV1 reads the audit record of an older release and goes on with it.
func TestReadsAuditV1(t *testing.T) {
	s, dir := openV1(t)
	path := filepath.Join(dir, "state/audit.jsonl")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	var events []string
	for line := range bytes.Lines(before) {
		var rec store.AuditRecord
		require.NoError(t, json.Unmarshal(line, &rec))
		require.JSONEq(t, string(line), asJSON(t, rec))
		events = append(events, rec.Event+" "+rec.Run+" "+string(rec.State))
	}
	require.Equal(t, []string{"run dropped succeeded", "run ended succeeded", "run failed failed", "refused refused ",
		"run reboot succeeded"}, events)
	records, err := s.Load()
	require.NoError(t, err)
	for _, rec := range records {
		require.Equal(t, rec.Run.State.Final(), s.Audit.Has(rec.Run.ID, rec.Run.CreatedAt), rec.Run.ID)
	}
	require.NoError(t, s.Audit.Append(store.AuditOf(records[0])))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(after, before))
}

// TestReadsEventLogsV1 reads the event logs of runs that ended and of runs that go on.
func TestReadsEventLogsV1(t *testing.T) {
	s, dir := openV1(t)
	records, err := s.Load()
	require.NoError(t, err)
	for _, rec := range records {
		id := rec.Run.ID
		path := filepath.Join(dir, "run/events", id+".jsonl")
		if rec.Kept {
			path = s.Files(id).KeptEvents()
		}
		var want []string
		if data, err := os.ReadFile(path); err == nil {
			for line := range bytes.Lines(data) {
				want = append(want, string(line))
			}
		}
		log := s.RestoreEventLog(rec, time.Hour)
		list, missed, more := log.After(0)
		require.Equal(t, rec.Run.State.Final(), more == nil, id)
		require.Len(t, list, len(want), id)
		for i, e := range list {
			require.JSONEq(t, want[i], asJSON(t, e), "event of %s", id)
		}
		if len(list) > 0 {
			require.False(t, missed, id)
			require.Equal(t, rec.Run.State, list[lastState(list)].State, id)
		}
	}
}

func lastState(list []store.Event) (last int) {
	for i, e := range list {
		if e.Type == "state" {
			last = i
		}
	}
	return last
}

// TestNewerJournalIsRefused: going on without its records would forget runs.
func TestNewerJournalIsRefused(t *testing.T) {
	dir := t.TempDir()
	text := "dc441264 {\"v\":2}\n"
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "state/journal"), 0o700))
	path := filepath.Join(dir, "state/journal/journal.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	_, err := store.Open(store.Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), Log: logrus.New()})
	require.Equal(t, fault.BadConfig, fault.CodeOf(err), "%v", err)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, string(after), "and left as it is")
	require.Equal(t, 1, journal.Version)
}
