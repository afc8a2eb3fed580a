package image

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/fetch"
	"github.com/careen-project/careen/runtime/netready"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is an image in a registry, which may have mirrors.
type registry struct {
	p         *Puller
	req       *Request
	ref       reference.Named
	endpoints []*endpoint
	// network waits for a node without a network; nil does not wait.
	network *netready.Waiter
	onRetry func()
	onWarn  func(string)
}

var manifestTypes = []string{
	ocispec.MediaTypeImageIndex, images.MediaTypeDockerSchema2ManifestList,
	ocispec.MediaTypeImageManifest, images.MediaTypeDockerSchema2Manifest,
}

// openRegistry opens the registry of one full name. It makes no request.
func (j *job) openRegistry(ctx context.Context, name string, present bool) (*registry, error) {
	ref, err := reference.ParseNamed(name)
	if err != nil {
		return nil, fmt.Errorf("image record %q: %w", name, err)
	}
	creds, err := j.p.credentials(j.req, ref)
	if err != nil {
		return nil, err
	}
	endpoints, err := j.p.endpoints(ctx, ref, j.req, creds)
	if err != nil {
		return nil, err
	}
	r := &registry{p: j.p, req: j.req, ref: ref, endpoints: endpoints, network: j.network, onRetry: j.hooks.onRetry, onWarn: j.hooks.onWarn}
	if present && j.req.Policy == Newer {
		r.network = nil // the present image is good enough
	}
	return r, nil
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

// digest asks with HEAD, which registries that count pulls do not count, and then, if the
// answer has no digest, with GET.
func (r *registry) digest(ctx context.Context) (digest.Digest, error) {
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
	if err != nil || found != "" {
		return found, err
	}
	doc, err := r.root(ctx)
	if err != nil {
		return "", err
	}
	return doc.desc.Digest, nil
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

func (r *registry) blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	retry := r.retry()
	limits := r.p.cfg.Limits
	blob, err := fetch.Open(context.WithValue(ctx, blobRequest{}, true), fetch.Options{
		Name: desc.Digest.String(), Size: desc.Size, Hosts: len(r.endpoints), Stall: limits.Stall, Connect: limits.Connect,
		Get: func(ctx context.Context, host int, header http.Header) (*http.Response, error) {
			e := r.endpoints[host]
			return r.send(ctx, e, http.MethodGet, e.url("blobs", desc.Digest.String()), header)
		},
		Failed: func(ctx context.Context, host int, err error) error {
			err = failure.From("host", r.endpoints[host].Host, failure.Classify(err, "pull image", r.req.Original))
			if ctx.Err() != nil {
				return err
			}
			return r.again(ctx, retry, err)
		},
		Progress: retry.Progress,
	})
	if err != nil {
		return nil, err
	}
	return blob, nil
}

func (r *registry) probe(ctx context.Context, desc ocispec.Descriptor, at int64, b []byte) error {
	ctx, guard := fetch.NewStallGuard(ctx, r.p.cfg.Limits.Connect)
	defer guard.Close()
	e := r.endpoints[0]
	resp, err := r.send(ctx, e, http.MethodGet, e.url("blobs", desc.Digest.String()), http.Header{"Range": {fetch.ByteRange(at, len(b))}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return &fault.Error{Code: fault.Registry, Op: "read part of", Subject: desc.Digest.String()}
	}
	_, err = io.ReadFull(resp.Body, b)
	return err
}

// from names the host that a blob was downloaded from, or the registry.
func (r *registry) from(blob io.Reader, err error) error {
	host := r.endpoints[len(r.endpoints)-1].Host
	if b, ok := blob.(*fetch.Blob); ok && b != nil {
		host = r.endpoints[b.Host()].Host
	}
	return failure.From("host", host, err)
}
