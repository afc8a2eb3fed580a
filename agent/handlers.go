package agent

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

//go:embed openapi.yaml
var openAPI []byte

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return &fault.Error{Code: fault.Internal, Op: "write the answer", Err: err}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that is gone needs no answer
	return nil
}

func (a *Agent) getVersion(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, a.cfg.Version)
}

func (a *Agent) getHealth(w http.ResponseWriter, _ *http.Request) error {
	h := a.Health()
	status := http.StatusOK
	if !h.Ready {
		status = http.StatusServiceUnavailable
	}
	return answer(w, status, h)
}

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

func (a *Agent) getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPI)
	return nil
}

func (a *Agent) getConfig(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, a.cfg.Resolver.Config())
}

func (a *Agent) patchConfig(w http.ResponseWriter, r *http.Request) error {
	var options map[string]any
	if err := decodeBody(w, r, &options); err != nil {
		return err
	}
	cfg, err := a.cfg.Resolver.SetConductor(options)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, cfg)
}

func (a *Agent) getSteps(w http.ResponseWriter, r *http.Request) error {
	var reserved []string
	if text := r.URL.Query().Get("reserved"); text != "" {
		reserved = strings.Split(text, ",")
	}
	steps, err := a.cfg.Resolver.Steps(r.URL.Query().Get("phase"), reserved)
	if err != nil {
		return err
	}
	if steps == nil {
		steps = []api.Step{}
	}
	return answer(w, http.StatusOK, steps)
}

func (a *Agent) postRun(w http.ResponseWriter, r *http.Request) error {
	req := new(api.RunRequest)
	if err := decodeBody(w, r, req); err != nil {
		return err
	}
	peer, _ := r.Context().Value(peerKey{}).(Peer)
	v, isNew, err := a.Submit(req, peer)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/runs/"+v.ID)
	if isNew {
		return answer(w, http.StatusAccepted, v)
	}
	return answer(w, http.StatusOK, v)
}

func (a *Agent) getRuns(w http.ResponseWriter, r *http.Request) error {
	runs := a.Runs()
	if text := r.URL.Query().Get("state"); text != "" {
		states := strings.Split(text, ",")
		for _, s := range states {
			if _, ok := moves[api.State(s)]; !ok && !api.State(s).Final() {
				return badField("state", fmt.Sprintf("%q is no state of a run", cut(s, 50)))
			}
		}
		runs = slices.DeleteFunc(runs, func(v api.Run) bool { return !slices.Contains(states, string(v.State)) })
	}
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return badField("limit", "it is not a number greater than zero")
		}
		runs = runs[max(0, len(runs)-n):]
	}
	return answer(w, http.StatusOK, runs)
}

func (a *Agent) getRun(w http.ResponseWriter, r *http.Request) error {
	v, err := a.Run(r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, v)
}

func (a *Agent) deleteRun(w http.ResponseWriter, r *http.Request) error {
	if err := a.Delete(r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Agent) postAbort(w http.ResponseWriter, r *http.Request) error {
	var req api.AbortRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	v, err := a.Abort(r.PathValue("id"), req)
	if err != nil {
		return err
	}
	return answer(w, http.StatusAccepted, v)
}

func (a *Agent) getSpec(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if _, err := a.Run(id); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(a.cfg.keptDir(id), specName))
	if errors.Is(err, os.ErrNotExist) {
		return &fault.Error{Code: fault.NotFound, Op: "find the spec of run", Subject: id,
			Reason: "its container has not been made, or what is kept of it has been removed"}
	}
	if err != nil {
		return &fault.Error{Code: fault.Node, Op: "read the spec of run", Subject: id, Err: err}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
	return nil
}

func (a *Agent) getAudit(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return stream(w, a.audit.copyTo)
}

func (a *Agent) getMetrics(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	return stream(w, a.WriteMetrics)
}

func (a *Agent) getImages(w http.ResponseWriter, r *http.Request) error {
	images, err := a.cfg.Runner.Images(r.Context())
	if err != nil {
		return err
	}
	if images == nil {
		images = []api.Image{}
	}
	return answer(w, http.StatusOK, images)
}

func (a *Agent) deleteImage(w http.ResponseWriter, r *http.Request) error {
	if err := a.cfg.Runner.RemoveImage(r.Context(), r.PathValue("ref")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Agent) postPull(w http.ResponseWriter, r *http.Request) error {
	req := new(api.PullRequest)
	if err := decodeBody(w, r, req); err != nil {
		return err
	}
	peer, _ := r.Context().Value(peerKey{}).(Peer)
	pull, err := a.StartPull(req, peer)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/pulls/"+pull.ID)
	return answer(w, http.StatusAccepted, pull)
}

func (a *Agent) getPull(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel, err := pollContext(r, 0)
	if err != nil {
		return err
	}
	defer cancel()
	pull, err := a.Pull(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, pull)
}

func (a *Agent) deletePull(w http.ResponseWriter, r *http.Request) error {
	pull, err := a.CancelPull(r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusAccepted, pull)
}

func (a *Agent) postResize(w http.ResponseWriter, r *http.Request) error {
	var size api.TerminalSize
	if err := decodeBody(w, r, &size); err != nil {
		return err
	}
	if size.Columns == 0 || size.Rows == 0 {
		return badField("columns", "columns and rows have to be greater than zero")
	}
	c, err := a.runningContainer(r.PathValue("id"), "resize the terminal of run")
	if err != nil {
		return err
	}
	if err := a.cfg.Runner.Resize(r.Context(), c, size); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
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

// syncFS flushes the state directory's file system, before a reboot.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// longest is the longest that one poll waits.
const longest = 10 * time.Minute
