package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/runtime/logs"
)

const (
	logName    = "log"
	specName   = "spec.json"
	eventsName = "events.jsonl"
	// maxSpec bounds a runtime-spec in bytes.
	maxSpec = 8 << 20
)

// logDir returns where the output of a run is now.
func (a *Agent) logDir(id string) string {
	kept := filepath.Join(a.cfg.keptDir(id), logName)
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	return filepath.Join(a.cfg.runDir(id), logName)
}

// keepSpec keeps the spec of a container without its secrets and returns the
// digest of the whole.
func (a *Agent) keepSpec(id string) (sum, warning string) {
	file, err := os.Open(filepath.Join(a.cfg.runDir(id), specName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", ""
	}
	if err != nil {
		return "", "the spec cannot be read: " + err.Error()
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSpec))
	if err != nil {
		return "", "the spec cannot be read: " + err.Error()
	}
	digest := sha256.Sum256(data)
	sum = hex.EncodeToString(digest[:])
	redacted, err := redactSpec(data)
	if err == nil {
		err = os.MkdirAll(a.cfg.keptDir(id), 0o700)
	}
	if err == nil {
		err = writeFile(filepath.Join(a.cfg.keptDir(id), specName), redacted)
	}
	if err != nil {
		return sum, "the spec cannot be kept: " + err.Error()
	}
	return sum, ""
}

// plainEnv are variables whose values are worth seeing and are never a secret.
var plainEnv = []string{"PATH", "HOME", "HOSTNAME", "TERM", "container", "LANG", "TZ", "PWD", "USER"}

// redactSpec hides the values of the environment in a runtime-spec: which of them
// are secrets nobody can tell.
func redactSpec(data []byte) ([]byte, error) {
	var spec map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&spec); err != nil {
		return nil, err
	}
	process, _ := spec["process"].(map[string]any)
	env, _ := process["env"].([]any)
	for i, v := range env {
		s, _ := v.(string)
		if name, _, ok := strings.Cut(s, "="); ok && !slices.Contains(plainEnv, name) {
			env[i] = name + "=***"
		}
	}
	return json.MarshalIndent(spec, "", "  ")
}

// keepLog brings the output of a run that has ended to where it outlives the
// boot. Who reads it meanwhile goes on with the old copy, which stays until then.
func (a *Agent) keepLog(r *run) {
	from, to := filepath.Join(a.cfg.runDir(r.id), logName), filepath.Join(a.cfg.keptDir(r.id), logName)
	if _, err := os.Stat(from); err != nil {
		return
	}
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil && !a.renameLog(r, from, to) {
		err = copyDir(from, to)
	}
	if err != nil {
		a.cfg.Log.WithField("run", r.id).WithError(err).Warn("the output stays where it does not survive a reboot")
	}
}

// renameLog moves the output if nobody reads it and both places are on one file
// system. Under the lock no reader can come to the old place meanwhile.
func (a *Agent) renameLog(r *run, from, to string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return r.readers == 0 && os.Rename(from, to) == nil
}

// copyDir copies a directory of plain files, whole or not at all.
func copyDir(from, to string) error {
	temp := to + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.CopyFS(temp, os.DirFS(from)); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return os.Rename(temp, to)
}

// tidy keeps the events of a run that has ended, and removes what is not needed
// any more: the request with its secrets, and the run's directory.
func (a *Agent) tidy(r *run) {
	id := r.id
	events := r.events.end()
	if err := a.keepEvents(id, events); err != nil {
		a.cfg.Log.WithField("run", id).WithError(err).Warn("the events cannot be kept")
	}
	a.cfg.Failpoint("agent.events-kept")
	_ = os.Remove(a.cfg.requestPath(id))
	a.cfg.Failpoint("agent.request-removed")
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.update(r, false, func(rec *record) { rec.Kept = true })
	// Only now: without it, what is kept could be taken for all there was.
	_ = os.Remove(a.cfg.diaryPath(id))
	a.dropRunDir(r)
	if !r.stuck {
		close(r.tidied)
	}
}

func (a *Agent) keepEvents(id string, events []api.Event) error {
	if len(events) == 0 {
		return nil // it ended under an agent that crashed, and may have kept them
	}
	data, err := eventLines(events)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.cfg.keptDir(id), 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(a.cfg.keptDir(id), eventsName), data)
}

// keptEvents reads back what keepEvents wrote; none is none.
func (a *Agent) keptEvents(id string) []api.Event {
	return readEvents(filepath.Join(a.cfg.keptDir(id), eventsName))
}

// dropRunDir removes the directory of a run that has ended, unless its output is
// still there and nowhere else, or is being read. The lock is held.
func (a *Agent) dropRunDir(r *run) {
	dir := a.cfg.runDir(r.id)
	if !r.state().Final() || r.stuck || r.readers > 0 {
		return
	}
	if a.logDir(r.id) == filepath.Join(dir, logName) {
		if _, err := os.Stat(filepath.Join(dir, logName)); err == nil {
			return
		}
	}
	if err := removeRunDir(dir); err != nil {
		a.cfg.Log.WithField("run", r.id).WithError(err).Warn("cannot remove the run's directory")
	}
}

// removeRunDir removes a run's directory, but never what a mount brought there.
func removeRunDir(dir string) error {
	for _, name := range []string{logName, specName, "exit.json"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("something is left in it: %w", err)
		}
	}
	return os.Remove(dir)
}

// retain forgets the oldest of the runs that have ended: first what they wrote,
// much later that they were.
func (a *Agent) retain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	var bytesKept int64
	logsKept, known := 0, 0
	for i := len(a.order) - 1; i >= 0; i-- {
		r := a.order[i]
		if !r.state().Final() || r.stuck {
			continue
		}
		if known++; known > a.cfg.KeepRuns && a.rebootBy != r.id {
			if err := a.gone.add(r.rec.Run, a.cfg.KeepIDs); err != nil {
				a.cfg.Log.WithField("run", r.id).WithError(err).Warn("cannot forget the run: its id would be free")
				continue
			}
			a.forget(r)
			continue
		}
		if r.rec.Dropped || r.readers > 0 {
			continue
		}
		size, _ := logs.Size(a.logDir(r.id))
		if logsKept++; logsKept > a.cfg.KeepLogs || bytesKept+size > a.cfg.KeepBytes {
			a.dropOutput(r)
			continue
		}
		bytesKept += size
	}
}

// keptResult is how many bytes a result may have to be kept with the run's record
// for as long as that is.
const keptResult = 4 << 10

// dropOutput removes what a run wrote and keeps how it ended. The lock is held.
func (a *Agent) dropOutput(r *run) {
	id := r.id
	_ = os.RemoveAll(a.cfg.keptDir(id))
	_ = removeRunDir(a.cfg.runDir(id))
	_ = a.update(r, false, func(rec *record) {
		rec.Dropped = true
		if rec.Run.Outcome != nil {
			o := *rec.Run.Outcome
			o.LogTail = nil
			if len(o.Result) > keptResult {
				o.Result = nil
			}
			rec.Run.Outcome = &o
		}
	})
}

// forget removes every trace of a run but its audit record. The lock is held.
func (a *Agent) forget(r *run) {
	id := r.id
	_ = os.RemoveAll(a.cfg.keptDir(id))
	_ = removeRunDir(a.cfg.runDir(id))
	_ = os.Remove(a.cfg.requestPath(id))
	_ = os.Remove(a.cfg.diaryPath(id))
	if err := a.records.forget(id); err != nil {
		a.cfg.Log.WithField("run", id).WithError(err).Warn("cannot forget the run")
	}
	a.change(func() {
		delete(a.runs, id)
		a.order = slices.DeleteFunc(a.order, func(o *run) bool { return o == r })
	})
}
