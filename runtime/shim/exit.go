package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Exit is how a container ended, as the shim saw it. It is on record in the
// run's directory before containerd hears of the end, so that an agent that was
// away finds it.
type Exit struct {
	// Code is the exit code, or 128+n for signal n.
	Code int `json:"code"`
	// Signal is the signal that ended the init process, or 0.
	Signal int `json:"signal,omitempty"`
	// OOMKills counts processes of the container that the kernel killed for the
	// container's memory limit.
	OOMKills uint64 `json:"oom_kills,omitempty"`
	// Reboot is "restart" or "halt" when the container called reboot(2) in its own
	// PID namespace: the kernel then ends the init with SIGHUP or SIGINT, which
	// nothing else inside can do to it (pid_namespaces(7)).
	Reboot string `json:"reboot,omitempty"`
	// ExitedAt is the wall clock at the end, Ran the time from start to end on
	// the monotonic clock, in nanoseconds.
	ExitedAt time.Time     `json:"exited_at"`
	Ran      time.Duration `json:"ran"`
	// Lost says that the shim died first and nobody saw the end.
	Lost bool `json:"lost,omitempty"`
	// Leftover counts processes that outlived the init and were killed.
	Leftover int `json:"leftover,omitempty"`
}

// ReadExit reads the exit record of a run. A missing one is fs.ErrNotExist.
func ReadExit(runDir string) (Exit, error) {
	var exit Exit
	data, err := os.ReadFile(Target{Dir: runDir}.exitPath())
	if err != nil {
		return exit, err
	}
	if err := json.Unmarshal(data, &exit); err != nil {
		return exit, fmt.Errorf("cannot read exit record of %s: %w", runDir, err)
	}
	return exit, nil
}

// writeExit puts the record in place atomically. The first record stands: a
// clean-up that runs after the shim's own record must not blur it.
func (t Target) writeExit(exit Exit) error {
	if _, err := os.Stat(t.exitPath()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(t.Dir, ".exit-*")
	if err != nil {
		return fmt.Errorf("cannot write exit record: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("cannot write exit record: %w", err)
	}
	if err := os.Rename(tmp.Name(), t.exitPath()); err != nil {
		return fmt.Errorf("cannot write exit record: %w", err)
	}
	return syncDir(filepath.Dir(t.exitPath()))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
