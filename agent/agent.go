package agent

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/httpd"
)

// Resolver is the policy: it decides on requests, and answers the API's questions about
// steps and settings. Package policy has it.
type Resolver interface {
	exec.Resolver
	httpd.Policy
}

// Config is what an agent is made of. Runner, Resolver, RunDir and StateDir are required.
type Config struct {
	exec.Config
	// Resolver is the policy. The executor and the API ask it.
	Resolver Resolver
	// AllowedUIDs may use the socket, beside root and the agent's own user.
	AllowedUIDs []uint32
	// Version is what GET /v1/version answers; BootID and StartedAt are filled in.
	Version api.Version
	// Gauges are figures for /metrics beside the agent's. It may be nil.
	Gauges func() []httpd.Gauge
	// NodeState are files for a bundle beside the agent's, name to content. It may be nil.
	NodeState func() map[string][]byte
}

// Agent runs steps. Make one with [New], let it find earlier runs with Recover, then
// [Agent.Serve] its socket.
type Agent struct {
	*exec.Executor
	server *httpd.Server
}

// New makes an agent. It touches no container; the caller calls Recover next, and Close in
// the end. Errors are those of [exec.New].
func New(cfg Config) (*Agent, error) {
	started := time.Now().UTC()
	a := &Agent{}
	run, err := cfg.Config.WithDefaults(cfg.Resolver)
	if err != nil {
		return nil, err
	}
	run.Problem = func(err error) *api.Problem {
		p := httpd.Problem(err)
		return &p
	}
	cfg.Version.BootID, cfg.Version.StartedAt = run.BootID, started.Format(time.RFC3339)
	a.server = httpd.New(httpd.Config{
		Agent: a, Images: a, Policy: cfg.Resolver, Version: cfg.Version, AllowedUIDs: cfg.AllowedUIDs,
		Started: started, Gauges: cfg.Gauges, NodeState: cfg.NodeState, Log: run.Log,
	})
	run.Bundle = a.server.WriteBundle
	if a.Executor, err = exec.New(run); err != nil {
		return nil, err
	}
	return a, nil
}

// Serve answers on ln until ctx ends; see [httpd.Server.Serve].
func (a *Agent) Serve(ctx context.Context, ln net.Listener) error { return a.server.Serve(ctx, ln) }

// Handler returns the API without a socket; see [httpd.Server.Handler].
func (a *Agent) Handler() http.Handler { return a.server.Handler() }

var (
	_ httpd.Agent  = (*Agent)(nil)
	_ httpd.Images = (*Agent)(nil)
)

// Events returns the event log of a run; see [exec.Executor.Events].
func (a *Agent) Events(id string) (httpd.EventLog, error) { return a.Executor.Events(id) }

// Output opens the output of a run; see [exec.Executor.Output].
func (a *Agent) Output(id string) (*httpd.Output, error) {
	o, err := a.Executor.Output(id)
	if err != nil {
		return nil, err
	}
	return &httpd.Output{Dir: o.Dir, Events: o.Events, Done: o.Done, Release: o.Release}, nil
}

// Input opens the standard input of a run's container; see [exec.Executor.Input].
func (a *Agent) Input(_ context.Context, id string) (httpd.Input, error) {
	in, err := a.Executor.Input(id)
	if err != nil {
		return nil, err
	}
	return in, nil
}

// Metrics returns the agent's figures.
func (a *Agent) Metrics() httpd.Metrics {
	s, f := a.State(), a.Figures()
	m := httpd.Metrics{
		Runs: map[httpd.RunEnd]int64{}, Phases: map[string]httpd.Histogram{}, Refusals: f.Refusals,
		ContainersStarted: f.Started, Aborts: f.Aborts, Pulls: f.Pulls, PullBytes: f.PullBytes, PullRetries: f.PullRetries,
		Active: s.Active(), Queued: len(s.Queue), Known: len(s.Runs), RecordsUnwritten: a.Unwritten(),
		RebootPending: s.RebootBy != "",
	}
	if s.Config.Push {
		m.Pushes = f.Pushes
	}
	for end, n := range f.Runs {
		m.Runs[httpd.RunEnd{State: api.State(end.State), Code: end.Code}] = n
	}
	for phase, h := range f.Phases {
		m.Phases[phase] = httpd.Histogram{Upper: exec.Buckets, Counts: h.Counts, Sum: h.Sum, Count: h.Count}
	}
	return m
}
