package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/fetch"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/log"
)

func acceptManifests() http.Header {
	return http.Header{"Accept": {strings.Join(manifestTypes, ", ")}}
}

// readBody reads at most limit bytes of an answer, in bounded time.
func readBody(resp *http.Response, limit int64, what string) ([]byte, error) {
	tooLarge := &fault.Error{Code: fault.BadImage, Op: "read", Subject: what,
		Reason: fmt.Sprintf("it is larger than the limit of %d bytes", limit),
		Remedy: "Check that the reference names a container image",
		Attrs:  map[string]any{"limit_bytes": limit}}
	if resp.ContentLength > limit {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, tooLarge
	}
	return body, nil
}

// try calls fn for each endpoint until one succeeds, and starts over after a wait as long
// as that may help. The error is that of the registry itself, which comes last.
func (r *registry) try(ctx context.Context, resolve bool, fn func(context.Context, *endpoint) error) error {
	retry := r.retry()
	for {
		err := r.tryOnce(ctx, resolve, fn)
		if err == nil {
			return nil
		}
		if err := r.again(ctx, retry, err); err != nil {
			return err
		}
	}
}

func (r *registry) tryOnce(ctx context.Context, resolve bool, fn func(context.Context, *endpoint) error) error {
	var last error
	for _, e := range r.endpoints {
		if resolve && !e.resolve {
			continue
		}
		bounded, guard := fetch.NewStallGuard(ctx, r.p.cfg.Limits.Stall+r.p.cfg.Limits.Connect)
		err := fn(bounded, e)
		if err != nil && guard.Stalled() {
			err = failure.ErrStalled
		}
		guard.Close()
		if err == nil {
			return nil
		}
		last = failure.From("host", e.Host, failure.Classify(err, "pull image", r.req.Original))
		if ctx.Err() != nil {
			return last
		}
		log.G(ctx).WithError(err).WithField("host", e.Host).Info("registry host failed")
	}
	if last == nil {
		return &fault.Error{Code: fault.BadConfig, Op: "pull image", Subject: r.req.Original,
			Reason: "no host of hosts.toml may resolve a tag", Remedy: "Add the resolve capability, or name the image by digest"}
	}
	return last
}

// send makes one request, answering the registry's challenge for credentials.
// The caller closes the body.
func (r *registry) send(ctx context.Context, e *endpoint, method, target string, header http.Header) (*http.Response, error) {
	ctx = docker.WithScope(ctx, "repository:"+e.repository+":pull")
	var answers []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, method, target, nil)
		if err != nil {
			return nil, err
		}
		for key, values := range e.Header {
			req.Header[key] = values
		}
		for key, values := range header {
			req.Header[key] = values
		}
		req.Header.Set("User-Agent", r.p.cfg.UserAgent)
		if err := e.Authorizer.Authorize(ctx, req); err != nil {
			return nil, fmt.Errorf("authorize: %w", err)
		}
		resp, err := e.Client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusUnauthorized && len(answers) < 2 {
			answers = append(answers, resp)
			err := r.answerChallenge(ctx, e, answers)
			if err == nil {
				_ = resp.Body.Close()
				continue
			}
			if !errors.Is(err, errNoScheme) {
				_ = resp.Body.Close()
				return nil, err
			}
		}
		if resp.StatusCode > 299 {
			defer resp.Body.Close()
			return nil, r.statusError(e, resp)
		}
		return resp, nil
	}
}

var errNoScheme = errors.New("the registry asks for no scheme that is known")

func (r *registry) answerChallenge(ctx context.Context, e *endpoint, answers []*http.Response) error {
	last := answers[len(answers)-1]
	challenges := auth.ParseAuthHeader(last.Header)
	if len(challenges) == 0 {
		return errNoScheme
	}
	for _, c := range challenges {
		realm, err := url.Parse(c.Parameters["realm"])
		if c.Scheme == auth.BearerAuth && last.Request.URL.Scheme == "https" && err == nil && realm.Scheme == "http" &&
			(r.req.TLSVerify == nil || *r.req.TLSVerify) {
			return &fault.Error{Code: fault.Auth, Op: "authenticate with", Subject: e.Host,
				Reason: "the registry wants the credentials sent in clear text to " + realm.Host,
				Remedy: "Correct the registry's token realm, or use --tls-verify=false if that is intended"}
		}
	}
	if err := e.Authorizer.AddResponses(ctx, answers); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	return nil
}

// statusError keeps the text of the registry, at most one line of it.
func (r *registry) statusError(e *endpoint, resp *http.Response) error {
	s := &failure.StatusError{Status: resp.StatusCode, Host: e.Host}
	s.RetryAfter = fetch.ParseRetryAfter(resp.Header.Get("Retry-After"), r.p.cfg.Now())
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(bytes.TrimSpace(body), &answer) == nil && len(answer.Errors) > 0 {
		s.Detail = fault.OneLine(answer.Errors[0].Code+": "+answer.Errors[0].Message, 200)
	}
	return s
}

func (r *registry) retry() *fetch.Retry {
	l := r.p.cfg.Limits
	retry := &fetch.Retry{Limit: l.Retries, Delay: l.Backoff, MaxDelay: l.MaxBackoff, OnRetry: r.onRetry}
	if r.req.Retry != nil {
		retry.Limit = *r.req.Retry
	}
	if r.req.RetryDelay != nil {
		retry.Delay = *r.req.RetryDelay
	}
	return retry
}

// again does what is necessary before a request that failed with err is made once more: it
// waits for the node's network, or sets the clock, neither of which counts as a retry, or
// waits as retry says. An error means that there is no other try.
func (r *registry) again(ctx context.Context, retry *fetch.Retry, err error) error {
	err = r.p.withSources(err)
	if fault.CodeOf(err) == fault.Clock {
		return r.repairClock(ctx, err)
	}
	if r.network == nil || ctx.Err() != nil || !fetch.Transient(err) {
		return retry.Wait(ctx, err)
	}
	waited, missing := r.network.Wait(ctx, err)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case waited:
		return nil
	case missing != "":
		return &fault.Error{Code: fault.CodeOf(err), Op: "pull image", Subject: r.req.Original, Err: err,
			Reason: fmt.Sprintf("the node was not ready within %s: it waited for %s", r.network.Limit(), fault.OneLine(missing, 300)),
			Remedy: "Check the node's cable, switch port and DHCP; careen.toml sets how long to wait: [network] wait"}
	}
	return retry.Wait(ctx, err)
}
