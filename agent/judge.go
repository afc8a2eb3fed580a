package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// verdict is how a run ended: a final state and its outcome.
type verdict struct {
	state   api.State
	outcome api.Outcome
}

// The exit codes that podman gives for a container that did not run.
const (
	exitPodman = 125
	exitDenied = 126
	exitAbsent = 127
)

// judge makes the verdict on a run from its record and the error that kept it
// from its end, if any. It has no side effects, so that every order of events
// can be tested as a line of a table.
func judge(rec *record, err error) verdict {
	code := fault.CodeOf(err)
	var v verdict
	switch {
	case code == fault.Stuck, code == fault.Lost:
		v = failure(rec, err)
		v.outcome.ExitCode = nil
		if rec.Stop != nil {
			v.outcome.Attrs = withAttr(v.outcome.Attrs, "stop_reason", rec.Stop.words())
		}
	case rec.Stop != nil && rec.Stop.Applied:
		v = stoppedBy(rec)
	case err != nil:
		v = failure(rec, err)
	default:
		v = exited(rec)
	}
	fill(rec, &v)
	return v
}

// fill adds what every outcome carries.
func fill(rec *record, v *verdict) {
	o := &v.outcome
	if rec.Exit != nil {
		o.OOMKilled, o.Signal = rec.Exit.OOMKilled, rec.Exit.Signal
		if o.ExitCode == nil {
			o.ExitCode = &rec.Exit.Code
		}
		if rec.Exit.Killed > 0 {
			o.Attrs = withAttr(o.Attrs, "killed_processes", rec.Exit.Killed)
		}
	}
	if rec.End != nil {
		o.LogTail = rec.End.Tail
		if len(rec.End.Result) > 0 {
			o.Result = json.RawMessage(rec.End.Result)
		}
	}
	o.Leftovers = slices.Clone(rec.Leftovers.Left)
	if reason, ok := rebootWish(rec); ok {
		o.RebootRequested, o.RebootReason = true, reason
	}
}

// rebootWish returns why the containers want the node rebooted, if they do.
func rebootWish(rec *record) (reason string, ok bool) {
	if rec.Exit != nil && rec.Exit.Reboot == rebootRestart {
		return "the container called reboot(2)", true
	}
	if rec.Exit != nil && slices.Contains(rec.RebootExitCodes, rec.Exit.Code) {
		return fmt.Sprintf("the container exited with code %d", rec.Exit.Code), true
	}
	if rec.End != nil {
		if wish, reason := resultReboot(rec.End.Result); wish {
			return reason, true
		}
	}
	return rec.Reboot, rec.Reboot != ""
}

// What Exit.Reboot says.
const (
	rebootRestart = "restart"
	rebootHalt    = "halt"
)

// exited is the verdict on a container that ended by itself.
func exited(rec *record) verdict {
	e := rec.Exit
	if e == nil {
		return failure(rec, &fault.Error{Code: fault.Internal, Op: "judge run", Subject: rec.Run.ID,
			Reason: "there is no exit on record"})
	}
	op := "complete " + rec.subject()
	switch {
	case e.Reboot == rebootRestart:
		zero := 0
		return verdict{api.Succeeded, api.Outcome{ExitCode: &zero}}
	case e.Reboot == rebootHalt:
		return failure(rec, &fault.Error{Code: fault.Signalled, Op: op,
			Reason: "the container called reboot(2) to halt the node, which careen does not do",
			Remedy: "Have the container reboot instead, or exit"})
	case e.OOMKilled && e.Code != 0:
		return failure(rec, &fault.Error{Code: fault.OOM, Op: op, Reason: "the container was killed for exceeding its memory",
			Remedy: "Raise --memory, or take an image that needs less"})
	case e.Code == 0, slices.Contains(rec.RebootExitCodes, e.Code):
		return verdict{state: api.Succeeded}
	case e.Signal != 0:
		return failure(rec, &fault.Error{Code: fault.Signalled, Op: op,
			Reason: fmt.Sprintf("the container was ended by signal %d (%s)", e.Signal, signalName(e.Signal)),
			Remedy: "Read its output and the node's kernel log (dmesg)"})
	default:
		return failure(rec, &fault.Error{Code: fault.Exit, Op: op,
			Reason: fmt.Sprintf("the container exited with code %d", e.Code), Remedy: "Read its output for the reason; what the code means is the program's own"})
	}
}

// stoppedBy is the verdict on a run that was ended.
func stoppedBy(rec *record) verdict {
	f := &fault.Error{Op: "complete " + rec.subject(), Reason: rec.Stop.words()}
	state := api.TimedOut
	switch rec.Stop.Cause {
	case causeAbort:
		state, f.Code = api.Aborted, fault.Aborted
	case causeClient:
		state, f.Code = api.Aborted, fault.ClientGone
		f.Remedy = "Run it again; a run that is asked for over the API needs nobody to wait"
	case causeDown:
		state, f.Code = api.Aborted, fault.NodeShutdown
		f.Remedy = "Run it again when the node is up"
	case causeDrain:
		state, f.Code = api.Aborted, fault.AgentStopped
		f.Remedy = "Run it again under another agent, or have the agent leave containers running when it stops"
	case causeTimeout, causeProcess:
		f.Code, f.Remedy = fault.Timeout, "Raise the limit if the step needs longer"
	case causeSilence:
		f.Code, f.Remedy = fault.SilenceTimeout, "Raise the silence limit if the step is quiet for longer"
	case causeStall:
		state, f.Code, f.Remedy = api.Failed, fault.Stalled, "Check the network and the registry"
	}
	v := failure(rec, f)
	v.state = state
	if rec.Exit == nil {
		v.outcome.ExitCode = nil
	}
	return v
}

// failure is the verdict that err makes.
func failure(rec *record, err error) verdict {
	code := fault.CodeOf(err)
	v := verdict{state: api.Failed, outcome: api.Outcome{
		Code: string(code), Message: oneLine(err.Error()), Remedy: fault.RemedyOf(err), Attrs: fault.AttrsOf(err),
	}}
	if code == fault.Lost {
		v.state = api.Lost
	}
	if rec.Exit != nil {
		return v
	}
	exit := exitPodman
	switch code {
	case fault.CommandAbsent:
		exit = exitAbsent
	case fault.CommandDenied:
		exit = exitDenied
	}
	v.outcome.ExitCode = &exit
	return v
}

// subject names what the run does.
func (r *record) subject() string {
	if r.Run.Step != "" {
		return "step " + r.Run.Step
	}
	return "the run of " + r.Run.Image
}

func withAttr(attrs map[string]any, key string, value any) map[string]any {
	if attrs == nil {
		attrs = map[string]any{}
	}
	attrs[key] = value
	return attrs
}

func oneLine(text string) string { return fault.OneLine(text, fault.MaxLine) }

// durations adds the time that the phases took to the outcome.
func (r *record) durations(o *api.Outcome) {
	if r.Exit != nil && r.Exit.Ran > 0 && r.Run.Parts == 0 && r.Stop == nil {
		// The shim's own measure: it was there while the agent may not have been.
		r.Phases[string(api.Running)] = r.Exit.Ran
	}
	var total time.Duration
	o.Phases = map[string]string{}
	for phase, d := range r.Phases {
		o.Phases[phase] = d.Round(time.Millisecond).String()
		if phase != string(api.Queued) {
			total += d
		}
	}
	o.Duration = total.Round(time.Millisecond).String()
}
