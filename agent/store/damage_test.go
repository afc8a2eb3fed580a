package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/store"
)

func openStore(t *testing.T, state string) *store.Store {
	t.Helper()
	log := logrus.New()
	log.SetOutput(&bytes.Buffer{})
	s, err := store.Open(store.Config{RunDir: t.TempDir(), StateDir: state, Persistent: true, KeepIDs: 10, Log: log})
	require.NoError(t, err)
	return s
}

// ran is the record of a run, in a state.
func ran(id string, state machine.RunState) machine.Record {
	created := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	rec := machine.Record{Run: machine.Info{ID: id, State: state, Image: "image", CreatedAt: created}}
	if state.Final() {
		code := 3
		rec.Run.EndedAt = &created
		rec.Run.Outcome = &machine.Outcome{Code: "exit", Message: "the container exited with code 3", ExitCode: &code}
	}
	return rec
}

func journalFile(state string) string { return filepath.Join(state, "journal", "journal.jsonl") }

// TestTheAuditRecordHasAnEndThatTheJournalLost: a journal whose end was cut off does not
// turn a run that ended into one that is lost.
func TestTheAuditRecordHasAnEndThatTheJournalLost(t *testing.T) {
	state := t.TempDir()
	s := openStore(t, state)
	require.NoError(t, s.Append([]machine.Record{ran("a", machine.Running)}, true))
	data, err := os.ReadFile(journalFile(state))
	require.NoError(t, err)
	ended := ran("a", machine.Failed)
	require.NoError(t, s.Append([]machine.Record{ended}, false))
	require.NoError(t, s.Audit.Append(store.AuditOf(ended)))
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(journalFile(state), data, 0o600))

	s = openStore(t, state)
	records, err := s.Load()
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.Equal(t, machine.Failed, records[0].Run.State)
	require.Equal(t, 3, *records[0].Run.Outcome.ExitCode)
	require.True(t, records[0].Audited, "it is not written twice")
	require.NoError(t, s.Close())
}

// TestADamagedJournalFreesNoID: ids that only the audit record knows are not run again.
func TestADamagedJournalFreesNoID(t *testing.T) {
	for name, damage := range map[string]func(data []byte) []byte{
		"nothing but NULs":        func(data []byte) []byte { return make([]byte, len(data)) },
		"a flipped bit":           func(data []byte) []byte { data[len(data)-20] ^= 8; return data },
		"a torn record":           func(data []byte) []byte { return data[:len(data)-20] },
		"NULs in the second half": func(data []byte) []byte { return append(data[:len(data)/2], make([]byte, len(data)/2)...) },
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			s := openStore(t, state)
			rec := ran("a", machine.Failed)
			require.NoError(t, s.Append([]machine.Record{rec}, true))
			require.NoError(t, s.Audit.Append(store.AuditOf(rec)))
			require.NoError(t, s.Close())
			data, err := os.ReadFile(journalFile(state))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(journalFile(state), damage(data), 0o600))

			s = openStore(t, state)
			records, err := s.Load()
			require.NoError(t, err)
			require.Empty(t, records)
			require.Equal(t, fault.Conflict, fault.CodeOf(s.Known("a")))
			require.NoError(t, s.Known("b"))
			st := s.Status()
			require.True(t, st.Damaged > 0 || st.TornBytes > 0, "health says so")
			require.NoError(t, s.Close())

			s = openStore(t, state)
			_, err = s.Load()
			require.NoError(t, err)
			require.Equal(t, fault.Conflict, fault.CodeOf(s.Known("a")), "the next agent finds no damage")
			require.NoError(t, s.Close())
		})
	}
}

// TestAuditLinesAreWrittenLater: in their order, once there is room.
func TestAuditLinesAreWrittenLater(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a tmpfs")
	}
	state := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", state, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(state, unix.MNT_DETACH)) })
	s := openStore(t, state)
	require.NoError(t, s.Audit.Append(store.AuditOf(ran("first", machine.Failed))))
	ballast := filepath.Join(state, "ballast")
	file, err := os.Create(ballast)
	require.NoError(t, err)
	for size := 16 << 10; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	require.NoError(t, file.Close())
	var waiting int
	for i := 0; waiting < 3; i++ { // its last page may have room for some
		rec := ran(fmt.Sprint(i), machine.Failed)
		if err := s.Audit.Append(store.AuditOf(rec)); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			waiting++
		}
	}
	require.Equal(t, 3, s.Audit.Status().Pending)
	require.Error(t, s.Audit.Status().Last)
	require.NoError(t, os.Remove(ballast))
	require.NoError(t, s.Audit.Retry())
	require.Zero(t, s.Audit.Status().Pending)
	require.NoError(t, s.Audit.Status().Last)

	var text bytes.Buffer
	require.NoError(t, s.Audit.CopyTo(&text))
	var ids []string
	for line := range bytes.Lines(text.Bytes()) {
		var rec store.AuditRecord
		require.NoError(t, json.Unmarshal(line, &rec))
		ids = append(ids, rec.Run)
	}
	require.Equal(t, "first", ids[0])
	for i, id := range ids[1:] {
		require.Equal(t, fmt.Sprint(i), id)
	}
	require.NoError(t, s.Close())
}
