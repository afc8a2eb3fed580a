package agenttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/logs"
)

// DiskRunner is a fake [exec.Runner] whose containers are files, so that they go
// on when the process that started them is killed. A container runs for the time
// that its [Script] says, by the clock on the wall; each start leaves a file in
// effects/ that is never removed, as a flashed chip would.
type DiskRunner struct{ Dir string }

// diskContainer is the content of a container's file.
type diskContainer struct {
	container.Container
	Image string
}

func (r *DiskRunner) path(id, what string) string { return filepath.Join(r.Dir, "containers", id+what) }

func (r *DiskRunner) effect(c container.Container) string {
	return filepath.Join(r.Dir, "effects", c.Run+"."+c.ID)
}

// Effects returns how often each run had its effect on the node.
func (r *DiskRunner) Effects() (map[string]int, error) {
	entries, err := os.ReadDir(filepath.Join(r.Dir, "effects"))
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, e := range entries {
		name := e.Name()
		count[name[:len(name)-65]]++
	}
	return count, nil
}

// Image is there at once.
func (r *DiskRunner) Image(ctx context.Context, pull *oci.Pull, progress func(api.PullProgress)) (container.ImageInfo, error) {
	s, err := ParseScript(pull.Image.Original)
	if err == nil {
		err = sleep(ctx, s.Pull)
	}
	progress(api.PullProgress{Status: "done"})
	return container.ImageInfo{Reference: pull.Image.Original, Digest: "sha256:feed"}, err
}

// Create writes the container's file.
func (r *DiskRunner) Create(_ context.Context, spec container.CreateSpec) (container.Created, error) {
	dirs := []string{filepath.Join(r.Dir, "containers"), filepath.Join(r.Dir, "effects"), filepath.Join(spec.Dir, "control")}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return container.Created{}, err
		}
	}
	return container.Created{}, r.write(spec.ID, "", diskContainer{spec.Container, spec.Image.Reference})
}

func (r *DiskRunner) write(id, what string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// A fixed name, which Delete removes after a kill. file.Replace leaves a random one.
	temp := r.path(id, what) + ".new"
	return errors.Join(os.WriteFile(temp, data, 0o600), os.Rename(temp, r.path(id, what)))
}

// Start has the container's effect, which is possible once.
func (r *DiskRunner) Start(_ context.Context, c container.Container) (int, error) {
	if _, err := os.Stat(r.path(c.ID, "")); err != nil {
		return 0, err
	}
	log, err := logs.OpenWriter(filepath.Join(c.Dir, "log"), 0)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	result := fmt.Sprintf(`{"run":%q}`, c.Run)
	if err := os.WriteFile(filepath.Join(c.Dir, "control", "result.json"), []byte(result), 0o600); err != nil {
		return 0, err
	}
	file, err := os.OpenFile(r.effect(c), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	fmt.Fprintln(log.Stream(logs.Stdout), "the effect of", c.Run)
	return 1, file.Close()
}

// state returns when and how the container ends.
func (r *DiskRunner) state(c container.Container) (started bool, ends time.Time, exit container.Exit, err error) {
	data, err := os.ReadFile(r.path(c.ID, ""))
	if err != nil {
		return false, ends, exit, err
	}
	var known diskContainer
	if err := json.Unmarshal(data, &known); err != nil {
		return false, ends, exit, err
	}
	script, err := ParseScript(known.Image)
	if err != nil {
		return false, ends, exit, err
	}
	info, err := os.Stat(r.effect(c))
	if errors.Is(err, fs.ErrNotExist) {
		return false, ends, exit, nil
	}
	if err != nil {
		return false, ends, exit, err
	}
	ends, exit = info.ModTime().Add(script.Run), script.Exit
	if script.Run < 0 {
		ends = info.ModTime().AddDate(100, 0, 0)
	}
	if killed, err := os.Stat(r.path(c.ID, ".killed")); err == nil && killed.ModTime().Before(ends) {
		ends, exit = killed.ModTime(), container.Exit{Code: 137, Signal: 9}
	}
	exit.ExitedAt, exit.Ran = ends, ends.Sub(info.ModTime())
	return true, ends, exit, nil
}

// Wait returns the exit when its time has come.
func (r *DiskRunner) Wait(ctx context.Context, c container.Container) (container.Exit, error) {
	for {
		started, ends, exit, err := r.state(c)
		if err != nil {
			return exit, err
		}
		if started && !time.Now().Before(ends) {
			return exit, nil
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return exit, err
		}
	}
}

// Signal ends the container, whatever the signal.
func (r *DiskRunner) Signal(_ context.Context, c container.Container, _ syscall.Signal, _ bool) error {
	if _, err := os.Stat(r.path(c.ID, "")); errors.Is(err, fs.ErrNotExist) {
		return nil // it is gone
	}
	file, err := os.OpenFile(r.path(c.ID, ".killed"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	return file.Close()
}

// Delete removes the container's files; its effect stays.
func (r *DiskRunner) Delete(_ context.Context, c container.Container) (container.Leftovers, error) {
	err := os.RemoveAll(filepath.Join(c.Dir, "control"))
	for _, what := range []string{".killed", ".new", ""} { // .new: a killed writer left it
		if rerr := os.Remove(r.path(c.ID, what)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return container.Leftovers{}, err
}

// Existing lists the containers' files.
func (r *DiskRunner) Existing(context.Context) ([]container.Existing, error) {
	files, err := filepath.Glob(filepath.Join(r.Dir, "containers", "*"))
	if err != nil {
		return nil, err
	}
	var found []container.Existing
	for _, file := range files {
		if filepath.Ext(file) != "" {
			continue
		}
		data, err := os.ReadFile(file)
		var known diskContainer
		if err == nil {
			err = json.Unmarshal(data, &known)
		}
		if err != nil {
			return nil, err
		}
		started, ends, exit, err := r.state(known.Container)
		if err != nil {
			return nil, err
		}
		e := container.Existing{Container: known.Container, State: container.StateCreated}
		switch {
		case started && time.Now().Before(ends):
			e.State = container.StateRunning
		case started:
			e.State, e.Exit = container.StateStopped, &exit
		}
		found = append(found, e)
	}
	return found, nil
}

// Stdin returns an error with code conflict: no container on disk has an input.
func (r *DiskRunner) Stdin(_ context.Context, c container.Container) (io.WriteCloser, error) {
	return nil, &fault.Error{Code: fault.Conflict, Op: "write to run", Subject: c.Run, Reason: "a container on disk has no input"}
}

// Resize returns an error with code conflict: no container on disk has a terminal.
func (r *DiskRunner) Resize(_ context.Context, c container.Container, _ api.TerminalSize) error {
	return &fault.Error{Code: fault.Conflict, Op: "resize the terminal of run", Subject: c.Run, Reason: "a container on disk has no terminal"}
}

// Images is empty.
func (r *DiskRunner) Images(context.Context) ([]api.Image, error) { return nil, nil }

// RemoveImage returns an error with code not_found: there are no images.
func (r *DiskRunner) RemoveImage(_ context.Context, ref string) error {
	return &fault.Error{Code: fault.NotFound, Op: "remove image", Subject: ref, Reason: "there is none"}
}
