package image

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (p *Puller) snapshots() snapshots.Snapshotter {
	return p.client.SnapshotService(p.cfg.Snapshotter)
}

// store fetches the layers and writes the image record. A lease protects everything from
// containerd's garbage collector until the image record does, and removes everything when
// the pull fails.
func (p *Puller) store(ctx context.Context, j *job, src source, img *resolvedImage) (_ *Image, err error) {
	lease, err := p.client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithLabel(labelPull, "1"),
		// An agent that dies here leaves its lease, see Recover. No pull takes longer.
		leases.WithExpiration(2*p.cfg.Limits.Total))
	if err != nil {
		return nil, failure.Containerd("pull image", j.req.Original, err)
	}
	ctx = leases.WithLease(ctx, lease.ID)
	defer func() {
		clean, cancel := cleanupContext(ctx)
		defer cancel()
		var opts []leases.DeleteOpt
		if err != nil {
			opts = append(opts, leases.SynchronousDelete)
		}
		if err := p.client.LeasesService().Delete(clean, lease, opts...); err != nil && !errdefs.IsNotFound(err) {
			log.G(ctx).WithError(err).Warn("cannot delete the lease of a pull")
		}
	}()

	layers := layersOf(img)
	fetched, err := p.fetchLayers(ctx, j, src, layers, lease)
	if err != nil {
		return nil, err
	}
	return p.record(ctx, img, layers, !fetched)
}

// labelPull marks the leases of pulls.
const labelPull = "careen/pull"

// Recover removes what the pulls of a killed process left. Call it at the start of the only
// agent of a containerd, before the first pull. The error is [fault.Unreachable] if
// containerd does not answer, or [fault.Internal].
func (p *Puller) Recover(ctx context.Context) error {
	ctx = namespaces.WithNamespace(ctx, p.cfg.Namespace)
	manager := p.client.LeasesService()
	left, err := manager.List(ctx, "labels."+strconv.Quote(labelPull)+"==1")
	if err != nil {
		return failure.Containerd("list leases", "", err)
	}
	for _, lease := range left {
		if err := manager.Delete(ctx, lease, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
			return failure.Containerd("remove lease", lease.ID, err)
		}
	}
	return nil
}

func layersOf(img *resolvedImage) []layer {
	ids := img.config.RootFS.DiffIDs
	chains := identity.ChainIDs(append([]digest.Digest(nil), ids...))
	layers := make([]layer, len(ids))
	for i := range ids {
		layers[i] = layer{desc: img.manifest.manifest.Layers[i], diffID: ids[i], chain: chains[i]}
		if i > 0 {
			layers[i].parent = chains[i-1]
		}
	}
	return layers
}

// record writes configuration, manifest and image record, in this order: each
// protects what was written before it.
func (p *Puller) record(ctx context.Context, img *resolvedImage, layers []layer, cached bool) (*Image, error) {
	made := &Image{
		Name: img.name, Digest: img.manifest.desc.Digest.String(), IndexDigest: img.index.String(),
		ID: img.manifest.manifest.Config.Digest.String(), Config: *img.config, PulledAt: p.cfg.Now(),
		Annotations: img.manifest.manifest.Annotations,
		Platform:    platforms.Format(platforms.Normalize(img.config.Platform)), FromCache: cached,
		Accepted: img.accepted,
	}
	refs := map[string]string{}
	for _, l := range layers {
		usage, err := p.snapshots().Usage(ctx, l.chain.String())
		if err != nil {
			return nil, failure.Containerd("measure image", img.name, err)
		}
		made.Size += usage.Size
		made.ChainID = l.chain.String()
		refs["containerd.io/gc.ref.snapshot."+p.cfg.Snapshotter] = made.ChainID
	}
	if err := p.write(ctx, img.manifest.manifest.Config, img.raw, refs); err != nil {
		return nil, err
	}
	// No reference to the layers' blobs: they are absent, and the garbage collector
	// should not keep them if another client brings them.
	desc := img.manifest.desc
	if err := p.write(ctx, desc, img.manifest.body, map[string]string{"containerd.io/gc.ref.content.config": made.ID}); err != nil {
		return nil, err
	}
	record := images.Image{Name: img.name, Target: desc, Labels: map[string]string{
		labelPulledAt: made.PulledAt.UTC().Format(time.RFC3339Nano), labelSize: strconv.FormatInt(made.Size, 10),
	}}
	maps.Copy(record.Labels, labelsOf(img.accepted))
	if made.IndexDigest != "" {
		record.Labels[labelIndex] = made.IndexDigest
	}
	store := p.client.ImageService()
	_, err := store.Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		_, err = store.Update(ctx, record)
	}
	if err != nil {
		return nil, failure.Containerd("record image", img.name, err)
	}
	return made, nil
}

// write puts a small blob into the content store with labels for the collector;
// one that is there already gets the labels.
func (p *Puller) write(ctx context.Context, desc ocispec.Descriptor, data []byte, labels map[string]string) error {
	cs := p.client.ContentStore()
	desc.Size = int64(len(data))
	err := content.WriteBlob(ctx, cs, "careen-"+desc.Digest.String(), bytes.NewReader(data), desc, content.WithLabels(labels))
	if err == nil && len(labels) > 0 {
		info := content.Info{Digest: desc.Digest, Labels: labels}
		var fields []string
		for key := range labels {
			fields = append(fields, "labels."+key)
		}
		_, err = cs.Update(ctx, info, fields...)
	}
	if err != nil {
		return failure.Containerd("store", fmt.Sprintf("%s of %d bytes", desc.MediaType, desc.Size), err)
	}
	return nil
}
