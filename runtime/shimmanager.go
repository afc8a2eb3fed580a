package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/shim"
)

// prestartAge is how long a prestarted shim waits for its container. Where the image
// takes longer than that, the start of a shim does not matter.
const prestartAge = 5 * time.Second

// shimManager starts shims from this process and finds those of earlier agents. A
// container's id names its shim's socket, so no other record is needed.
type shimManager struct {
	binary, sockets string

	mu         sync.Mutex
	known      map[string]*shim.Remote
	prestarted *starting
	closed     bool
}

// starting is a shim that is starting, or has started, for the next container.
type starting struct {
	ready chan struct{}
	shim  *shim.Remote
	err   error
}

func newShimManager(binary, sockets string) *shimManager {
	return &shimManager{binary: binary, sockets: sockets, known: map[string]*shim.Remote{}}
}

func (s *shimManager) prestart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.prestarted != nil && s.prestarted.fresh() {
		return
	}
	if old := s.prestarted; old != nil {
		go old.discard()
	}
	p := s.spawn()
	s.prestarted = p
	time.AfterFunc(prestartAge, func() { s.drop(p) })
}

// drop ends a prestarted shim that was not used.
func (s *shimManager) drop(p *starting) {
	s.mu.Lock()
	unused := s.prestarted == p
	if unused {
		s.prestarted = nil
	}
	s.mu.Unlock()
	if unused {
		p.discard()
	}
}

func (s *shimManager) spawn() *starting {
	p := &starting{ready: make(chan struct{})}
	go func() {
		defer close(p.ready)
		p.shim, p.err = shim.Spawn(s.binary, Namespace, s.sockets)
	}()
	return p
}

// fresh reports whether the shim is there, or is coming.
func (p *starting) fresh() bool {
	select {
	case <-p.ready:
		return p.err == nil && p.shim.Alive()
	default:
		return true
	}
}

func (p *starting) discard() {
	<-p.ready
	if p.err == nil {
		_ = p.shim.Close()
	}
}

// take returns a shim for a container, the one that waits if there is one.
func (s *shimManager) take() (*shim.Remote, error) {
	s.mu.Lock()
	p := s.prestarted
	s.prestarted = nil
	s.mu.Unlock()
	if p == nil {
		p = s.spawn()
	}
	<-p.ready
	if p.err == nil && !p.fresh() {
		p.discard()
		p = s.spawn()
		<-p.ready
	}
	return p.shim, p.err
}

func (s *shimManager) create(ctx context.Context, c newTask) (_ int, err error) {
	bundle := c.target.Dir.Bundle()
	if err := os.MkdirAll(bundle, 0o711); err != nil {
		return 0, err
	}
	data, err := json.Marshal(c.spec)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600); err != nil {
		return 0, err
	}
	remote, err := s.take()
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			if ctx.Err() != nil { // it hangs: it would never end by itself
				err = errors.Join(err, shim.KillShim(remote.Pid()))
			}
			_ = remote.Close()
		}
	}()
	if err := remote.Name(c.id); err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.known[c.id] = remote
	s.mu.Unlock()
	request := &taskapi.CreateTaskRequest{
		ID: c.id, Bundle: bundle, Stdout: c.target.String(), Terminal: c.spec.Process.Terminal,
	}
	for _, m := range c.mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	answer, err := remote.Task.Create(ctx, request)
	if err != nil {
		return 0, native(err)
	}
	return int(answer.Pid), nil
}

// native makes an error of errdefs of one that came over the connection. A
// connection that broke is a shim that is not there.
func native(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ttrpc.ErrClosed) {
		return fmt.Errorf("its shim has ended: %w", errdefs.ErrNotFound)
	}
	return errgrpc.ToNative(err)
}

// remote returns the shim of a container, also after the agent was restarted.
func (s *shimManager) remote(id string) (*shim.Remote, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.known[id]; r != nil && r.Alive() {
		return r, nil
	}
	r, err := shim.Dial(s.sockets, id)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("container %s has no shim: %w", id, errdefs.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("cannot reach the shim of container %s: %w", id, err)
	}
	s.known[id] = r
	return r, nil
}

func (s *shimManager) start(ctx context.Context, id string) (int, error) {
	r, err := s.remote(id)
	if err != nil {
		return 0, err
	}
	answer, err := r.Task.Start(ctx, &taskapi.StartRequest{ID: id})
	if err != nil {
		return 0, native(err)
	}
	return int(answer.Pid), nil
}

func (s *shimManager) wait(ctx context.Context, id, dir string) error {
	r, err := s.remote(id)
	if err == nil {
		if _, err = r.Task.Wait(ctx, &taskapi.WaitRequest{ID: id}); err != nil {
			err = native(err)
		}
	}
	if errdefs.IsNotFound(err) && ctx.Err() == nil {
		err = errors.Join(err, s.reap(ctx, id, dir))
	}
	return err
}

// reap removes what a shim that died has left, and puts on record that its container's
// end is unknown if the shim did not record the end.
func (s *shimManager) reap(ctx context.Context, id, dir string) error {
	if dir == "" {
		return nil
	}
	if r, err := s.remote(id); err == nil {
		// The shim has no container: an agent was killed before it could ask for one, or
		// after it deleted it.
		return r.End(ctx, id)
	}
	err := shim.RemoveDeadSocket(shim.SocketPath(s.sockets, id))
	if _, serr := os.Stat(container.Dir(dir).Bundle()); errors.Is(serr, fs.ErrNotExist) {
		return err
	}
	_, cerr := shim.CleanUp(container.Dir(dir).Bundle(), id)
	return errors.Join(err, cerr)
}

func (s *shimManager) kill(ctx context.Context, id, _ string, sig syscall.Signal, all bool) error {
	r, err := s.remote(id)
	if err != nil {
		return err
	}
	_, err = r.Task.Kill(ctx, &taskapi.KillRequest{ID: id, Signal: uint32(sig), All: all})
	return native(err)
}

func (s *shimManager) resize(ctx context.Context, id string, columns, rows uint16) error {
	r, err := s.remote(id)
	if err != nil {
		return err
	}
	_, err = r.Task.ResizePty(ctx, &taskapi.ResizePtyRequest{ID: id, Width: uint32(columns), Height: uint32(rows)})
	return native(err)
}

func (s *shimManager) closeStdin(ctx context.Context, id string) error {
	r, err := s.remote(id)
	if err != nil {
		return err
	}
	_, err = r.Task.CloseIO(ctx, &taskapi.CloseIORequest{ID: id, Stdin: true})
	return native(err)
}

func (s *shimManager) state(ctx context.Context, id, dir string) (container.State, int, error) {
	r, err := s.remote(id)
	if err != nil {
		return "", 0, errors.Join(err, s.reap(ctx, id, dir))
	}
	state, err := r.Task.State(ctx, &taskapi.StateRequest{ID: id})
	if err != nil {
		return "", 0, native(err)
	}
	switch state.Status {
	case tasktypes.Status_RUNNING, tasktypes.Status_PAUSED:
		return container.StateRunning, int(state.Pid), nil
	case tasktypes.Status_CREATED:
		return container.StateCreated, int(state.Pid), nil
	default:
		return container.StateStopped, int(state.Pid), nil
	}
}

func (s *shimManager) remove(ctx context.Context, id, dir string) error {
	r, err := s.remote(id)
	if err == nil {
		err = s.end(ctx, r, id)
	}
	if errdefs.IsNotFound(err) {
		err = s.reap(ctx, id, dir)
	}
	s.mu.Lock()
	delete(s.known, id)
	s.mu.Unlock()
	return err
}

// end kills a container, removes it, and ends its shim.
func (s *shimManager) end(ctx context.Context, r *shim.Remote, id string) error {
	_, err := r.Task.Delete(ctx, &taskapi.DeleteRequest{ID: id})
	if err = native(err); errdefs.IsFailedPrecondition(err) {
		// It runs.
		if err := s.kill(ctx, id, "", unix.SIGKILL, true); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if _, err := r.Task.Wait(ctx, &taskapi.WaitRequest{ID: id}); err != nil {
			return native(err)
		}
		_, err = r.Task.Delete(ctx, &taskapi.DeleteRequest{ID: id})
		err = native(err)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if eerr := r.End(ctx, id); eerr != nil {
		return eerr
	}
	return err
}

func (s *shimManager) shimPid(id string) int {
	if r, err := s.remote(id); err == nil {
		return r.Pid()
	}
	return 0
}

func (s *shimManager) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.prestarted != nil {
		s.prestarted.discard()
	}
	var errs []error
	for _, r := range s.known {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}
