package store

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/logs"
)

// Files are the files of one run.
type Files struct {
	// Run is the run directory.
	Run container.Dir
	// Kept is the directory of what is kept when the run has ended.
	Kept string
	// Request and Events are the files of the request and of the event log.
	Request, Events string
}

const (
	keptLog    = "log"
	keptSpec   = "spec.json"
	keptEvents = "events.jsonl"
	// maxSpec and maxRequest bound files, in bytes.
	maxSpec    = 8 << 20
	maxRequest = 4 << 20
)

// Log returns where the output of the run is now.
func (f Files) Log() string {
	kept := filepath.Join(f.Kept, keptLog)
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	return f.Run.Log()
}

// Spec is the kept runtime-spec.
func (f Files) Spec() string { return filepath.Join(f.Kept, keptSpec) }

// KeptEvents is the kept event log.
func (f Files) KeptEvents() string { return filepath.Join(f.Kept, keptEvents) }

// KeepRequest keeps a request for an agent that is restarted before the run began. It
// holds secrets and stays in RunDir. The error has code node.
func (f Files) KeepRequest(request any) error {
	data, err := json.Marshal(request)
	if err == nil {
		err = file.Replace(f.Request, data, 0o600, file.Volatile)
	}
	if err != nil {
		return &fault.Error{Code: fault.Node, Op: "keep the request", Subject: f.Request, Err: err, Remedy: "Make room there"}
	}
	return nil
}

// ReadRequest returns what [Files.KeepRequest] wrote. Errors are those of package os.
func (f Files) ReadRequest() ([]byte, error) { return file.ReadLimited(f.Request, maxRequest) }

// DropRequest removes the request, which may hold secrets. Errors are those of package os;
// none if there is no request.
func (f Files) DropRequest() error { return ignoreAbsent(os.Remove(f.Request)) }

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// KeepSpec keeps the runtime-spec of the container with secrets hidden. It returns the
// SHA-256 of the whole, "" if there is no spec, or a warning.
func (f Files) KeepSpec() (sum, warning string) {
	data, err := file.ReadLimited(f.Run.Spec(), maxSpec)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ""
	}
	if err != nil {
		return "", "the spec cannot be read: " + err.Error()
	}
	digest := sha256.Sum256(data)
	sum = hex.EncodeToString(digest[:])
	redacted, err := redactSpec(data)
	if err == nil {
		err = f.keep(keptSpec, redacted)
	}
	if err != nil {
		return sum, "the spec cannot be kept: " + err.Error()
	}
	return sum, ""
}

func (f Files) keep(name string, data []byte) error {
	if err := os.MkdirAll(f.Kept, 0o700); err != nil {
		return err
	}
	return file.Replace(filepath.Join(f.Kept, name), data, 0o600, file.Volatile)
}

// plainEnv are variables whose values are useful to see and are never a secret.
var plainEnv = []string{"PATH", "HOME", "HOSTNAME", "TERM", "container", "LANG", "TZ", "PWD", "USER"}

// redactSpec hides the values of environment variables in a runtime-spec: any of them may
// be a secret.
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

// KeepLog brings the output of a run that has ended into the state directory, and returns
// its size in bytes. A reader of the old place goes on there: it stays until
// [Files.DropRun]. Errors are those of the file system.
func (f Files) KeepLog() (size int64, err error) {
	from, to := f.Run.Log(), filepath.Join(f.Kept, keptLog)
	if _, err := os.Stat(to); err == nil {
		return logs.Size(to)
	}
	if _, err := os.Stat(from); err != nil {
		return 0, nil // no container was made
	}
	temp := to + ".new"
	err = os.RemoveAll(temp)
	if err == nil {
		err = os.MkdirAll(temp, 0o700)
	}
	if err == nil {
		err = copyFiles(from, temp)
	}
	if err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil {
		return 0, errors.Join(err, os.RemoveAll(temp))
	}
	return logs.Size(to)
}

// LogBytes returns the size of the kept output.
func (f Files) LogBytes() int64 {
	size, _ := logs.Size(filepath.Join(f.Kept, keptLog))
	return size
}

// copyFiles links the files of a directory into another one, or copies them where the
// directories lie on two file systems.
func copyFiles(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			if err := os.RemoveAll(to); err != nil {
				return err
			}
			return os.CopyFS(to, os.DirFS(from))
		}
	}
	return nil
}

// DropRun removes the run directory when its output is kept elsewhere, or has none.
func (f Files) DropRun() error {
	if log := f.Run.Log(); f.Log() == log {
		if _, err := os.Stat(log); err == nil {
			return nil
		}
	}
	return f.Run.Remove()
}

// DropOutput removes all that a run wrote. Errors are those of the file system.
func (f Files) DropOutput() error { return errors.Join(os.RemoveAll(f.Kept), f.Run.Remove()) }

// Sweep removes the files of runs that an earlier agent was about to remove. keep says
// what a run still needs; a run that is not known needs nothing.
func (s *Store) Sweep(keep func(id string) (request, events, dir bool)) {
	list := func(name string) (ids []string) {
		entries, _ := os.ReadDir(filepath.Join(s.cfg.RunDir, name))
		for _, e := range entries {
			ids = append(ids, e.Name())
		}
		return ids
	}
	for _, name := range list("requests") {
		if request, _, _ := keep(strings.TrimSuffix(name, ".json")); !request {
			_ = os.Remove(filepath.Join(s.cfg.RunDir, "requests", name))
		}
	}
	for _, name := range list("events") {
		if _, events, _ := keep(strings.TrimSuffix(name, ".jsonl")); !events {
			_ = os.Remove(filepath.Join(s.cfg.RunDir, "events", name))
		}
	}
	for _, name := range list("runs") {
		if _, _, dir := keep(name); dir {
			continue
		}
		if err := s.Files(name).Run.Remove(); err != nil {
			s.cfg.Log.WithField("run", name).WithError(err).Warn("cannot remove the run directory")
		}
	}
}

// openKey reads or makes the key that makes hashes of requests: a request with a secret
// must not be guessed from the journal.
func openKey(cfg Config) ([]byte, error) {
	path := filepath.Join(cfg.StateDir, "key")
	if key, err := file.ReadLimited(path, sha256.Size*2); err == nil && len(key) == sha256.Size*2 {
		return key, nil
	}
	random := make([]byte, sha256.Size)
	rand.Read(random) // it never returns an error (crypto/rand)
	key := []byte(hex.EncodeToString(random))
	if err := file.Replace(path, key, 0o600, file.Stable); err != nil && cfg.Persistent {
		return nil, &fault.Error{Code: fault.Node, Op: "write", Subject: path, Err: err,
			Remedy: "Check the directory given with --state"}
	}
	return key, nil
}

// Hash returns a keyed hash of data.
func (s *Store) Hash(data []byte) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write(data)
	return hex.EncodeToString(mac.Sum(nil))
}
