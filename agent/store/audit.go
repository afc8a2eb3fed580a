package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/careen-project/careen/agent/machine"
)

// maxAudit is the size at which the audit record becomes audit.jsonl.1, of which one is
// kept: a state directory in memory must not fill up over months.
const maxAudit = 16 << 20

// AuditRecord is one line of the audit record: what ran on the node, or was refused,
// without secrets. The JSON names are its format; see docs/compatibility.md.
type AuditRecord struct {
	Time time.Time `json:"time"`
	// Event is "run", or "refused" for a request that policy or a check refused.
	Event string `json:"event"`
	Run   string `json:"run,omitempty"`
	// The process that asked, as the kernel named it.
	PeerUID     uint32                   `json:"peer_uid"`
	PeerPID     int32                    `json:"peer_pid"`
	PeerCommand string                   `json:"peer_command,omitempty"`
	Route       string                   `json:"route,omitempty"`
	Step        string                   `json:"step,omitempty"`
	Phase       string                   `json:"phase,omitempty"`
	Node        string                   `json:"node,omitempty"`
	Containers  []machine.AuditContainer `json:"containers,omitempty"`
	BootID      string                   `json:"boot_id,omitempty"`
	CreatedAt   *time.Time               `json:"created_at,omitempty"`
	StartedAt   *time.Time               `json:"started_at,omitempty"`
	EndedAt     *time.Time               `json:"ended_at,omitempty"`
	State       machine.RunState         `json:"state,omitempty"`
	Code        string                   `json:"code,omitempty"`
	Message     string                   `json:"message,omitempty"`
	ExitCode    *int                     `json:"exit_code,omitempty"`
	Duration    string                   `json:"duration,omitempty"`
}

// AuditOf returns the audit record of a run that has ended.
func AuditOf(rec machine.Record) AuditRecord {
	run := rec.Run
	line := AuditRecord{
		Time: time.Now().UTC(), Event: "run", Run: run.ID,
		PeerUID: rec.Peer.UID, PeerPID: rec.Peer.PID, PeerCommand: rec.Peer.Command,
		Route: rec.Route, Step: run.Step, Phase: run.Phase, Node: run.Node, Containers: rec.Audit, BootID: run.BootID,
		CreatedAt: &run.CreatedAt, StartedAt: run.StartedAt, EndedAt: run.EndedAt, State: run.State,
	}
	if o := run.Outcome; o != nil {
		line.Code, line.Message, line.ExitCode, line.Duration = o.Code, o.Message, o.ExitCode, o.Duration
	}
	return line
}

// Audit is the append-only audit record, one line per run. Readers take no lock.
type Audit struct {
	path   string
	status atomic.Pointer[AuditStatus]

	mu   sync.Mutex // orders writers
	file *os.File
	size int64
	// pending are lines that could not be written so far, oldest first.
	pending [][]byte
}

// AuditStatus is the state of the audit record.
type AuditStatus struct {
	// Last is the error of the last write, Pending how many lines wait to be written, and
	// Dropped how many had no room to wait.
	Last             error
	Pending, Dropped int
}

// maxPending bounds the lines that wait.
const maxPending = 1000

// openAudit opens the record. A place that cannot be written is an error of each append.
func openAudit(path string) *Audit {
	a := &Audit{path: path}
	a.status.Store(&AuditStatus{Last: a.open()})
	return a
}

func (a *Audit) open() error {
	file, err := os.OpenFile(a.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	a.file, a.size = file, info.Size()
	// A line that a crash cut short must not swallow the next one.
	var last [1]byte
	if a.size > 0 {
		if _, err := file.ReadAt(last[:], a.size-1); err == nil && last[0] != '\n' {
			n, _ := file.Write([]byte{'\n'})
			a.size += int64(n)
		}
	}
	return nil
}

// Append writes one line, after those that could not be written before, and waits until it
// is stable. A line that cannot be written is kept for [Audit.Retry]; the error is that of
// the file system.
func (a *Audit) Append(rec AuditRecord) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	status := *a.status.Load()
	if a.pending = append(a.pending, append(text, '\n')); len(a.pending) > maxPending {
		a.pending = a.pending[1:]
		status.Dropped++
	}
	return a.flush(status)
}

// Retry writes the lines that could not be written before.
func (a *Audit) Retry() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.flush(*a.status.Load())
}

func (a *Audit) flush(status AuditStatus) (err error) {
	for len(a.pending) > 0 && err == nil {
		if err = a.write(a.pending[0]); err == nil {
			a.pending = a.pending[1:]
		}
	}
	status.Last, status.Pending = err, len(a.pending)
	a.status.Store(&status)
	return err
}

func (a *Audit) write(text []byte) error {
	if a.file == nil {
		if err := a.open(); err != nil {
			return err
		}
	}
	if a.size+int64(len(text)) > maxAudit {
		if err := os.Rename(a.path, a.path+".1"); err != nil {
			return err
		}
		_ = a.file.Close()
		a.file = nil
		if err := a.open(); err != nil {
			return err
		}
	}
	n, err := a.file.Write(text)
	if err == nil {
		err = a.file.Sync()
	}
	if err != nil {
		return errors.Join(err, a.file.Truncate(a.size))
	}
	a.size += int64(n)
	return nil
}

// Has reports whether a run that was created then is in the record.
func (a *Audit) Has(id string, created time.Time) bool {
	for _, line := range a.ends() {
		if line.Run == id && line.CreatedAt != nil && line.CreatedAt.Equal(created) {
			return true
		}
	}
	return false
}

// ends returns the records of runs that ended.
func (a *Audit) ends() (all []AuditRecord) {
	data, err := os.ReadFile(a.path)
	if err != nil {
		return nil
	}
	for text := range bytes.Lines(data) {
		var line AuditRecord
		if json.Unmarshal(text, &line) == nil && line.Event == "run" && line.State.Final() {
			all = append(all, line)
		}
	}
	return all
}

// CopyTo writes the record to w, the older part first. It waits for no writer. The error
// is that of the file system or of w.
func (a *Audit) CopyTo(w io.Writer) error {
	for _, path := range []string{a.path + ".1", a.path} {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(w, file)
		_ = file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Status returns the state of the record. It never waits.
func (a *Audit) Status() AuditStatus { return *a.status.Load() }

// Close closes the record, after a last try to write what waits.
func (a *Audit) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.flush(*a.status.Load())
	if a.file == nil {
		return err
	}
	err = errors.Join(err, a.file.Close())
	a.file = nil
	return err
}
