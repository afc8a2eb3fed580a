package runtime

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/verify"
)

// Image makes an image present as the pull policy in p says, and reports progress. With
// [container.WithBusy] in ctx it is a background pull. A cancelled ctx ends the pull and
// leaves nothing incomplete. Errors have the codes of [image.Puller.Pull] and of
// [verify.Policy.Check].
func (e *Engine) Image(ctx context.Context, p *oci.Pull, progress func(api.PullProgress)) (container.ImageInfo, error) {
	req := pullRequest(p)
	if e.cfg.ImagePolicy != nil {
		req.Admit = func(ctx context.Context, c *image.Candidate) (*verify.Accepted, error) {
			return e.admit(ctx, p.Image, c)
		}
	}
	req.Busy = container.Busy(ctx)
	var pass func(image.Progress)
	if progress != nil {
		pass = func(p image.Progress) { progress(progressOf(p)) }
	}
	pulled, err := e.puller.Pull(ctx, req, pass)
	if err != nil {
		return container.ImageInfo{}, err
	}
	return container.ImageInfo{
		Reference: pulled.Name, Digest: pulled.Digest, ID: pulled.ID, Pulled: !pulled.FromCache, Handle: pulled,
		SignedBy: signedBy(pulled.Accepted),
	}, nil
}

// admit applies the image policy to an image under its full name: what registries.conf
// makes of a short name is known only now.
func (e *Engine) admit(ctx context.Context, ref oci.Reference, c *image.Candidate) (*verify.Accepted, error) {
	if ref.Transport == oci.TransportDocker {
		var err error
		if ref, err = oci.ParseReference(c.Name); err != nil {
			return nil, err
		}
	}
	return e.cfg.ImagePolicy.Check(ctx, verify.Image{Reference: ref, Manifest: c.Manifest, Signatures: c.Signatures})
}

// progressOf returns progress as the API sends it.
func progressOf(p image.Progress) api.PullProgress {
	out := api.PullProgress{Status: p.Status, Message: p.Message, Done: p.Done, Total: p.Total, Rate: p.Rate,
		Retries: p.Retries, Warnings: p.Warnings, Layers: make([]api.LayerProgress, len(p.Layers))}
	for i, l := range p.Layers {
		out.Layers[i] = api.LayerProgress(l)
	}
	return out
}

// signedBy lists the keys that vouched for an image, for the audit record.
func signedBy(accepted *verify.Accepted) []api.Signer {
	if accepted == nil {
		return nil
	}
	var all []api.Signer
	for _, s := range accepted.Signers {
		all = append(all, api.Signer{Key: s.Key, Identity: s.Identity})
	}
	return all
}

// pullRequest returns a pull's options as package image takes them.
func pullRequest(p *oci.Pull) *image.Request {
	name := p.Image.Name
	if p.Image.Digest != "" {
		name, _, _ = strings.Cut(name, "@")
	}
	if p.Image.Tag != "" {
		name = strings.TrimSuffix(name, ":"+p.Image.Tag)
	}
	var delay *time.Duration
	if p.RetryDelay > 0 {
		delay = &p.RetryDelay
	}
	var retry *int
	if p.Retry >= 0 {
		retry = &p.Retry
	}
	return &image.Request{
		Original: p.Image.Original, Transport: image.Transport(p.Image.Transport),
		Name: name, Tag: p.Image.Tag, Digest: p.Image.Digest, Path: p.Image.Path,
		Policy: image.Policy(p.Policy), Creds: p.Creds, AuthFile: p.AuthFile, CertDir: p.CertDir, TLSVerify: p.TLSVerify,
		Retry: retry, RetryDelay: delay, Platform: image.Platform(p.Platform),
	}
}

// Images lists the images in the store. Errors are those of [image.Puller.List].
func (e *Engine) Images(ctx context.Context) ([]api.Image, error) {
	images, err := e.puller.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Image, 0, len(images))
	for _, i := range images {
		image := api.Image{
			Name: i.Name, Digest: i.Digest, ID: i.ID, Size: i.Size, Platform: i.Platform, PulledAt: i.PulledAt,
		}
		if i.Config.Created != nil {
			image.CreatedAt = *i.Config.Created
		}
		out = append(out, image)
	}
	return out, nil
}

// RemoveImage removes an image that is given by name, digest or id (at least its first
// twelve digits). Errors are conflict (a container was made from it), not_found,
// runtime or unreachable (an external containerd).
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	ctx = e.context(ctx)
	images, err := e.puller.List(ctx)
	if err != nil {
		return err
	}
	name, chain := "", ""
	for _, image := range images {
		if image.Name == ref || image.Digest == ref || idMatches(image.ID, ref) {
			name, chain = image.Name, image.ChainID
			break
		}
	}
	if name == "" {
		// Its error says in which forms names are known.
		return e.puller.Delete(ctx, ref)
	}
	containers, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return runtimeError("list containers of", Namespace, err)
	}
	for _, c := range containers {
		info, err := e.client.SnapshotService(e.cfg.Snapshotter).Stat(ctx, c.SnapshotKey)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err == nil && info.Parent == chain {
			return &fault.Error{Code: fault.Conflict, Op: "remove image", Subject: ref,
				Reason: "run " + c.Labels[labelRun] + " uses it", Remedy: "Abort the run, or wait for its end"}
		}
	}
	return e.puller.Delete(ctx, name)
}

// idMatches compares an image id with at least its first twelve digits.
func idMatches(id, ref string) bool {
	ref = strings.TrimPrefix(ref, "sha256:")
	return len(ref) >= 12 && strings.HasPrefix(strings.TrimPrefix(id, "sha256:"), ref)
}
