package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/careen-project/careen/rootfs/file"
)

// Names of the entries of a run's directory. Programs of other versions of careen
// read them: a container outlives the agent that made it.
const (
	specName    = "spec.json"
	controlName = "control"
	claimName   = "critical.json"
	inputsName  = "previous.json"
	beforeName  = "before.json"
	logName     = "log"
	exitName    = "exit.json"
	stdinName   = "stdin"
	stateName   = "libcontainer"
	bundleName  = "bundle"
	rootName    = "root"
)

// outliving are the entries that the agent reads after the container was removed.
var outliving = map[string]bool{logName: true, exitName: true, beforeName: true}

// Dir is a run's directory, an absolute path. This type is the one place that knows
// what is in it:
//
//	spec.json       the runtime-spec of the container (engine)
//	control/        a small tmpfs, the container's /run/careen: result.json, critical
//	critical.json   begin and end of the critical section (agent)
//	previous.json   results of earlier containers, the container's inputs (agent)
//	before.json     what was on the node before the container was made (engine)
//	log/            the output, in the format of package logs (shim)
//	exit.json       how the container ended (shim)
//	stdin           a FIFO, if the container has standard input (engine)
//	bundle/         the bundle of a shim that the agent started (engine)
//	libcontainer/   libcontainer's state (shim)
//	root/           where the image is mounted while its files are read (engine)
//
// Files that the options of a run ask for, such as hosts, lie there too.
type Dir string

func (d Dir) join(name string) string { return filepath.Join(string(d), name) }

// Spec is the file with the runtime-spec, as JSON. It holds secrets.
func (d Dir) Spec() string { return d.join(specName) }

// Control is the directory that the container sees as /run/careen. The container
// writes to it, so its content must not be trusted.
func (d Dir) Control() string { return d.join(controlName) }

// Claim is the file with begin and end of the container's critical section.
func (d Dir) Claim() string { return d.join(claimName) }

// Inputs is the file that the container sees as /run/careen/previous.json.
func (d Dir) Inputs() string { return d.join(inputsName) }

// Before is the file that says what was on the node before the container was made.
func (d Dir) Before() string { return d.join(beforeName) }

// Log is the directory of the output.
func (d Dir) Log() string { return d.join(logName) }

// Stdin is the FIFO that feeds standard input.
func (d Dir) Stdin() string { return d.join(stdinName) }

// Bundle is the bundle of a container whose shim the agent started.
func (d Dir) Bundle() string { return d.join(bundleName) }

// State is libcontainer's directory.
func (d Dir) State() string { return d.join(stateName) }

// Root is where the engine mounts the image before the container exists.
func (d Dir) Root() string { return d.join(rootName) }

// Reset removes the exit record of an earlier container of the run. The engine calls
// it before it makes a container, and no one else needs to: [Dir.ReadExit] ignores the
// record of another container.
func (d Dir) Reset() error {
	if err := os.Remove(d.join(exitName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Clear removes what does not outlive the container. Log, exit record and before.json
// stay. The caller has unmounted everything below d first.
func (d Dir) Clear() error {
	entries, err := d.entries()
	for _, entry := range entries {
		if !outliving[entry.Name()] {
			err = errors.Join(err, os.RemoveAll(d.join(entry.Name())))
		}
	}
	return err
}

// Remove removes the directory of a run whose container is gone. It descends only into
// log/: what is mounted on another directory there stays, and is an error.
func (d Dir) Remove() error {
	if err := os.RemoveAll(d.Log()); err != nil {
		return err
	}
	entries, err := d.entries()
	if err != nil || entries == nil {
		return err
	}
	for _, entry := range entries {
		if err := os.Remove(d.join(entry.Name())); err != nil {
			return fmt.Errorf("the run's directory is not empty: %w", err)
		}
	}
	return os.Remove(string(d))
}

// entries lists the directory; nil where there is none.
func (d Dir) entries() ([]os.DirEntry, error) {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && entries == nil {
		entries = []os.DirEntry{}
	}
	return entries, err
}

// maxExit bounds exit.json in bytes.
const maxExit = 64 << 10

// exitRecord is the JSON of exit.json.
type exitRecord struct {
	// Container is the container's id; older shims leave it out.
	Container string        `json:"container,omitempty"`
	Code      int           `json:"code"`
	Signal    int           `json:"signal,omitempty"`
	OOMKills  uint64        `json:"oom_kills,omitempty"`
	Reboot    string        `json:"reboot,omitempty"`
	ExitedAt  time.Time     `json:"exited_at"`
	Ran       time.Duration `json:"ran"`
	Lost      bool          `json:"lost,omitempty"`
	Leftover  int           `json:"leftover,omitempty"`
}

// ErrLost says that the end of a container is unknown: its shim died before it.
var ErrLost = errors.New("the container's shim ended before it")

// ReadExit returns how the container with the given id ended. The error is
// fs.ErrNotExist while that is not on record, and [ErrLost] where it never will be.
func (d Dir) ReadExit(id string) (Exit, error) {
	data, err := file.ReadLimited(d.join(exitName), maxExit)
	if err != nil {
		return Exit{}, err
	}
	var rec exitRecord
	if err := json.Unmarshal(data, &rec); err != nil {
		return Exit{}, fmt.Errorf("cannot read exit record in %s: %w", d, err)
	}
	if rec.Container != "" && rec.Container != id {
		return Exit{}, fmt.Errorf("the exit record in %s belongs to container %s: %w", d, rec.Container, fs.ErrNotExist)
	}
	exit := Exit{
		Code: rec.Code, Signal: rec.Signal, OOMKilled: rec.OOMKills > 0, Reboot: rec.Reboot,
		ExitedAt: rec.ExitedAt, Ran: rec.Ran, Killed: rec.Leftover,
	}
	if rec.Lost {
		return exit, ErrLost
	}
	return exit, nil
}

// WriteExit puts the exit of container id on record: durably, and whole or not at all.
// An end that is on record already stays. lost says that the end is unknown.
func (d Dir) WriteExit(id string, exit Exit, lost bool) error {
	if _, err := d.ReadExit(id); err == nil || errors.Is(err, ErrLost) {
		return nil
	}
	rec := exitRecord{
		Container: id, Code: exit.Code, Signal: exit.Signal, Reboot: exit.Reboot,
		ExitedAt: exit.ExitedAt, Ran: exit.Ran, Lost: lost, Leftover: exit.Killed,
	}
	if exit.OOMKilled {
		rec.OOMKills = 1
	}
	data, err := json.Marshal(rec)
	if err == nil {
		err = file.Replace(d.join(exitName), data, 0o600, file.Stable)
	}
	if err != nil {
		return fmt.Errorf("cannot write exit record: %w", err)
	}
	return nil
}
