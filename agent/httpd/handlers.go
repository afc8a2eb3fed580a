package httpd

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

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
	return send(w, status, "application/json", append(data, '\n'))
}

// send writes a whole answer.
func send(w http.ResponseWriter, status int, media string, data []byte) error {
	w.Header().Set("Content-Type", media)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.WriteHeader(status)
	_, _ = w.Write(data) // an error means that the client is gone
	return nil
}

func (s *Server) getVersion(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, s.cfg.Version)
}

func (s *Server) getHealth(w http.ResponseWriter, _ *http.Request) error {
	h := s.cfg.Agent.Health()
	status := http.StatusOK
	if !h.Ready {
		status = http.StatusServiceUnavailable
	}
	return answer(w, status, h)
}

func (s *Server) getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	return send(w, http.StatusOK, "application/yaml", openAPI)
}

func (s *Server) getConfig(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, s.cfg.Policy.Config())
}

func (s *Server) patchConfig(w http.ResponseWriter, r *http.Request) error {
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(data)) == 0 { // an accident must not remove an allowlist
		return fault.BadField("body", "it is empty; to remove the conductor's settings, send {}")
	}
	var options map[string]any
	if err := Decode(data, &options); err != nil {
		return err
	}
	cfg, err := s.cfg.Policy.SetConductor(options)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, cfg)
}

func (s *Server) getSteps(w http.ResponseWriter, r *http.Request) error {
	var reserved []string
	if text := r.URL.Query().Get("reserved"); text != "" {
		reserved = strings.Split(text, ",")
	}
	steps, err := s.cfg.Policy.Steps(r.URL.Query().Get("phase"), reserved)
	if err != nil {
		return err
	}
	if steps == nil {
		steps = []api.Step{}
	}
	return answer(w, http.StatusOK, steps)
}

func (s *Server) postRun(w http.ResponseWriter, r *http.Request) error {
	req := new(api.RunRequest)
	if err := decodeBody(w, r, req); err != nil {
		return err
	}
	peer, _ := r.Context().Value(peerKey{}).(api.Peer)
	v, isNew, err := s.cfg.Agent.Submit(r.Context(), req, peer)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/runs/"+v.ID)
	if isNew {
		return answer(w, http.StatusAccepted, v)
	}
	return answer(w, http.StatusOK, v)
}

func (s *Server) getRuns(w http.ResponseWriter, r *http.Request) error {
	runs := s.cfg.Agent.Runs()
	if text := r.URL.Query().Get("state"); text != "" {
		states := strings.Split(text, ",")
		for _, state := range states {
			if !api.State(state).Known() {
				return fault.BadField("state", fmt.Sprintf("%q is not a state of a run", fault.OneLine(state, 50)))
			}
		}
		runs = slices.DeleteFunc(runs, func(v api.Run) bool { return !slices.Contains(states, string(v.State)) })
	}
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fault.BadField("limit", "it is not a number greater than zero")
		}
		runs = runs[max(0, len(runs)-n):]
	}
	return answer(w, http.StatusOK, runs)
}

func (s *Server) getRun(w http.ResponseWriter, r *http.Request) error {
	v, err := s.cfg.Agent.Run(r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, v)
}

func (s *Server) deleteRun(w http.ResponseWriter, r *http.Request) error {
	if err := s.cfg.Agent.Delete(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) postAbort(w http.ResponseWriter, r *http.Request) error {
	var req api.AbortRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	v, err := s.cfg.Agent.Abort(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err
	}
	return answer(w, http.StatusAccepted, v)
}

func (s *Server) getSpec(w http.ResponseWriter, r *http.Request) error {
	spec, err := s.cfg.Agent.Spec(r.PathValue("id"))
	if err != nil {
		return err
	}
	return send(w, http.StatusOK, "application/json", spec)
}

func (s *Server) getAudit(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return stream(w, s.cfg.Agent.Audit)
}

func (s *Server) getMetrics(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	return stream(w, s.writeMetrics)
}

func (s *Server) getImages(w http.ResponseWriter, r *http.Request) error {
	images, err := s.cfg.Images.Images(r.Context())
	if err != nil {
		return err
	}
	if images == nil {
		images = []api.Image{}
	}
	return answer(w, http.StatusOK, images)
}

func (s *Server) deleteImage(w http.ResponseWriter, r *http.Request) error {
	if err := s.cfg.Images.RemoveImage(r.Context(), r.PathValue("ref")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) postPull(w http.ResponseWriter, r *http.Request) error {
	req := new(api.PullRequest)
	if err := decodeBody(w, r, req); err != nil {
		return err
	}
	peer, _ := r.Context().Value(peerKey{}).(api.Peer)
	pull, err := s.cfg.Images.StartPull(r.Context(), req, peer)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/pulls/"+pull.ID)
	return answer(w, http.StatusAccepted, pull)
}

func (s *Server) getPull(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel, err := pollContext(r, 0)
	if err != nil {
		return err
	}
	defer cancel()
	pull, err := s.cfg.Images.Pull(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, pull)
}

func (s *Server) deletePull(w http.ResponseWriter, r *http.Request) error {
	pull, err := s.cfg.Images.CancelPull(r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusAccepted, pull)
}

func (s *Server) postResize(w http.ResponseWriter, r *http.Request) error {
	var size api.TerminalSize
	if err := decodeBody(w, r, &size); err != nil {
		return err
	}
	if size.Columns == 0 || size.Rows == 0 {
		return fault.BadField("columns", "columns and rows have to be greater than zero")
	}
	if err := s.cfg.Agent.Resize(r.Context(), r.PathValue("id"), size); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// longest is the longest timeout of one poll.
const longest = 10 * time.Minute
