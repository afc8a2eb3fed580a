package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Version returns what the agent is made of.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	return get[api.Version](ctx, c, call{method: http.MethodGet, path: "/v1/version"})
}

// Health returns the health of agent and node. An agent that is not ready is no error.
func (c *Client) Health(ctx context.Context) (h api.Health, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://careen/v1/health", nil)
	if err != nil {
		return h, &fault.Error{Code: fault.BadRequest, Op: "ask the agent for", Subject: "its health", Err: err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return h, c.explain(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
		return h, problem(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
		return h, &fault.Error{Code: fault.Unreachable, Op: "read the agent's answer", Err: err}
	}
	return h, nil
}

// WaitReady returns when the agent answers and is ready. When ctx ends, it returns the last
// error, with code unreachable or forbidden.
func (c *Client) WaitReady(ctx context.Context) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		h, err := c.Health(ctx)
		if err == nil && h.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil || errors.Is(err, ctx.Err()) {
				err = &fault.Error{Code: fault.Unreachable, Op: "use the agent at", Subject: c.socket,
					Reason: "it is not ready", Remedy: "See what is wrong with \"careen doctor\""}
			}
			return err
		case <-time.After(pause):
		}
	}
}

// OpenAPI returns the description of the API, in YAML.
func (c *Client) OpenAPI(ctx context.Context, w io.Writer) error {
	return c.copy(ctx, w, "/v1/openapi.yaml")
}

// Metrics writes the agent's figures in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error { return c.copy(ctx, w, "/metrics") }

// Audit writes the audit record: JSON lines of api.AuditRecord, oldest first.
func (c *Client) Audit(ctx context.Context, w io.Writer) error { return c.copy(ctx, w, "/v1/audit") }

// Config returns the settings in force.
func (c *Client) Config(ctx context.Context) (api.Config, error) {
	return get[api.Config](ctx, c, call{method: http.MethodGet, path: "/v1/config"})
}

// SetConductor sets the options that the conductor sent at lookup.
func (c *Client) SetConductor(ctx context.Context, options map[string]any) (api.Config, error) {
	return get[api.Config](ctx, c, call{method: http.MethodPatch, path: "/v1/config", json: options})
}

// Steps lists the steps of a phase without those whose names are reserved.
func (c *Client) Steps(ctx context.Context, phase string, reserved ...string) ([]api.Step, error) {
	q := url.Values{"phase": {phase}}
	if len(reserved) > 0 {
		q.Set("reserved", strings.Join(reserved, ","))
	}
	return get[[]api.Step](ctx, c, call{method: http.MethodGet, path: "/v1/steps", query: q})
}

// StartPull begins to pull an image.
func (c *Client) StartPull(ctx context.Context, req api.PullRequest) (api.Pull, error) {
	return get[api.Pull](ctx, c, call{method: http.MethodPost, path: "/v1/images/pull", json: req})
}

// PullOnce returns the pull once it has ended, or as it is after timeout.
func (c *Client) PullOnce(ctx context.Context, id string, timeout time.Duration) (api.Pull, error) {
	q := url.Values{"timeout": {timeout.String()}}
	return get[api.Pull](ctx, c, call{method: http.MethodGet, path: "/v1/pulls/" + url.PathEscape(id), query: q})
}

// CancelPull cancels a pull. The error has code not_found for an unknown id.
func (c *Client) CancelPull(ctx context.Context, id string) (api.Pull, error) {
	return get[api.Pull](ctx, c, call{method: http.MethodDelete, path: "/v1/pulls/" + url.PathEscape(id)})
}

// Pull pulls an image and returns when the pull has ended. It calls progress meanwhile, if
// that is not nil. When ctx ends, the pull is cancelled. A pull that failed is an error with
// the code of its problem.
func (c *Client) Pull(ctx context.Context, req api.PullRequest, progress func(api.PullProgress)) (api.Pull, error) {
	pull, err := c.StartPull(ctx, req)
	for err == nil && !pull.State.Final() {
		if pull.Progress != nil && progress != nil {
			progress(*pull.Progress)
		}
		var now api.Pull
		if now, err = c.PullOnce(ctx, pull.ID, 250*time.Millisecond); err == nil {
			pull = now
		}
	}
	if ctx.Err() != nil && pull.ID != "" {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, cancelErr := c.CancelPull(last, pull.ID)
		return pull, errors.Join(ctx.Err(), cancelErr)
	}
	if err == nil && pull.Problem != nil {
		err = Fault(pull.Problem)
	}
	return pull, err
}

// Images lists the stored images.
func (c *Client) Images(ctx context.Context) ([]api.Image, error) {
	return get[[]api.Image](ctx, c, call{method: http.MethodGet, path: "/v1/images"})
}

// RemoveImage removes an image by name, digest or id.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	return c.done(ctx, call{method: http.MethodDelete, path: "/v1/images/" + url.PathEscape(ref)})
}
