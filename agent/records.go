package agent

import (
	"encoding/json"
	"errors"
	"path/filepath"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/journal"
)

// records is the journal as the agent sees it: records of runs, and a memory of
// those that could not be written so far. The agent's lock guards it.
type records struct {
	journal *journal.Journal // nil: from memory only
	why     error            // why there is no journal
	dirty   map[string]*record
	last    error // of the last write
}

// openRecords opens the journal. Without one, an agent whose state need not
// survive works from memory.
func openRecords(cfg Config) (*records, error) {
	j, err := journal.Open(filepath.Join(cfg.StateDir, "journal"), journal.Options{Failpoint: cfg.Failpoint})
	if err == nil {
		return &records{journal: j, dirty: map[string]*record{}}, nil
	}
	// A journal that is there and cannot be read, or that another agent holds, is
	// no matter of where the state lies: going on would forget runs.
	if cfg.Persistent || fault.CodeOf(err) == fault.Conflict || !placeIsBad(err) {
		return nil, err
	}
	cfg.Log.WithError(err).Warn("no journal: a crash of the agent will lose its runs")
	return &records{why: err, dirty: map[string]*record{}}, nil
}

// placeIsBad reports whether err comes from the file system.
func placeIsBad(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.Space || code == fault.Node
}

// put writes rec, and what could not be written before it. A record that fails is
// written later, unless it must be on stable storage before it counts at all.
func (s *records) put(rec *record, must bool) error {
	if s.journal == nil {
		return nil
	}
	id := rec.Run.ID
	s.last = s.retry(id)
	if s.last == nil {
		s.last = s.journal.Put(id, rec)
	}
	switch {
	case s.last == nil:
		delete(s.dirty, id)
	case !must && fault.CodeOf(s.last) != fault.Internal: // else it never can be, and would keep others waiting
		s.dirty[id] = rec
	}
	return s.last
}

// retry writes the records of other runs that are still due.
func (s *records) retry(except string) error {
	for id, rec := range s.dirty {
		if id == except {
			continue
		}
		if err := s.journal.Put(id, rec); err != nil {
			return err
		}
		delete(s.dirty, id)
	}
	return nil
}

func (s *records) forget(id string) error {
	delete(s.dirty, id)
	if s.journal == nil {
		return nil
	}
	return s.journal.Forget(id)
}

// load calls fn for each record of the journal.
func (s *records) load(fn func(*record)) error {
	if s.journal == nil {
		return nil
	}
	return s.journal.Each(func(key string, value json.RawMessage) error {
		rec := new(record)
		if err := json.Unmarshal(value, rec); err != nil {
			return &fault.Error{Code: fault.BadConfig, Op: "read the record of run", Subject: key, Err: err,
				Remedy: "Run the careen that wrote it, or give this one another --state"}
		}
		fn(rec)
		return nil
	})
}

func (s *records) close() error {
	if s.journal == nil {
		return nil
	}
	return errors.Join(s.retry(""), s.journal.Close())
}
