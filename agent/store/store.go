package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/store/journal"
	"github.com/careen-project/careen/runtime/container"
)

// Config is where a store lies.
type Config struct {
	// RunDir and StateDir are absolute; see the package comment.
	RunDir, StateDir string
	// Persistent says that StateDir has to survive a reboot. Then a StateDir that cannot
	// be used is an error; otherwise the store works from memory.
	Persistent bool
	// KeepIDs is how many tombstones are kept; negative for none.
	KeepIDs int
	Log     logrus.FieldLogger
	// Disk is the file system of the journal, [journal.OS] if nil.
	Disk journal.Disk
}

// Store is an open store. [Store.Status] and the methods that return paths may be called
// at any time; the executor makes all other calls, one at a time.
type Store struct {
	cfg        Config
	journal    *journal.Journal // nil: from memory only
	tombstones *journal.Journal
	// lost are ids that only the audit record knows, after damage to the journal.
	lost map[string]ending
	// dirty are records that could not be written so far.
	dirty  map[string]machine.Record
	status atomic.Pointer[Status]
	// Audit is the audit record.
	Audit *Audit
	key   []byte
}

// Status is the state of a store.
type Status struct {
	// Memory says why there is no journal, nil if there is one.
	Memory error
	// Last is the error of the last write, nil if it succeeded.
	Last error
	// Unwritten counts records that could not be written so far.
	Unwritten int
	// Stable says that the journal can survive a reboot.
	Stable bool
	// TornBytes and Damaged are what was dropped when the journal was opened.
	TornBytes int64
	Damaged   int
	// Waiting is the run whose record waits for the disk, "" for none, and Since when
	// that began.
	Waiting string
	Since   time.Time
}

// Open opens a store. It makes the directories. The error has code node, space, conflict
// or bad_config.
func Open(cfg Config) (*Store, error) {
	if err := makeDirs(cfg); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, dirty: map[string]machine.Record{}, Audit: openAudit(filepath.Join(cfg.StateDir, "audit.jsonl"))}
	status := Status{}
	j, err := journal.Open(filepath.Join(cfg.StateDir, "journal"), cfg.Disk)
	switch {
	case err == nil:
		s.journal, status.Stable = j, j.Stable()
		status.TornBytes, status.Damaged = j.Damage()
	case cfg.Persistent || !placeIsBad(err):
		// A journal that cannot be read, or that another agent holds: going on without it
		// would forget runs.
		return nil, errors.Join(err, s.Audit.Close())
	default:
		cfg.Log.WithError(err).Warn("no journal: a crash of the agent will lose its runs")
		status.Memory = err
	}
	s.status.Store(&status)
	if err := s.openRest(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) openRest() (err error) {
	if s.key, err = openKey(s.cfg); err != nil || s.journal == nil {
		return err
	}
	s.tombstones, err = journal.Open(filepath.Join(s.cfg.StateDir, "forgotten"), s.cfg.Disk)
	if err != nil && placeIsBad(err) {
		s.cfg.Log.WithError(err).Warn("ids of forgotten runs will be free")
		return nil
	}
	return err
}

// placeIsBad reports whether err comes from the file system.
func placeIsBad(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.Space || code == fault.Node
}

// makeDirs makes directories that only root may look into.
func makeDirs(cfg Config) error {
	for _, name := range []string{"", "runs", "requests", "events"} {
		dir := filepath.Join(cfg.RunDir, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return &fault.Error{Code: fault.Node, Op: "make directory", Subject: dir, Err: err,
				Remedy: "Give the agent a writable directory"}
		}
	}
	err := os.MkdirAll(filepath.Join(cfg.StateDir, "runs"), 0o700)
	if err != nil && cfg.Persistent {
		return &fault.Error{Code: fault.Node, Op: "make directory", Subject: cfg.StateDir, Err: err,
			Remedy: "Check the directory given with --state"}
	}
	return nil
}

// Status returns the state of the store. It never waits.
func (s *Store) Status() Status { return *s.status.Load() }

func (s *Store) setStatus(change func(*Status)) {
	status := *s.status.Load()
	change(&status)
	s.status.Store(&status)
}

// Append makes records durable, together with those that could not be written before. On
// an error none of them is; then, unless must is set, they are written later. The error
// has code space, node or internal.
func (s *Store) Append(records []machine.Record, must bool) error {
	if s.journal == nil || len(records) == 0 {
		return nil
	}
	s.setStatus(func(st *Status) { st.Waiting, st.Since = records[0].Run.ID, time.Now() })
	err := s.write(records)
	if err != nil && !must && fault.CodeOf(err) != fault.Internal { // else it never can be written
		for _, rec := range records {
			s.dirty[rec.Run.ID] = rec
		}
	}
	s.setStatus(func(st *Status) { st.Waiting, st.Last, st.Unwritten = "", err, len(s.dirty) })
	return err
}

func (s *Store) write(records []machine.Record) error {
	var entries []journal.Entry
	for _, rec := range records {
		delete(s.dirty, rec.Run.ID)
		entries = append(entries, journal.Entry{Key: rec.Run.ID, Value: rec})
	}
	late := s.dirty
	for id, rec := range late {
		entries = append(entries, journal.Entry{Key: id, Value: rec})
	}
	err := s.journal.PutAll(entries)
	if err == nil {
		s.dirty = map[string]machine.Record{}
	}
	return err
}

// Retry writes the records that could not be written before. Errors are those of
// [Store.Append].
func (s *Store) Retry() error {
	if s.journal == nil || len(s.dirty) == 0 {
		return nil
	}
	err := s.write(nil)
	s.setStatus(func(st *Status) { st.Last, st.Unwritten = err, len(s.dirty) })
	return err
}

// Load returns the records of the journal, in the order of acceptance. A run whose end
// only the audit record has is returned as it ended. The error has code bad_config.
func (s *Store) Load() ([]machine.Record, error) {
	if s.journal == nil {
		return nil, nil
	}
	var records []machine.Record
	err := s.journal.Each(func(key string, value json.RawMessage) error {
		var rec machine.Record
		if err := json.Unmarshal(value, &rec); err != nil || !rec.Run.State.Known() {
			return &fault.Error{Code: fault.BadConfig, Op: "read the record of run", Subject: key, Err: err,
				Reason: "this careen does not know its format", Remedy: "Run the careen that wrote it, or give this one another --state"}
		}
		records = append(records, rec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.compareAudit(records)
	return records, nil
}

// compareAudit corrects what the journal lost by what the audit record has: it is written
// after a run's final record.
func (s *Store) compareAudit(records []machine.Record) {
	status := s.Status()
	damaged := status.Damaged > 0 || status.TornBytes > 0
	open := map[string]int{}
	known := map[string]bool{}
	for i, rec := range records {
		known[rec.Run.ID] = true
		if !rec.Run.State.Final() {
			open[rec.Run.ID] = i
		}
	}
	if !damaged && len(open) == 0 {
		return
	}
	s.lost = map[string]ending{}
	for _, line := range s.Audit.ends() {
		if i, ok := open[line.Run]; ok && line.CreatedAt != nil && line.CreatedAt.Equal(records[i].Run.CreatedAt) {
			s.cfg.Log.WithField("run", line.Run).Warn("the journal lost the end of this run; the audit record has it")
			line.complete(&records[i])
		}
		if damaged && !known[line.Run] {
			s.keepID(line)
		}
	}
}

// Files returns the layout of a run's files.
func (s *Store) Files(id string) Files {
	return Files{
		Run:     container.Dir(filepath.Join(s.cfg.RunDir, "runs", id)),
		Kept:    filepath.Join(s.cfg.StateDir, "runs", id),
		Request: filepath.Join(s.cfg.RunDir, "requests", id+".json"),
		Events:  filepath.Join(s.cfg.RunDir, "events", id+".jsonl"),
	}
}

// Flush writes the records that are due and has the file system of the state directory
// written out.
func (s *Store) Flush() error {
	return errors.Join(s.Retry(), syncFS(s.cfg.StateDir))
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// Close writes the records that are due and closes all files.
func (s *Store) Close() error {
	err := s.Retry()
	for _, j := range []*journal.Journal{s.journal, s.tombstones} {
		if j != nil {
			err = errors.Join(err, j.Close())
		}
	}
	if aerr := s.Audit.Close(); aerr != nil {
		s.cfg.Log.WithError(aerr).Error("cannot write the audit record")
	}
	return err
}
