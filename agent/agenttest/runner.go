package agenttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/logs"
)

// Runner is a fake [exec.Runner] in memory. Its containers do what a
// [Script] says.
type Runner struct {
	// Script returns what an image does; nil is [ParseScript] of the image's name.
	Script func(image string) (Script, error)

	mu         sync.Mutex
	containers map[string]*Container
	images     []api.Image
	trace      []string
	broken     error
	patience   time.Duration
}

// Container is a container of a [Runner].
type Container struct {
	container.CreateSpec
	Script Script

	state  container.State
	starts int
	exited chan struct{}
	exit   container.Exit
	began  time.Time
	input  *io.PipeReader
	feeder *io.PipeWriter
	size   api.TerminalSize
	unseen bool
	log    *logs.Writer
}

// NewRunner returns a runner with no containers.
func NewRunner() *Runner { return &Runner{containers: map[string]*Container{}} }

func (r *Runner) note(format string, args ...any) {
	r.trace = append(r.trace, fmt.Sprintf(format, args...))
}

// Trace returns the calls that changed something, in order.
func (r *Runner) Trace() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.trace)
}

// Break makes Wait and Existing fail with err, as a containerd that is away does;
// nil mends them.
func (r *Runner) Break(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = err
}

// Patience is for how long the last call of Delete that could not remove a container
// would have had to wait for it.
func (r *Runner) Patience() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.patience
}

// Container returns the container of a run, or nil.
func (r *Runner) Container(run string) *Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.CreateSpec.Container.Run == run {
			return c
		}
	}
	return nil
}

// End ends the container of a run as exit says, as if it did so itself.
func (r *Runner) End(run string, exit container.Exit) {
	c := r.Container(run)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.end(exit)
}

// Forget makes the exit of a run's container unknown, as when its shim is killed.
func (r *Runner) Forget(run string) {
	c := r.Container(run)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.unseen = true
	c.end(container.Exit{})
}

// Size returns the size of the terminal of a run's container.
func (r *Runner) Size(run string) api.TerminalSize {
	c := r.Container(run)
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.size
}

// Write writes to a file of the control directory of a run's container.
func (r *Runner) Write(run, name, content string) error {
	dir := filepath.Join(r.Container(run).Dir, "control")
	return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
}

// Remove removes a file of the control directory of a run's container.
func (r *Runner) Remove(run, name string) error {
	return os.Remove(filepath.Join(r.Container(run).Dir, "control", name))
}

func (r *Runner) script(image string) (Script, error) {
	if r.Script != nil {
		return r.Script(image)
	}
	return ParseScript(image)
}

// Image takes as long as the script says.
func (r *Runner) Image(ctx context.Context, pull *oci.Pull, progress func(api.PullProgress)) (container.ImageInfo, error) {
	image := pull.Image.Original
	s, err := r.script(image)
	if err != nil {
		return container.ImageInfo{}, err
	}
	busy := container.Busy(ctx)
	r.mu.Lock()
	r.note("pull %s", image)
	if busy != nil && busy() {
		r.note("background pull limited by a run")
	}
	r.mu.Unlock()
	progress(api.PullProgress{Status: "resolving"})
	const pieces = 4
	for i := range pieces {
		if err := sleep(ctx, s.Pull/pieces); err != nil {
			return container.ImageInfo{}, err
		}
		if !s.PullSilent {
			progress(api.PullProgress{Status: "downloading", Done: int64(i+1) * 25, Total: 100})
		}
	}
	if s.PullErr != "" {
		return container.ImageInfo{}, &fault.Error{Code: s.PullErr, Op: "pull image", Subject: image, Reason: "the script says so"}
	}
	progress(api.PullProgress{Status: "done", Done: 100, Total: 100})
	return container.ImageInfo{Reference: image, Digest: "sha256:feed", ID: "sha256:beef", Pulled: true}, nil
}

// Create makes a container as the script says.
func (r *Runner) Create(ctx context.Context, spec container.CreateSpec) (container.Created, error) {
	s, err := r.script(spec.Image.Reference)
	if err == nil {
		err = sleep(ctx, s.Create)
	}
	if err != nil {
		return container.Created{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("create %s", spec.Container.Run)
	if s.CreateErr != "" {
		return container.Created{}, &fault.Error{Code: s.CreateErr, Op: "create container", Subject: spec.Container.Run, Reason: "the script says so"}
	}
	if err := r.materialise(spec, s); err != nil {
		return container.Created{}, err
	}
	created := container.Created{Timeout: s.ProcessTimeout, Warnings: s.Warnings}
	if s.Grace > 0 {
		created.StopTimeout = &s.Grace
	}
	return created, nil
}

// materialise makes the container's files. The lock is held.
func (r *Runner) materialise(spec container.CreateSpec, s Script) error {
	c := &Container{CreateSpec: spec, Script: s, state: container.StateCreated, exited: make(chan struct{})}
	c.input, c.feeder = io.Pipe()
	if err := os.MkdirAll(filepath.Join(spec.Dir, "control"), 0o700); err != nil {
		return err
	}
	text := `{"process":{"args":["tool"],"env":["PATH=/bin","PASSWORD=hunter2"]},"ociVersion":"1.3.0"}`
	if err := os.WriteFile(filepath.Join(spec.Dir, "spec.json"), []byte(text), 0o600); err != nil {
		return err
	}
	log, err := logs.OpenWriter(filepath.Join(spec.Dir, "log"), spec.LogLimit)
	if err != nil {
		return err
	}
	c.log = log
	r.containers[spec.Container.ID] = c
	return nil
}

// Start lets the container do what its script says.
func (r *Runner) Start(_ context.Context, k container.Container) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.containers[k.ID]
	if !ok {
		return 0, errors.New("no such container")
	}
	if c.state != container.StateCreated {
		return 0, errors.New("the container was started before")
	}
	r.note("start %s", k.Run)
	if c.Script.StartErr != "" {
		return 0, &fault.Error{Code: c.Script.StartErr, Op: "start", Subject: k.Run, Reason: "the script says so"}
	}
	c.starts++
	c.state, c.began = container.StateRunning, time.Now()
	out := c.log.Stream(logs.Stdout)
	for _, line := range c.Script.Output {
		fmt.Fprintln(out, line)
	}
	for name, content := range map[string]string{"result.json": c.Script.Result, "critical": c.Script.Critical} {
		if content != "" {
			if err := os.WriteFile(filepath.Join(k.Dir, "control", name), []byte(content), 0o600); err != nil {
				return 0, err
			}
		}
	}
	if c.Script.Run >= 0 {
		time.AfterFunc(c.Script.Run, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			c.end(c.Script.Exit)
		})
	}
	return 4242, nil
}

// Println writes a line of output of a run's container.
func (r *Runner) Println(run, line string) {
	c := r.Container(run)
	fmt.Fprintln(c.log.Stream(logs.Stdout), line)
}

// end ends the container once. The lock is held.
func (c *Container) end(exit container.Exit) {
	if c.state == container.StateStopped {
		return
	}
	c.state = container.StateStopped
	exit.ExitedAt = time.Now()
	exit.Ran = time.Since(c.began)
	c.exit = exit
	c.log.Close()
	c.input.Close()
	close(c.exited)
}

// Wait returns the exit.
func (r *Runner) Wait(ctx context.Context, k container.Container) (container.Exit, error) {
	r.mu.Lock()
	c, ok := r.containers[k.ID]
	broken := r.broken
	r.mu.Unlock()
	if broken != nil {
		return container.Exit{}, broken
	}
	if !ok {
		return container.Exit{}, errors.New("no such container")
	}
	select {
	case <-c.exited:
		if c.unseen {
			return container.Exit{}, errors.New("the exit is unknown")
		}
		return c.exit, nil
	case <-ctx.Done():
		return container.Exit{}, ctx.Err()
	}
}

// Signal does what the script says to SIGTERM and SIGKILL.
func (r *Runner) Signal(_ context.Context, k container.Container, sig syscall.Signal, all bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("signal %s %d all=%v", k.Run, int(sig), all)
	c, ok := r.containers[k.ID]
	if !ok {
		return nil // it has ended
	}
	act := c.Script.Term
	if sig == syscall.SIGKILL {
		act = c.Script.Kill
	}
	if act.Ignore {
		return nil
	}
	time.AfterFunc(act.After, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		exit := container.Exit{Code: 128 + int(sig), Signal: int(sig)}
		if act.Code >= 0 {
			exit = container.Exit{Code: act.Code}
		}
		c.end(exit)
	})
	return nil
}

// Delete removes the container, killing it if it has to.
func (r *Runner) Delete(ctx context.Context, k container.Container) (container.Leftovers, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("delete %s", k.Run)
	c, ok := r.containers[k.ID]
	if !ok {
		return container.Leftovers{}, nil
	}
	if c.Script.Kill.Ignore && c.state == container.StateRunning {
		if end, ok := ctx.Deadline(); ok {
			r.patience = time.Until(end)
		}
		return container.Leftovers{}, errors.New("the container is still there")
	}
	if c.state == container.StateCreated {
		c.began = time.Now()
	}
	c.end(container.Exit{Code: 137, Signal: 9})
	delete(r.containers, k.ID)
	err := errors.Join(os.RemoveAll(filepath.Join(k.Dir, "control")), os.RemoveAll(filepath.Join(k.Dir, "spec.json")))
	return container.Leftovers{Left: c.Script.Leftovers}, err
}

// Existing lists the containers.
func (r *Runner) Existing(context.Context) ([]container.Existing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return nil, r.broken
	}
	var found []container.Existing
	for _, c := range r.containers {
		e := container.Existing{Container: c.CreateSpec.Container, State: c.state, Pid: 4242}
		if c.state == container.StateStopped && !c.unseen {
			e.Exit = &c.exit
		}
		found = append(found, e)
	}
	return found, nil
}

// Stdin returns the container's standard input; what is written becomes output.
func (r *Runner) Stdin(_ context.Context, k container.Container) (io.WriteCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.containers[k.ID]
	if !ok || !c.CreateSpec.Stdin || c.state == container.StateStopped {
		return nil, &fault.Error{Code: fault.Conflict, Op: "write to run", Subject: k.Run, Reason: "its input is not open"}
	}
	out := c.log.Stream(logs.Stdout)
	go func() {
		_, _ = io.Copy(out, c.input)
		if c.Script.EndWithInput {
			r.End(k.Run, container.Exit{})
		}
	}()
	return c.feeder, nil
}

// Resize keeps the size.
func (r *Runner) Resize(_ context.Context, k container.Container, size api.TerminalSize) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.containers[k.ID]
	if !ok || c.state == container.StateStopped {
		return &fault.Error{Code: fault.Conflict, Op: "resize the terminal of run", Subject: k.Run, Reason: "its container has ended"}
	}
	c.size = size
	return nil
}

// AddImage makes an image present.
func (r *Runner) AddImage(image api.Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images = append(r.images, image)
}

// Images lists the images.
func (r *Runner) Images(context.Context) ([]api.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.images), nil
}

// RemoveImage removes one.
func (r *Runner) RemoveImage(_ context.Context, ref string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.images, func(image api.Image) bool { return image.Name == ref })
	if i < 0 {
		return &fault.Error{Code: fault.NotFound, Op: "remove image", Subject: ref, Reason: "there is none"}
	}
	r.images = slices.Delete(r.images, i, i+1)
	return nil
}

// sleep waits for d or ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
