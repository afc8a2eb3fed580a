package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/fault"
)

// Verdict is how a run ends: its final state and outcome.
type Verdict struct {
	State   RunState
	Outcome Outcome
}

// The exit codes that podman gives for a container that did not run.
const (
	exitPodman = 125
	exitDenied = 126
	exitAbsent = 127
)

// verdictOf makes the verdict on a run from its record and the error that kept it from its
// end, if any.
func verdictOf(r *Run, err error) Verdict {
	rec := &r.Record
	code := fault.CodeOf(err)
	var v Verdict
	switch {
	case code == fault.Stuck, code == fault.Lost:
		v = failure(rec, err)
		v.Outcome.ExitCode = nil
		if rec.Stop != nil {
			v.Outcome.Attrs = withAttr(v.Outcome.Attrs, "stop_reason", rec.Stop.words())
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
func fill(rec *Record, v *Verdict) {
	o := &v.Outcome
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

// What container.Exit.Reboot says.
const (
	rebootRestart = "restart"
	rebootHalt    = "halt"
)

// rebootWish returns why the containers ask for a reboot of the node, if they do.
func rebootWish(rec *Record) (reason string, ok bool) {
	if rec.Exit != nil && rec.Exit.Reboot == rebootRestart {
		return "the container called reboot(2)", true
	}
	if rec.Exit != nil && slices.Contains(rec.RebootExitCodes, rec.Exit.Code) {
		return fmt.Sprintf("the container exited with code %d", rec.Exit.Code), true
	}
	if rec.End != nil {
		if reason, ok := resultReboot(rec.End.Result); ok {
			return reason, true
		}
	}
	return rec.Reboot, rec.Reboot != ""
}

// resultReboot reads the members of a result that careen itself acts on. Names count
// as they are written: encoding/json would take "REBOOT" for "reboot".
func resultReboot(result json.RawMessage) (reason string, ok bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(result, &members) != nil || string(members["reboot"]) != "true" {
		return "", false
	}
	reason = "the container wrote it in its result"
	var text string
	if json.Unmarshal(members["reason"], &text) == nil && text != "" && len(text) <= 200 {
		reason += ": " + strings.Join(strings.Fields(text), " ")
	}
	return reason, true
}

// exited is the verdict on a container that ended by itself.
func exited(rec *Record) Verdict {
	e := rec.Exit
	if e == nil {
		return failure(rec, &fault.Error{Code: fault.Internal, Op: "decide the outcome of run", Subject: rec.Run.ID,
			Reason: "there is no exit on record"})
	}
	op := "complete " + rec.subject()
	switch {
	case e.Reboot == rebootRestart:
		zero := 0
		return Verdict{Succeeded, Outcome{ExitCode: &zero}}
	case e.Reboot == rebootHalt:
		return failure(rec, &fault.Error{Code: fault.Signalled, Op: op,
			Reason: "the container called reboot(2) to halt the node, which careen does not do",
			Remedy: "Have the container reboot instead, or exit"})
	case e.OOMKilled && e.Code != 0:
		return failure(rec, &fault.Error{Code: fault.OOM, Op: op, Reason: "the container was killed for exceeding its memory",
			Remedy: "Raise --memory, or take an image that needs less"})
	case e.Code == 0, slices.Contains(rec.RebootExitCodes, e.Code):
		return Verdict{State: Succeeded}
	case e.Signal != 0:
		return failure(rec, &fault.Error{Code: fault.Signalled, Op: op,
			Reason: fmt.Sprintf("the container was ended by signal %d (%s)", e.Signal, signalName(e.Signal)),
			Remedy: "Read its output and the node's kernel log (dmesg)"})
	default:
		return failure(rec, &fault.Error{Code: fault.Exit, Op: op,
			Reason: fmt.Sprintf("the container exited with code %d", e.Code),
			Remedy: "Read its output for the reason; the program defines what the code means"})
	}
}

// stoppedBy is the verdict on a run that the agent ended.
func stoppedBy(rec *Record) Verdict {
	f := &fault.Error{Op: "complete " + rec.subject(), Reason: rec.Stop.words()}
	state := TimedOut
	switch rec.Stop.Cause {
	case CauseAbort:
		state, f.Code = Aborted, fault.Aborted
	case CauseClient:
		state, f.Code = Aborted, fault.ClientGone
		f.Remedy = "Run it again; a run that is submitted over the API does not need a waiting client"
	case CauseShutdown:
		state, f.Code = Aborted, fault.NodeShutdown
		f.Remedy = "Run it again when the node is up"
	case CauseDrain:
		state, f.Code = Aborted, fault.AgentStopped
		f.Remedy = "Run it again under another agent, or have the agent leave containers running when it stops"
	case CauseTimeout, CauseProcess:
		f.Code, f.Remedy = fault.Timeout, "Raise the limit if the step needs longer"
	case CauseSilence:
		f.Code, f.Remedy = fault.SilenceTimeout, "Raise the silence limit if the step is quiet for longer"
	case CauseStall:
		state, f.Code, f.Remedy = Failed, fault.Stalled, "Check the network and the registry"
	}
	v := failure(rec, f)
	v.State = state
	if rec.Exit == nil {
		v.Outcome.ExitCode = nil
	}
	return v
}

// failure is the verdict that an error makes.
func failure(rec *Record, err error) Verdict {
	code := fault.CodeOf(err)
	v := Verdict{State: Failed, Outcome: Outcome{
		Code: string(code), Message: oneLine(err.Error()), Remedy: fault.RemedyOf(err), Attrs: fault.AttrsOf(err),
	}}
	if code == fault.Lost {
		v.State = Lost
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
	v.Outcome.ExitCode = &exit
	return v
}

func withAttr(attrs map[string]any, key string, value any) map[string]any {
	attrs = maps.Clone(attrs)
	if attrs == nil {
		attrs = map[string]any{}
	}
	attrs[key] = value
	return attrs
}
