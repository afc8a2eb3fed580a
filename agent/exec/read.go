package exec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/store"
)

// Run returns one run; not_found if there is none.
func (x *Executor) Run(id string) (api.Run, error) {
	s := x.state.Load()
	r := s.Find(id)
	if r == nil {
		return api.Run{}, machine.NotFound(id)
	}
	return x.view(s, r), nil
}

// Runs returns all runs that are known, oldest first.
func (x *Executor) Runs() []api.Run {
	s := x.state.Load()
	all := make([]api.Run, 0, len(s.Runs))
	for _, r := range s.Runs {
		all = append(all, x.view(s, r))
	}
	return all
}

// view returns a run as the API shows it.
func (x *Executor) view(s *machine.State, r *machine.Run) api.Run {
	run := r.Run
	v := api.Run{
		ID: run.ID, Name: run.Name, State: api.State(run.State), Step: run.Step, Phase: run.Phase, Node: run.Node,
		Image: run.Image, Digest: run.Digest, Trusted: run.Trusted, RebootRequested: run.RebootRequested,
		Abortable: run.Abortable, Part: run.Part, Parts: run.Parts, CreatedAt: run.CreatedAt, StartedAt: run.StartedAt,
		EndedAt: run.EndedAt, BootID: run.BootID, Pid: run.Pid, StopReason: run.StopReason,
		Warnings: slices.Clone(run.Warnings), Outcome: outcome(run.Outcome),
	}
	switch {
	case run.State == machine.Queued:
		v.QueuePosition = s.QueuePosition(run.ID)
	case !run.State.Final():
		v.Pull = toAPI(r.Pull)
		if until := s.CriticalUntil(r); until > 0 {
			at := time.Now().Add(until - x.cfg.Clock()).UTC()
			v.CriticalUntil = &at
		}
	}
	return v
}

func outcome(o *machine.Outcome) *api.Outcome {
	if o == nil {
		return nil
	}
	v := api.Outcome(*o)
	return &v
}

// Wait returns a run once it has ended, or as it is when ctx ends; not_found if there is
// none.
func (x *Executor) Wait(ctx context.Context, id string) (api.Run, error) {
	s, r, l, err := x.find(id)
	if err != nil {
		return api.Run{}, err
	}
	select {
	case <-l.done:
	case <-ctx.Done():
	case <-x.ctx.Done():
	}
	if now := x.state.Load(); now.Find(id) != nil {
		s, r = now, now.Find(id)
	}
	return x.view(s, r), nil
}

// EventLog is the event log of one run.
type EventLog struct{ log *store.EventLog }

// Events returns the event log of a run, also of one that ended under an earlier agent;
// not_found if there is none.
func (x *Executor) Events(id string) (EventLog, error) {
	_, _, l, err := x.find(id)
	if err != nil {
		return EventLog{}, err
	}
	return EventLog{l.events}, nil
}

// After returns the events that follow seq, whether some before them are gone, and a
// channel that is closed when there may be more; nil when there never will.
func (l EventLog) After(seq int64) (events []api.Event, missed bool, more <-chan struct{}) {
	list, missed, more := l.log.After(seq)
	for _, e := range list {
		events = append(events, api.Event{Seq: e.Seq, Time: e.Time, Run: e.Run, Type: e.Type, State: api.State(e.State),
			From: api.State(e.From), Took: e.Took, Pull: toAPI(e.Pull), Message: e.Message, Outcome: outcome(e.Outcome)})
	}
	return events, missed, more
}

// Output is the output of one run.
type Output struct {
	// Dir is the directory of its log, as package logs reads it.
	Dir string
	// Events is the file with all events of a run that has ended. It may not exist.
	Events string
	// Done is closed when the run has ended.
	Done <-chan struct{}
	// Release lets the files be removed. It is called once.
	Release func()
}

// Output opens the output of a run: it stays in its place until it is released. The error
// has code not_found for an unknown run and for output that retention has removed.
func (x *Executor) Output(id string) (*Output, error) {
	_, r, l, err := x.find(id)
	if err != nil {
		return nil, err
	}
	if r.Dropped {
		return nil, &fault.Error{Code: fault.NotFound, Op: "read the output of run", Subject: id,
			Reason: "it was removed to make room for that of later runs"}
	}
	f := x.store.Files(id)
	// Who removes files counts readers after the log is in its last place, and a reader
	// looks for the place after it was counted: so no reader is left with a removed file.
	l.readers.Add(1)
	return &Output{Dir: f.Log(), Events: f.KeptEvents(), Done: l.done, Release: func() {
		if l.readers.Add(-1) > 0 {
			return
		}
		if r := x.state.Load().Find(id); r == nil || r.Tidied {
			x.dropRun(id)
		}
	}}, nil
}

// Spec returns the runtime-spec of a run's container, without the values of its
// environment. The error has code not_found or node.
func (x *Executor) Spec(id string) ([]byte, error) {
	if x.state.Load().Find(id) == nil {
		return nil, machine.NotFound(id)
	}
	data, err := os.ReadFile(x.store.Files(id).Spec())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &fault.Error{Code: fault.NotFound, Op: "find the spec of run", Subject: id,
			Reason: "not created yet, or already deleted by retention"}
	}
	if err != nil {
		return nil, &fault.Error{Code: fault.Node, Op: "read the spec of run", Subject: id, Err: err}
	}
	return data, nil
}

// Audit writes the audit record to w, oldest line first. The error is that of the file
// system or of w.
func (x *Executor) Audit(w io.Writer) error { return x.store.Audit.CopyTo(w) }

// Figures returns what was counted since the executor was made.
func (x *Executor) Figures() Figures { return *x.figures.Load() }

// State returns the published state.
func (x *Executor) State() machine.State { return *x.state.Load() }

// Unwritten counts records and audit lines that could not be written so far.
func (x *Executor) Unwritten() int {
	return x.store.Status().Unwritten + x.store.Audit.Status().Pending
}

// Health says whether the agent can run steps, and what is wrong.
func (x *Executor) Health() api.Health {
	s := x.state.Load()
	h := api.Health{Ready: s.Recovered && !s.Draining, RebootPending: s.RebootBy}
	if x.cfg.Checks != nil {
		h.Checks = x.cfg.Checks()
	}
	h.Checks = append(h.Checks, x.checks(s)...)
	for _, c := range h.Checks {
		if c.Status == "error" {
			h.Ready = false
		}
	}
	return h
}

// checks are the executor's findings about itself.
func (x *Executor) checks(s *machine.State) []api.Check {
	checks := []api.Check{x.stateCheck()}
	if a := x.store.Audit.Status(); a.Last != nil {
		detail := fmt.Sprintf("the audit record cannot be written: %v; %d lines wait", a.Last, a.Pending)
		if a.Dropped > 0 {
			detail += fmt.Sprintf(", %d are lost", a.Dropped)
		}
		checks = append(checks, api.Check{Name: "audit", Status: "warning", Detail: detail, Remedy: "Check " + x.cfg.StateDir})
	}
	if !s.Recovered {
		checks = append(checks, api.Check{Name: "recovery", Status: "warning", Detail: "the agent still recovers earlier runs"})
	}
	if id := s.StuckRun(); id != "" {
		checks = append(checks, api.Check{Name: "stuck", Status: "error", Remedy: "Power-cycle the node",
			Detail: fmt.Sprintf("the container of run %s survived SIGKILL", id)})
	}
	return checks
}

// slowDisk is how long a record may wait for the disk before health says so.
const slowDisk = time.Second

func (x *Executor) stateCheck() api.Check {
	st := x.store.Status()
	check := api.Check{Name: "state", Status: "ok", Detail: "the journal is in " + x.cfg.StateDir}
	waits := time.Since(st.Since)
	switch {
	case st.Memory != nil:
		check.Status = "warning"
		check.Detail = "there is no journal, and a crash of the agent will lose its runs: " + st.Memory.Error()
		check.Remedy = fault.RemedyOf(st.Memory)
	case st.Waiting != "" && waits > slowDisk:
		check.Status = "error"
		check.Detail = fmt.Sprintf("no run can start: the record of run %s waits for the disk of %s for %v",
			st.Waiting, x.cfg.StateDir, waits.Round(time.Second))
		check.Remedy = "Check the disk of the state directory"
	case st.Last != nil:
		check.Status, check.Detail = "error", "no run can start: "+st.Last.Error()
		check.Remedy = fault.RemedyOf(st.Last)
	case st.Damaged > 0:
		check.Status = "warning"
		check.Detail += fmt.Sprintf("; %d of its records were damaged and passed over, %d bytes torn", st.Damaged, st.TornBytes)
		check.Remedy = "Check the disk of the state directory"
	case !st.Stable:
		check.Detail += ", which does not survive a reboot"
	}
	return check
}

// decodeNumbers is json.Unmarshal that keeps numbers as they are written.
func decodeNumbers(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return dec.Decode(into)
}
