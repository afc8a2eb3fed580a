package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
)

// ending is what a tombstone keeps of a run: its id is never run again.
type ending struct {
	State   machine.RunState `json:"s"`
	EndedAt time.Time        `json:"t"`
}

// Forget removes every trace of a run but its audit record. With tombstone its id stays
// known; when that cannot be written the run is not forgotten, and the error has code
// space or node.
func (s *Store) Forget(rec machine.Record, tombstone bool) error {
	if tombstone && s.tombstones != nil && s.cfg.KeepIDs >= 0 {
		e := ending{State: rec.Run.State}
		if rec.Run.EndedAt != nil {
			e.EndedAt = rec.Run.EndedAt.Truncate(time.Second)
		}
		if err := s.tombstones.Put(rec.Run.ID, e); err != nil {
			return err
		}
		if err := s.tombstones.Trim(s.cfg.KeepIDs); err != nil {
			return err
		}
	}
	id := rec.Run.ID
	f := s.Files(id)
	if err := errors.Join(f.DropOutput(), f.DropRequest(), ignoreAbsent(os.Remove(f.Events))); err != nil {
		s.cfg.Log.WithField("run", id).WithError(err).Warn("files of a forgotten run are left")
	}
	delete(s.dirty, id)
	if s.journal != nil {
		if err := s.journal.Forget(id); err != nil {
			s.cfg.Log.WithField("run", id).WithError(err).Warn("cannot forget the run")
		}
	}
	return nil
}

// keepID keeps the id of a run that only the audit record knows, also for the next agent: it
// finds the journal without damage.
func (s *Store) keepID(line AuditRecord) {
	e := ending{State: line.State, EndedAt: line.Time}
	s.lost[line.Run] = e
	if _, known := s.tombstone(line.Run); known || s.tombstones == nil || s.cfg.KeepIDs < 0 {
		return
	}
	err := s.tombstones.Put(line.Run, e)
	if err == nil {
		err = s.tombstones.Trim(s.cfg.KeepIDs)
	}
	if err != nil {
		s.cfg.Log.WithField("run", line.Run).WithError(err).Warn("the id of a run that the journal lost will be free again")
	}
}

// Known returns an error with code conflict if an id belongs to a run that is forgotten.
func (s *Store) Known(id string) error {
	e, ok := s.lost[id]
	if data, found := s.tombstone(id); !ok && found {
		ok = true
		_ = json.Unmarshal(data, &e) // that it was there is enough
	}
	if !ok {
		return nil
	}
	return &fault.Error{Code: fault.Conflict, Op: "take run", Subject: id,
		Reason: fmt.Sprintf("a run with this id ended at %s (%s); its record is gone",
			e.EndedAt.UTC().Format(time.RFC3339), e.State),
		Remedy: "Give each request its own id",
		Attrs:  map[string]any{fault.AttrHolder: id, "state": string(e.State)}}
}

func (s *Store) tombstone(id string) (json.RawMessage, bool) {
	if s.tombstones == nil {
		return nil, false
	}
	return s.tombstones.Get(id)
}

// complete makes rec a run that ended as its audit record says.
func (line AuditRecord) complete(rec *machine.Record) {
	rec.Run.State, rec.Run.EndedAt, rec.Audited = line.State, line.EndedAt, true
	if line.StartedAt != nil {
		rec.Run.StartedAt = line.StartedAt
	}
	rec.Run.Outcome = &machine.Outcome{Code: line.Code, Message: line.Message, ExitCode: line.ExitCode, Duration: line.Duration}
	rec.Run.Warnings = append(rec.Run.Warnings, "the journal lost the end of this run; the audit record has it")
}
