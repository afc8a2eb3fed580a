package agent

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/journal"
)

// forgotten is what stays of a run when its record goes: its id is taken for much
// longer, so that a request that comes again late is not run again. It is a journal
// of its own; an agent that works from memory has none.
type forgotten struct{ journal *journal.Journal }

// forgottenRun is a record of it.
type forgottenRun struct {
	State   api.State `json:"s"`
	EndedAt time.Time `json:"t"`
}

// openForgotten opens it where there is a journal of runs.
func openForgotten(cfg Config, recs *records) (*forgotten, error) {
	if recs.journal == nil {
		return &forgotten{}, nil
	}
	j, err := journal.Open(filepath.Join(cfg.StateDir, "forgotten"), journal.Options{Failpoint: cfg.Failpoint})
	if err != nil && placeIsBad(err) {
		cfg.Log.WithError(err).Warn("ids of runs that are forgotten will be free")
		return &forgotten{}, nil
	}
	return &forgotten{journal: j}, err
}

// add takes note of a run whose record is about to go.
func (f *forgotten) add(run api.Run, most int) error {
	if f.journal == nil || most < 0 {
		return nil
	}
	note := forgottenRun{State: run.State}
	if run.EndedAt != nil {
		note.EndedAt = run.EndedAt.Truncate(time.Second)
	}
	if err := f.journal.Put(run.ID, note); err != nil {
		return err
	}
	return f.journal.Trim(most)
}

// check refuses an id that a forgotten run had.
func (f *forgotten) check(id string) error {
	if f.journal == nil {
		return nil
	}
	data, ok := f.journal.Get(id)
	if !ok {
		return nil
	}
	var note forgottenRun
	_ = json.Unmarshal(data, &note) // that it was there is enough
	return &fault.Error{Code: fault.Conflict, Op: "take run", Subject: id,
		Reason: fmt.Sprintf("a run that had this id ended at %s (%s); no more is remembered of it",
			note.EndedAt.UTC().Format(time.RFC3339), note.State),
		Remedy: "Give each request an id of its own",
		Attrs:  map[string]any{fault.AttrHolder: id, "state": string(note.State)}}
}

func (f *forgotten) close() error {
	if f.journal == nil {
		return nil
	}
	return f.journal.Close()
}
