package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	apitypes "github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// service is containerd's task service for one container.
type service struct {
	id     string
	reaper *reaper
	events *publisher
	stop   context.CancelFunc

	mu      sync.Mutex
	ctr     *task
	deleted bool
	// orphaned says that the agent that started this shim is gone.
	orphaned bool
}

func newService(id string, r *reaper, events *publisher, stop context.CancelFunc) *service {
	return &service{id: id, reaper: r, events: events, stop: stop}
}

// Create makes the container; its init waits for Start.
func (s *service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == "" && s.ctr == nil {
		s.id = r.ID
	}
	if r.ID != s.id || s.ctr != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("this shim keeps container %s only: %w", s.id, errdefs.ErrAlreadyExists))
	}
	if r.Checkpoint != "" {
		return nil, notImplemented("restoring from a checkpoint")
	}
	ctr, err := newTask(createRequest{
		id: r.ID, bundle: r.Bundle, stdout: r.Stdout, terminal: r.Terminal, rootfs: mountsFrom(r.Rootfs),
	}, s.reaper)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	s.ctr = ctr
	s.events.send(ctx, runtime.TaskCreateEventTopic, &eventapi.TaskCreate{
		ContainerID: r.ID, Bundle: r.Bundle, Rootfs: r.Rootfs, Pid: uint32(ctr.pid),
		IO: &eventapi.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
	go func() {
		<-ctr.done
		s.events.exited(context.WithoutCancel(ctx), ctr.id, ctr.pid, *ctr.exit)
	}()
	return &taskapi.CreateTaskResponse{Pid: uint32(ctr.pid)}, nil
}

func mountsFrom(mounts []*apitypes.Mount) []mount.Mount {
	var out []mount.Mount
	for _, m := range mounts {
		out = append(out, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return out
}

// Start runs the container's command.
func (s *service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	ctr, err := s.task(r.ExecID)
	if err != nil {
		return nil, err
	}
	if err := ctr.start(); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	settle()
	s.events.send(ctx, runtime.TaskStartEventTopic, &eventapi.TaskStart{ContainerID: ctr.id, Pid: uint32(ctr.pid)})
	return &taskapi.StartResponse{Pid: uint32(ctr.pid)}, nil
}

// settleTime is how long a container runs before the shim trims its memory.
const settleTime = time.Second

// settle reduces the shim's memory after settleTime: it lives as long as its container, and
// the node's memory is scarce.
func settle() {
	time.AfterFunc(settleTime, func() {
		debug.SetGCPercent(40)
		debug.FreeOSMemory()
	})
}

// Wait returns when the container has ended and its output is on record.
func (s *service) Wait(ctx context.Context, r *taskapi.WaitRequest) (*taskapi.WaitResponse, error) {
	ctr, err := s.task(r.ExecID)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctr.done:
		return &taskapi.WaitResponse{ExitStatus: uint32(ctr.exit.Code), ExitedAt: timestamppb.New(ctr.exit.ExitedAt)}, nil
	case <-ctx.Done():
		return nil, errgrpc.ToGRPC(ctx.Err())
	}
}

// State reports the container's status.
func (s *service) State(_ context.Context, r *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	ctr, err := s.task(r.ExecID)
	if err != nil {
		return nil, err
	}
	ctr.mu.Lock()
	defer ctr.mu.Unlock()
	state := &taskapi.StateResponse{
		ID: ctr.id, Bundle: ctr.bundle, Pid: uint32(ctr.pid), Stdout: ctr.target.String(),
		Terminal: ctr.io.terminal != nil, Status: tasktypes.Status_CREATED,
	}
	switch {
	case ctr.exit != nil:
		state.Status = tasktypes.Status_STOPPED
		state.ExitStatus = uint32(ctr.exit.Code)
		state.ExitedAt = timestamppb.New(ctr.exit.ExitedAt)
	case !ctr.started.IsZero():
		state.Status = tasktypes.Status_RUNNING
	}
	return state, nil
}

// Kill sends a signal.
func (s *service) Kill(_ context.Context, r *taskapi.KillRequest) (*emptypb.Empty, error) {
	ctr, err := s.task(r.ExecID)
	if err == nil {
		err = errgrpc.ToGRPC(ctr.kill(syscall.Signal(r.Signal), r.All))
	}
	return &emptypb.Empty{}, err
}

// Delete removes the container. The shim itself goes with Shutdown.
func (s *service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	ctr, err := s.task(r.ExecID)
	if err != nil {
		return nil, err
	}
	exit, err := ctr.delete()
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	s.mu.Lock()
	s.deleted = true
	orphaned := s.orphaned
	s.mu.Unlock()
	if orphaned {
		// Its caller may be killed before it asks for the end.
		time.AfterFunc(idleLimit, s.endIdle)
	}
	s.events.send(ctx, runtime.TaskDeleteEventTopic, &eventapi.TaskDelete{
		ContainerID: ctr.id, Pid: uint32(ctr.pid), ExitStatus: uint32(exit.Code), ExitedAt: timestamppb.New(exit.ExitedAt),
	})
	return &taskapi.DeleteResponse{
		Pid: uint32(ctr.pid), ExitStatus: uint32(exit.Code), ExitedAt: timestamppb.New(exit.ExitedAt),
	}, nil
}

// Shutdown ends the shim, unless it still keeps a container.
func (s *service) Shutdown(context.Context, *taskapi.ShutdownRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctr == nil || s.deleted {
		s.stop()
	}
	return &emptypb.Empty{}, nil
}

// endIdle ends a shim without a container: one that was never asked for any, or whose
// container was deleted by an agent that was killed before it ended the shim.
func (s *service) endIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctr == nil || s.deleted {
		s.stop()
	}
}

// endWith ends a shim without a container when its agent ends.
func (s *service) endWith(lifeline *os.File) {
	_, _ = lifeline.Read(make([]byte, 1))
	_ = lifeline.Close()
	s.mu.Lock()
	s.orphaned = true
	s.mu.Unlock()
	s.endIdle()
}

// socket returns where the agent has moved the socket to, for the container that
// it named later.
func (s *service) socket(address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == "" {
		return address
	}
	return "unix://" + SocketPath(filepath.Dir(strings.TrimPrefix(address, "unix://")), s.id)
}

// Connect returns the process ids of shim and container.
func (s *service) Connect(context.Context, *taskapi.ConnectRequest) (*taskapi.ConnectResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if s.ctr != nil {
		out.TaskPid = uint32(s.ctr.pid)
	}
	return out, nil
}

// Pids lists the container's processes by their numbers on the node.
func (s *service) Pids(context.Context, *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	ctr, err := s.task("")
	if err != nil {
		return nil, err
	}
	pids, err := ctr.ctr.Processes()
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	out := &taskapi.PidsResponse{}
	for _, pid := range pids {
		out.Processes = append(out.Processes, &tasktypes.ProcessInfo{Pid: uint32(pid)})
	}
	return out, nil
}

// Pause freezes the container's cgroup.
func (s *service) Pause(context.Context, *taskapi.PauseRequest) (*emptypb.Empty, error) {
	ctr, err := s.task("")
	if err == nil {
		err = errgrpc.ToGRPC(ctr.ctr.Pause())
	}
	return &emptypb.Empty{}, err
}

// Resume thaws it.
func (s *service) Resume(context.Context, *taskapi.ResumeRequest) (*emptypb.Empty, error) {
	ctr, err := s.task("")
	if err == nil {
		err = errgrpc.ToGRPC(ctr.ctr.Resume())
	}
	return &emptypb.Empty{}, err
}

// ResizePty sets the terminal's size, in characters.
func (s *service) ResizePty(_ context.Context, r *taskapi.ResizePtyRequest) (*emptypb.Empty, error) {
	ctr, err := s.task(r.ExecID)
	if err == nil {
		err = errgrpc.ToGRPC(ctr.io.resize(uint16(r.Width), uint16(r.Height)))
	}
	return &emptypb.Empty{}, err
}

// CloseIO ends the container's standard input.
func (s *service) CloseIO(_ context.Context, r *taskapi.CloseIORequest) (*emptypb.Empty, error) {
	ctr, err := s.task(r.ExecID)
	if err == nil && r.Stdin {
		err = errgrpc.ToGRPC(ctr.io.closeInput())
	}
	return &emptypb.Empty{}, err
}

// Exec is refused: a step is one command.
func (s *service) Exec(context.Context, *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	return nil, notImplemented("running a second command in a container")
}

// Checkpoint is refused.
func (s *service) Checkpoint(context.Context, *taskapi.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, notImplemented("checkpoints")
}

// Update is refused: a step keeps the limits that it was started with.
func (s *service) Update(context.Context, *taskapi.UpdateTaskRequest) (*emptypb.Empty, error) {
	return nil, notImplemented("changing limits")
}

// Stats is refused: careen reads the cgroup itself.
func (s *service) Stats(context.Context, *taskapi.StatsRequest) (*taskapi.StatsResponse, error) {
	return nil, notImplemented("statistics")
}

func notImplemented(what string) error {
	return errgrpc.ToGRPC(fmt.Errorf("%s is not supported by %s: %w", what, Name, errdefs.ErrNotImplemented))
}

// task returns the container if there is one and no exec is meant.
func (s *service) task(execID string) (*task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if execID != "" || s.ctr == nil || s.deleted {
		return nil, errgrpc.ToGRPC(fmt.Errorf("no such process in %s: %w", s.id, errdefs.ErrNotFound))
	}
	return s.ctr, nil
}
