package exec

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/runtime/container"
)

// inputs are the open standard inputs, by container.
type inputs struct {
	mu   sync.Mutex
	open map[string]io.WriteCloser
}

// get returns a container's standard input, opened once for all requests: to close it is
// to end the input.
func (in *inputs) get(id string, open func() (io.WriteCloser, error)) (io.Writer, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if w, ok := in.open[id]; ok {
		return w, nil
	}
	w, err := open()
	if err != nil {
		return nil, err
	}
	if in.open == nil {
		in.open = map[string]io.WriteCloser{}
	}
	in.open[id] = w
	return w, nil
}

func (in *inputs) close(id string) error {
	in.mu.Lock()
	w, ok := in.open[id]
	delete(in.open, id)
	in.mu.Unlock()
	if !ok {
		return nil
	}
	return w.Close()
}

// Input is the standard input of one container.
type Input struct {
	io.Writer
	x    *Executor
	id   string
	done <-chan struct{}
}

// Close ends the input. It also ends a write that waits for the container.
func (in *Input) Close() error { return in.x.inputs.close(in.id) }

// Done is closed when the run has ended.
func (in *Input) Done() <-chan struct{} { return in.done }

// Input opens the standard input of a run's container. The error has code not_found,
// conflict when none runs, or a code of the Runner.
func (x *Executor) Input(id string) (*Input, error) {
	c, err := x.running(id, "write to run")
	if err != nil {
		return nil, err
	}
	_, _, l, err := x.find(id)
	if err != nil {
		return nil, err
	}
	w, err := x.inputs.get(c.ID, func() (io.WriteCloser, error) { return x.cfg.Runner.Stdin(x.ctx, c) })
	if err != nil {
		return nil, err
	}
	return &Input{Writer: w, x: x, id: c.ID, done: l.done}, nil
}

// Resize sets the size of the terminal of a run's container. The error has code not_found,
// conflict when none runs, or a code of the Runner.
func (x *Executor) Resize(ctx context.Context, id string, size api.TerminalSize) error {
	c, err := x.running(id, "resize the terminal of run")
	if err != nil {
		return err
	}
	return x.cfg.Runner.Resize(ctx, c, size)
}

// running returns the container of a run that is at work.
func (x *Executor) running(id, op string) (container.Container, error) {
	r := x.state.Load().Find(id)
	if r == nil {
		return container.Container{}, machine.NotFound(id)
	}
	if s := r.Run.State; s != machine.Running && s != machine.Stopping || !r.Starting {
		return container.Container{}, &fault.Error{Code: fault.Conflict, Op: op, Subject: id, Reason: fmt.Sprintf("it is %s", s),
			Attrs: map[string]any{"state": string(s)}}
	}
	return x.container(container.Container{Run: id, ID: r.ContainerID}), nil
}
