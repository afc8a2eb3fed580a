package agent

import (
	"fmt"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Health says whether the agent can run steps, and what it thinks of the node.
func (a *Agent) Health() api.Health {
	var checks []api.Check
	if a.cfg.Checks != nil {
		checks = a.cfg.Checks()
	}
	a.mu.Lock()
	checks = append(checks, a.ownChecks()...)
	h := api.Health{Ready: a.recovered && !a.draining, RebootPending: a.rebootBy, Checks: checks}
	a.mu.Unlock()
	if err := a.audit.health(); err != nil {
		h.Checks = append(h.Checks, api.Check{Name: "audit", Status: "warning",
			Detail: "the audit record cannot be written: " + err.Error(), Remedy: "Check " + a.cfg.StateDir})
	}
	for _, c := range h.Checks {
		if c.Status == "error" {
			h.Ready = false
		}
	}
	return h
}

// ownChecks are the agent's findings about itself. The lock is held.
func (a *Agent) ownChecks() []api.Check {
	state := api.Check{Name: "state", Status: "ok", Detail: "the journal is in " + a.cfg.StateDir}
	switch {
	case a.records.journal == nil:
		state.Status = "warning"
		state.Detail = "there is no journal, and a crash of the agent will lose its runs: " + a.records.why.Error()
		state.Remedy = fault.RemedyOf(a.records.why)
	case a.records.last != nil:
		state.Status, state.Detail = "error", "no run can start: "+a.records.last.Error()
		state.Remedy = fault.RemedyOf(a.records.last)
	case !a.records.journal.Stable():
		state.Detail += ", which does not survive a reboot"
	}
	if a.records.journal != nil && a.records.last == nil {
		if torn, damaged := a.records.journal.Damage(); damaged > 0 {
			state.Status = "warning"
			state.Detail += fmt.Sprintf("; %d of its records were damaged and passed over, %d bytes torn", damaged, torn)
			state.Remedy = "Check the disk of the state directory"
		}
	}
	checks := []api.Check{state}
	if !a.recovered {
		checks = append(checks, api.Check{Name: "recovery", Status: "warning", Detail: "earlier runs are being looked for"})
	}
	if id := a.stuckRun(); id != "" {
		checks = append(checks, api.Check{Name: "stuck", Status: "error", Remedy: "Power-cycle the node",
			Detail: fmt.Sprintf("the container of run %s survived SIGKILL", id)})
	}
	return checks
}
