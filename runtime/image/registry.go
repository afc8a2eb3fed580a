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
	"github.com/careen-project/careen/runtime/netready"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/log"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is an image in a registry.
type registry struct {
	p         *Puller
	req       *Request
	ref       reference.Named
	endpoints []*endpoint
	onRetry   func()
	// gate waits for a node that is not ready; nil does not.
	gate *netready.Gate
	// warn takes what was done to the node for the pull; it may be nil.
	warn func(string)
}

var manifestTypes = []string{
	ocispec.MediaTypeImageIndex, images.MediaTypeDockerSchema2ManifestList,
	ocispec.MediaTypeImageManifest, images.MediaTypeDockerSchema2Manifest,
}

func (p *Puller) openRegistry(ctx context.Context, req *Request, ref reference.Named, onRetry func()) (*registry, error) {
	creds, err := p.credentials(req, ref)
	if err != nil {
		return nil, err
	}
	endpoints, err := p.endpoints(ctx, ref, req, creds)
	if err != nil {
		return nil, err
	}
	return &registry{p: p, req: req, ref: ref, endpoints: endpoints, onRetry: onRetry}, nil
}

func (r *registry) Close() error {
	for _, e := range r.endpoints {
		for _, t := range *e.transports {
			t.CloseIdleConnections()
		}
	}
	return nil
}

// object is the tag or digest that the request names.
func (r *registry) object() (string, digest.Digest) {
	if d, ok := r.ref.(reference.Digested); ok {
		return d.Digest().String(), d.Digest()
	}
	return r.ref.(reference.Tagged).Tag(), ""
}

// head returns the digest that the name means now, "" if the registry does not
// say it without sending the manifest. Registries that count pulls do not count
// this.
func (r *registry) head(ctx context.Context) (digest.Digest, error) {
	object, want := r.object()
	if want != "" {
		return want, nil
	}
	var found digest.Digest
	err := r.try(ctx, true, func(ctx context.Context, e *endpoint) error {
		resp, err := r.send(ctx, e, http.MethodHead, e.url("manifests", object), acceptManifests())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		found = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
		if found.Validate() != nil {
			found = ""
		}
		return nil
	})
	return found, err
}

// root fetches what the name means.
func (r *registry) root(ctx context.Context) (*document, error) {
	object, want := r.object()
	return r.fetchManifest(ctx, object, want, want == "", r.p.cfg.Limits.MaxManifest)
}

func (r *registry) manifest(ctx context.Context, desc ocispec.Descriptor) (*document, error) {
	return r.fetchManifest(ctx, desc.Digest.String(), desc.Digest, false, r.p.cfg.Limits.MaxManifest)
}

func (r *registry) fetchManifest(ctx context.Context, object string, want digest.Digest, resolve bool, limit int64) (*document, error) {
	var doc *document
	err := r.try(ctx, resolve, func(ctx context.Context, e *endpoint) error {
		resp, err := r.send(ctx, e, http.MethodGet, e.url("manifests", object), acceptManifests())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := readBody(resp, limit, "manifest")
		if err != nil {
			return err
		}
		expected := want
		if header := digest.Digest(resp.Header.Get("Docker-Content-Digest")); expected == "" && header.Validate() == nil {
			expected = header
		}
		doc, err = newDocument(body, resp.Header.Get("Content-Type"), expected)
		return err
	})
	return doc, err
}

// small fetches a whole blob of a known size: the configuration.
func (r *registry) small(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	blob, err := r.blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	return readVerified(blob, desc)
}

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

// try runs fn on each endpoint until one succeeds, and starts over after a wait
// as long as that may help. The error is the origin's: it comes last.
func (r *registry) try(ctx context.Context, resolve bool, fn func(context.Context, *endpoint) error) error {
	retry := r.p.retrier(r.req, r.onRetry)
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
		bounded, guard := newStallGuard(ctx, r.p.cfg.Limits.Stall+r.p.cfg.Limits.Connect)
		err := fn(bounded, e)
		if err != nil && guard.stalled() {
			err = errStalled
		}
		guard.close()
		if err == nil {
			return nil
		}
		last = classify(err, "pull image", r.req.Original)
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

// statusError keeps what the registry said, in at most a line.
func (r *registry) statusError(e *endpoint, resp *http.Response) error {
	s := &statusError{status: resp.StatusCode, host: e.Host}
	s.retryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), r.p.cfg.Now())
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(bytes.TrimSpace(body), &answer) == nil && len(answer.Errors) > 0 {
		s.detail = fault.OneLine(answer.Errors[0].Code+": "+answer.Errors[0].Message, 200)
	}
	return s
}
