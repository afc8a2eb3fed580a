package image

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

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

// store makes the picture real. Everything is made under a lease, which keeps
// containerd's garbage collector away until the image record holds it all, and
// which takes everything with it when the pull fails.
func (p *Puller) store(ctx context.Context, j *job, src source, pic *picture) (_ *Image, err error) {
	lease, err := p.client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithLabel(labelPull, "1"),
		// An agent that dies here leaves its lease, see Recover; nobody pulls longer.
		leases.WithExpiration(2*p.cfg.Limits.Total))
	if err != nil {
		return nil, unreachable("pull image", j.req.Original, err)
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

	layers := layersOf(pic)
	fetched, err := p.unpackAll(ctx, j, src, layers, lease)
	if err != nil {
		return nil, err
	}
	return p.record(ctx, pic, layers, !fetched)
}

// labelPull marks the leases of pulls.
const labelPull = "careen/pull"

// Recover removes what pulls of an earlier process left when that was killed. It
// is for the start of the only agent of a containerd, before the first pull.
func (p *Puller) Recover(ctx context.Context) error {
	ctx = namespaces.WithNamespace(ctx, p.cfg.Namespace)
	manager := p.client.LeasesService()
	left, err := manager.List(ctx, "labels."+strconv.Quote(labelPull)+"==1")
	if err != nil {
		return unreachable("list leases", "", err)
	}
	for _, lease := range left {
		if err := manager.Delete(ctx, lease, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
			return unreachable("remove lease", lease.ID, err)
		}
	}
	return nil
}

func layersOf(pic *picture) []layer {
	ids := pic.config.RootFS.DiffIDs
	chains := identity.ChainIDs(append([]digest.Digest(nil), ids...))
	layers := make([]layer, len(ids))
	for i := range ids {
		layers[i] = layer{desc: pic.manifest.manifest.Layers[i], diffID: ids[i], chain: chains[i]}
		if i > 0 {
			layers[i].parent = chains[i-1]
		}
	}
	return layers
}

// record writes configuration, manifest and image record, in this order: each
// holds what was written before it.
func (p *Puller) record(ctx context.Context, pic *picture, layers []layer, cached bool) (*Image, error) {
	img := &Image{
		Name: pic.name, Digest: pic.manifest.desc.Digest.String(), IndexDigest: pic.index.String(),
		ID: pic.manifest.manifest.Config.Digest.String(), Config: *pic.config, PulledAt: p.cfg.Now(),
		Annotations: pic.manifest.manifest.Annotations,
		Platform:    platforms.Format(platforms.Normalize(pic.config.Platform)), FromCache: cached,
		Accepted: pic.accepted,
	}
	refs := map[string]string{}
	for _, l := range layers {
		usage, err := p.snapshots().Usage(ctx, l.chain.String())
		if err != nil {
			return nil, unreachable("measure image", pic.name, err)
		}
		img.Size += usage.Size
		img.ChainID = l.chain.String()
		refs["containerd.io/gc.ref.snapshot."+p.cfg.Snapshotter] = img.ChainID
	}
	if err := p.write(ctx, pic.manifest.manifest.Config, pic.raw, refs); err != nil {
		return nil, err
	}
	// No reference to the layers' blobs: they are not there, and the collector
	// should not keep them if another client brings them.
	desc := pic.manifest.desc
	if err := p.write(ctx, desc, pic.manifest.body, map[string]string{"containerd.io/gc.ref.content.config": img.ID}); err != nil {
		return nil, err
	}
	record := images.Image{Name: pic.name, Target: desc, Labels: map[string]string{
		labelPulledAt: img.PulledAt.UTC().Format(time.RFC3339Nano), labelSize: strconv.FormatInt(img.Size, 10),
	}}
	maps.Copy(record.Labels, labelsOf(pic.accepted))
	if img.IndexDigest != "" {
		record.Labels[labelIndex] = img.IndexDigest
	}
	store := p.client.ImageService()
	_, err := store.Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		_, err = store.Update(ctx, record)
	}
	if err != nil {
		return nil, unreachable("record image", pic.name, err)
	}
	return img, nil
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
		return unreachable("store", fmt.Sprintf("%s of %d bytes", desc.MediaType, desc.Size), err)
	}
	return nil
}
