package image

import (
	"context"
	"io"
	"sync"

	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// fetchLayers makes the snapshots of all layers present and holds them with the lease. It
// reports whether a layer had to be fetched.
//
// Layers are downloaded and unpacked in parallel, each into its own directory, since
// overlay's whiteouts do not depend on the layers below. They are then completed and
// committed from the lowest to the highest.
func (p *Puller) fetchLayers(ctx context.Context, j *job, src source, layers []layer, lease leases.Lease) (bool, error) {
	first, err := p.presentLayers(ctx, layers, lease)
	if err != nil {
		return false, err
	}
	if first < len(layers) {
		waited, err := j.hooks.preLayers(ctx)
		if err != nil {
			return false, err
		}
		if waited { // another pull may have brought some of them
			if first, err = p.presentLayers(ctx, layers, lease); err != nil {
				return false, err
			}
		}
	}
	j.hooks.onPlan(layers, first)
	if first == len(layers) {
		return false, nil
	}
	intoDir := p.hasSnapshotDirs(ctx)
	if err := p.checkSpace(ctx, src, layers[first:]); err != nil {
		return false, failure.From("store", p.storeDir(), err)
	}
	u := &unpacker{p: p, intoDir: intoDir, j: j, src: src, layers: layers, lease: lease, budget: newBudget(p),
		slots: semaphore.NewWeighted(p.parallel(intoDir))}
	if err := u.run(ctx, first); err != nil {
		return true, err
	}
	return true, context.Cause(ctx)
}

// run fetches all layers from the first that is absent.
func (u *unpacker) run(ctx context.Context, first int) error {
	group, inner := errgroup.WithContext(ctx)
	below := make(chan struct{})
	close(below)
	for i := first; i < len(u.layers); i++ {
		// Slots are given from the lowest layer up: a layer that waits for one below
		// never holds the slot that the one below needs.
		release, err := u.acquire(inner)
		if err != nil {
			break
		}
		ready, done := below, make(chan struct{})
		group.Go(func() error {
			err := u.layer(inner, i, ready, release)
			if err == nil {
				close(done)
			}
			return err
		})
		below = done
	}
	return group.Wait()
}

// parallel is the number of layers that are in work at once.
func (p *Puller) parallel(intoDir bool) int64 {
	if !intoDir {
		return 1
	}
	return int64(p.cfg.Limits.Parallel)
}

// presentLayers returns how many of the lowest layers are present, and holds them.
func (p *Puller) presentLayers(ctx context.Context, layers []layer, lease leases.Lease) (int, error) {
	for n := len(layers); n > 0; n-- {
		ok, err := p.hold(ctx, lease, layers[n-1].chain.String())
		if err != nil {
			return 0, err
		}
		if ok {
			return n, nil
		}
	}
	return 0, nil
}

// hold adds a snapshot, and so its parents, to the lease. It reports whether the snapshot
// exists, which it checks after adding: before that the garbage collector may delete it.
func (p *Puller) hold(ctx context.Context, lease leases.Lease, chain string) (bool, error) {
	if _, err := p.snapshots().Stat(ctx, chain); errdefs.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, failure.Containerd("find snapshot", chain, err)
	}
	resource := leases.Resource{ID: chain, Type: "snapshots/" + p.cfg.Snapshotter}
	if err := p.client.LeasesService().AddResource(ctx, lease, resource); err != nil && !errdefs.IsAlreadyExists(err) {
		return false, failure.Containerd("hold snapshot", chain, err)
	}
	_, err := p.snapshots().Stat(ctx, chain)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, failure.Containerd("find snapshot", chain, err)
	}
	return true, nil
}

// unpacker makes the layers of one image present.
type unpacker struct {
	p      *Puller
	j      *job
	src    source
	layers []layer
	lease  leases.Lease
	slots  *semaphore.Weighted
	budget *budget
	// intoDir says that layers are unpacked into the snapshots' directories.
	intoDir bool
}

// acquire waits for a slot for one more layer. release returns the slot; it may be called
// more than once. A background pull takes all slots while a step runs, so it has one layer
// in work at a time.
func (u *unpacker) acquire(ctx context.Context) (release func(), err error) {
	weight := int64(1)
	if busyFunc(u.j.req.Busy).now() {
		weight = u.p.parallel(u.intoDir)
	}
	if err := u.slots.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { u.slots.Release(weight) }), nil
}

// layer makes one layer's snapshot present. The caller has a slot for it, which layer
// releases when it needs no processor any more. below is closed when the parent is
// committed.
func (u *unpacker) layer(ctx context.Context, i int, below <-chan struct{}, release func()) error {
	defer release()
	l := u.layers[i]
	for {
		shared, err := u.p.unpacking.do(ctx, u.p.cfg.Snapshotter+"/"+l.chain.String(), u.j.req.Busy, func(busy busyFunc) error {
			if !u.intoDir {
				return u.applyByContainerd(ctx, i, below, busy)
			}
			return u.unpackIntoDir(ctx, i, below, release, busy)
		})
		if err != nil {
			return err
		}
		ok := true
		if shared {
			// The other pull may have failed since, and its snapshot be collected.
			if ok, err = u.p.hold(ctx, u.lease, l.chain.String()); err != nil {
				return err
			}
		}
		if ok {
			u.j.hooks.postLayer(i)
			return nil
		}
	}
}

// meter returns a reader of a layer's blob that counts what arrives and, for a
// background pull, limits its rate.
func (u *unpacker) meter(ctx context.Context, i int, blob io.Reader, busy busyFunc) io.Reader {
	return u.paced(ctx, &meter{blob, u.j.hooks.preLayer(i)}, busy)
}

func (u *unpacker) paced(ctx context.Context, r io.Reader, busy busyFunc) io.Reader {
	if busy == nil {
		return r
	}
	return &paced{r: r, ctx: ctx, limit: u.p.background, busy: busy}
}

// meter is a reader that reports the number of bytes of each read.
type meter struct {
	r      io.Reader
	onRead func(n int)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.onRead(n)
	return n, err
}

// discard removes an active snapshot, if it was not committed.
func (u *unpacker) discard(ctx context.Context, key string) {
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	if err := u.p.snapshots().Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).WithField("key", key).Warn("cannot remove the snapshot of a pull")
	}
}
