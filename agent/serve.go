package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
)

var (
	_ httpd.Agent  = (*Agent)(nil)
	_ httpd.Images = (*Agent)(nil)
)

// newServer makes the HTTP API over a.
func (a *Agent) newServer() *httpd.Server {
	return httpd.New(httpd.Config{
		Agent: a, Images: a, Policy: a.cfg.Resolver, Version: a.cfg.Version, AllowedUIDs: a.cfg.AllowedUIDs,
		Started: a.started, Gauges: a.cfg.Gauges, NodeState: a.cfg.NodeState, Log: a.cfg.Log,
	})
}

// Serve answers on ln until ctx ends; see [httpd.Server.Serve].
func (a *Agent) Serve(ctx context.Context, ln net.Listener) error { return a.server.Serve(ctx, ln) }

// Handler returns the API without a socket; see [httpd.Server.Handler].
func (a *Agent) Handler() http.Handler { return a.server.Handler() }

// Images lists the images in the store.
func (a *Agent) Images(ctx context.Context) ([]api.Image, error) { return a.cfg.Runner.Images(ctx) }

// RemoveImage removes an image from the store.
func (a *Agent) RemoveImage(ctx context.Context, ref string) error {
	return a.cfg.Runner.RemoveImage(ctx, ref)
}

// Audit writes the audit record, the oldest line first.
func (a *Agent) Audit(w io.Writer) error { return a.audit.copyTo(w) }

// Spec returns the runtime-spec of a run's container, without the values of its
// environment.
func (a *Agent) Spec(id string) ([]byte, error) {
	if _, err := a.Run(id); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(a.cfg.keptDir(id), specName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &fault.Error{Code: fault.NotFound, Op: "find the spec of run", Subject: id,
			Reason: "its container has not been made, or what is kept of it has been removed"}
	}
	if err != nil {
		return nil, &fault.Error{Code: fault.Node, Op: "read the spec of run", Subject: id, Err: err}
	}
	return data, nil
}

// Output opens the output of a run: it stays in its place until it is released.
func (a *Agent) Output(id string) (*httpd.Output, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.find(id)
	if err != nil {
		return nil, err
	}
	if r.rec.Dropped {
		return nil, &fault.Error{Code: fault.NotFound, Op: "read the output of run", Subject: id,
			Reason: "it was removed to make room for that of later runs"}
	}
	r.readers++
	return &httpd.Output{Dir: a.logDir(id), Events: filepath.Join(a.cfg.keptDir(id), eventsName), Done: r.done,
		Release: func() { a.readerGone(r) }}, nil
}

func (a *Agent) readerGone(r *run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.readers--; r.readers == 0 && r.rec.Kept {
		a.dropRunDir(r)
	}
}

// Events returns the events of a run.
func (a *Agent) Events(id string) (httpd.EventLog, error) {
	r, err := a.look(id)
	if err != nil {
		return nil, err
	}
	a.loadEvents(r)
	return r.events, nil
}

// loadEvents gets the events of a run that ended under an earlier agent.
func (a *Agent) loadEvents(r *run) {
	if !a.show(r).State.Final() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if events, _, more := r.events.After(0); more == nil && len(events) == 0 && !r.rec.Dropped {
		r.events.restore(a.keptEvents(r.id))
	}
}

// runningContainer returns the container of a run that is at work.
func (a *Agent) runningContainer(id, op string) (Container, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.find(id)
	if err != nil {
		return Container{}, err
	}
	if s := r.state(); s != api.Running && s != api.Stopping || !r.rec.Starting {
		return Container{}, &fault.Error{Code: fault.Conflict, Op: op, Subject: id, Reason: fmt.Sprintf("it is %s", s),
			Attrs: map[string]any{"state": string(s)}}
	}
	return r.rec.container(a.cfg), nil
}

// input is the standard input of a run's container.
type input struct {
	io.Writer
	a    *Agent
	c    Container
	done <-chan struct{}
}

func (in *input) Close() error          { return in.a.closeStdin(in.c) }
func (in *input) Done() <-chan struct{} { return in.done }

// Input opens the standard input of a run's container, once for all requests.
func (a *Agent) Input(_ context.Context, id string) (httpd.Input, error) {
	c, err := a.runningContainer(id, "write to run")
	if err != nil {
		return nil, err
	}
	r, err := a.look(id)
	if err != nil {
		return nil, err
	}
	w, err := a.stdin(c)
	if err != nil {
		return nil, err
	}
	return &input{Writer: w, a: a, c: c, done: r.done}, nil
}

// Resize sets the size of a container's terminal.
func (a *Agent) Resize(ctx context.Context, id string, size api.TerminalSize) error {
	c, err := a.runningContainer(id, "resize the terminal of run")
	if err != nil {
		return err
	}
	return a.cfg.Runner.Resize(ctx, c, size)
}

// stdin returns the container's standard input, opened once for all requests: to
// close it is to end the input.
func (a *Agent) stdin(c Container) (io.Writer, error) {
	a.stdins.Lock()
	defer a.stdins.Unlock()
	if in, ok := a.stdins.open[c.ID]; ok {
		return in, nil
	}
	in, err := a.cfg.Runner.Stdin(a.ctx, c)
	if err != nil {
		return nil, err
	}
	a.stdins.open[c.ID] = in
	return in, nil
}

func (a *Agent) closeStdin(c Container) error {
	a.stdins.Lock()
	in, ok := a.stdins.open[c.ID]
	delete(a.stdins.open, c.ID)
	a.stdins.Unlock()
	if !ok {
		return nil
	}
	return in.Close()
}
