package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// maxAudit is when the audit record is moved aside as audit.jsonl.1, of which one
// is kept: a state directory in a ramdisk must not fill up over months.
const maxAudit = 16 << 20

// auditLog is the append-only record of what ran, one line a run.
type auditLog struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
	last error
}

// openAudit opens the record; a place that cannot be written is an error of each
// append, and of health, and stops nothing.
func openAudit(path string) *auditLog {
	l := &auditLog{path: path}
	l.last = l.open()
	return l
}

func (l *auditLog) open() error {
	file, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.file, l.size = file, info.Size()
	// A line that a crash cut short must not swallow the next one.
	var last [1]byte
	if l.size > 0 {
		if _, err := file.ReadAt(last[:], l.size-1); err == nil && last[0] != '\n' {
			n, _ := file.Write([]byte{'\n'})
			l.size += int64(n)
		}
	}
	return nil
}

// append writes one record and waits until it is stable.
func (l *auditLog) append(rec api.AuditRecord) error {
	line, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = l.write(append(line, '\n'))
	return l.last
}

func (l *auditLog) write(line []byte) error {
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if l.size+int64(len(line)) > maxAudit {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
		l.file.Close()
		l.file = nil
		if err := l.open(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	if err != nil {
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(n)
	return l.file.Sync()
}

// has reports whether a run that was created then is in the record already.
func (l *auditLog) has(id string, created time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := os.ReadFile(l.path)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		var rec api.AuditRecord
		if bytes.Contains(line, []byte(id)) && json.Unmarshal(line, &rec) == nil && rec.Run == id &&
			rec.CreatedAt != nil && rec.CreatedAt.Equal(created) {
			return true
		}
	}
	return false
}

// copyTo writes the record, the older part first.
func (l *auditLog) copyTo(w io.Writer) error {
	for _, path := range []string{l.path + ".1", l.path} {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(w, file)
		file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *auditLog) health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *auditLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// writeAudit writes the audit record of a run that has ended, once. The lock is held.
func (a *Agent) writeAudit(r *run) {
	rec := r.rec
	if !a.recovered && a.audit.has(rec.Run.ID, rec.Run.CreatedAt) {
		_ = a.update(r, false, func(rec *record) { rec.Audited = true })
		return
	}
	line := a.auditOf(rec)
	a.cfg.Failpoint("agent.before-audit")
	if err := a.audit.append(line); err != nil {
		a.cfg.Log.WithField("run", rec.Run.ID).WithError(err).Error("cannot write the audit record")
		return
	}
	a.cfg.Failpoint("agent.after-audit")
	_ = a.update(r, false, func(rec *record) { rec.Audited = true })
}

func (a *Agent) auditOf(rec *record) api.AuditRecord {
	run := rec.Run
	line := api.AuditRecord{
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

// refused notes a request that was turned down: who tried what is worth knowing.
func (a *Agent) refused(req *api.RunRequest, peer api.Peer, why error) {
	a.metrics.refusal(fault.CodeOf(why))
	if fault.CodeOf(why).Transient() {
		return // it will be asked again, perhaps every second
	}
	line := api.AuditRecord{
		Time: time.Now().UTC(), Event: "refused", Run: req.ID, PeerUID: peer.UID, PeerPID: peer.PID,
		PeerCommand: peer.Command, Route: req.Route, Step: req.Step, Phase: req.Phase, Node: nodeName(req.Node),
		Code: string(fault.CodeOf(why)), Message: oneLine(why.Error()), BootID: a.cfg.BootID,
	}
	if req.Image != "" {
		line.Containers = []api.AuditContainer{{Image: cut(req.Image, 1000)}}
	}
	if err := a.audit.append(line); err != nil {
		a.cfg.Log.WithError(err).Error("cannot write the audit record")
	}
	a.cfg.Log.WithFields(map[string]any{"step": req.Step, "image": cut(req.Image, 200), "peer_uid": peer.UID}).
		Warn("run refused: " + fmt.Sprint(line.Message))
}
