package image

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Labels of an image record, for what containerd's record has no field for.
const (
	labelIndex    = "careen/index-digest"
	labelPulledAt = "careen/pulled-at"
	labelSize     = "careen/unpacked-size"
)

// Get describes a present image. The name is an
// image record's, or a reference that becomes one when it is completed with
// Docker's defaults. The error is [fault.NotFound] if the image is not present,
// [fault.Unreachable] if containerd does not answer, or [fault.Internal].
func (p *Puller) Get(ctx context.Context, name string) (*Image, error) {
	ctx = namespaces.WithNamespace(ctx, p.cfg.Namespace)
	for _, n := range recordNames(name) {
		img, err := p.find(ctx, n, nil)
		if img != nil || err != nil {
			return img, err
		}
	}
	return nil, &fault.Error{Code: fault.NotFound, Op: "find image", Subject: name, Reason: "it is not present",
		Remedy: "List what is present with: careen images"}
}

func recordNames(name string) []string {
	names := []string{name}
	if ref, err := reference.ParseDockerRef(name); err == nil && ref.String() != name {
		names = append(names, ref.String())
	}
	return names
}

// List describes all present images, in the order of their names. An image of
// which a part is missing is left out: it is not present. The error is
// [fault.Unreachable] if containerd does not answer, or [fault.Internal].
func (p *Puller) List(ctx context.Context) ([]*Image, error) {
	ctx = namespaces.WithNamespace(ctx, p.cfg.Namespace)
	records, err := p.client.ImageService().List(ctx)
	if err != nil {
		return nil, failure.Containerd("list images", "", err)
	}
	var all []*Image
	for _, record := range records {
		img, err := p.describe(ctx, record)
		if err != nil {
			return nil, err
		}
		if img != nil {
			all = append(all, img)
		}
	}
	return all, nil
}

// Delete removes an image and everything that only it needed, and returns when
// its space is free. Snapshots that a container uses stay; the caller has to know
// whether there are any. The error is [fault.NotFound] if the image is not present,
// [fault.Unreachable] if containerd does not answer, or [fault.Internal].
func (p *Puller) Delete(ctx context.Context, name string) error {
	ctx = namespaces.WithNamespace(ctx, p.cfg.Namespace)
	var err error
	for _, n := range recordNames(name) {
		err = p.client.ImageService().Delete(ctx, n, images.SynchronousDelete())
		if err == nil {
			return nil
		}
		if !errdefs.IsNotFound(err) {
			return failure.Containerd("remove image", name, err)
		}
	}
	return &fault.Error{Code: fault.NotFound, Op: "remove image", Subject: name, Err: err, Reason: "it is not present"}
}

// find returns nil when the image is not wholly present, or not for a platform that
// fits; nil is any.
func (p *Puller) find(ctx context.Context, name string, fits platforms.Matcher) (*Image, error) {
	record, err := p.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.Containerd("find image", name, err)
	}
	img, err := p.describe(ctx, record)
	if img == nil || err != nil {
		return nil, err
	}
	has := platforms.Normalize(img.Config.Platform)
	if fits != nil && has.Architecture != "" && !fits.Match(has) {
		return nil, nil
	}
	return img, nil
}

// describe reads the image of a record; it returns nil if a part is missing.
func (p *Puller) describe(ctx context.Context, record images.Image) (*Image, error) {
	manifest, config, err := p.readImage(ctx, record)
	if err != nil || config == nil {
		return nil, err
	}
	img := &Image{
		Name: record.Name, Digest: record.Target.Digest.String(), IndexDigest: record.Labels[labelIndex],
		ID: manifest.Config.Digest.String(), Config: *config, Annotations: manifest.Annotations, PulledAt: record.UpdatedAt,
		Platform: platforms.Format(platforms.Normalize(config.Platform)), FromCache: true,
		stored: signaturesIn(record.Labels),
	}
	if at, err := time.Parse(time.RFC3339Nano, record.Labels[labelPulledAt]); err == nil {
		img.PulledAt = at
	}
	img.Size, _ = strconv.ParseInt(record.Labels[labelSize], 10, 64)
	if len(config.RootFS.DiffIDs) > 0 {
		img.ChainID = identity.ChainID(config.RootFS.DiffIDs).String()
		if _, err := p.snapshots().Stat(ctx, img.ChainID); errdefs.IsNotFound(err) {
			return nil, nil
		} else if err != nil {
			return nil, failure.Containerd("find image", record.Name, err)
		}
	}
	return img, nil
}

func (p *Puller) readImage(ctx context.Context, record images.Image) (*ocispec.Manifest, *ocispec.Image, error) {
	var manifest ocispec.Manifest
	var config ocispec.Image
	if !images.IsManifestType(record.Target.MediaType) {
		return nil, nil, nil // another client's record
	}
	raw, err := p.readContent(ctx, record.Target, &manifest)
	if raw == nil {
		return nil, nil, err
	}
	raw, err = p.readContent(ctx, manifest.Config, &config)
	if raw == nil {
		return nil, nil, err
	}
	return &manifest, &config, nil
}

// readContent returns nil and no error for content that is absent.
func (p *Puller) readContent(ctx context.Context, desc ocispec.Descriptor, v any) ([]byte, error) {
	if desc.Size > max(p.cfg.Limits.MaxManifest, p.cfg.Limits.MaxConfig) {
		return nil, nil
	}
	raw, err := content.ReadBlob(ctx, p.client.ContentStore(), desc)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.Containerd("read image", desc.Digest.String(), err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, fmt.Errorf("stored content %s: %w", desc.Digest, err)
	}
	return raw, nil
}

// touch records that the registry was asked and that the image is current.
func (p *Puller) touch(ctx context.Context, img *Image) error {
	record := images.Image{Name: img.Name, Labels: map[string]string{labelPulledAt: img.PulledAt.UTC().Format(time.RFC3339Nano)}}
	if _, err := p.client.ImageService().Update(ctx, record, "labels."+labelPulledAt); err != nil {
		return failure.Containerd("update image", img.Name, err)
	}
	return nil
}
