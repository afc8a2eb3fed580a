package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/unpack/untar"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// unpackAll makes the snapshots of all layers present and holds them with the
// lease. It reports whether anything had to be fetched.
//
// Layers are downloaded and unpacked at the same time, each into a directory of
// its own, since overlay's whiteouts need nothing of the layers below. They are
// then completed and committed from the lowest to the highest.
func (p *Puller) unpackAll(ctx context.Context, j *job, src source, layers []layer, lease leases.Lease) (bool, error) {
	first, err := p.present(ctx, layers, lease)
	if err != nil {
		return false, err
	}
	if first < len(layers) && j.needsJitter() {
		if err := j.jitter(ctx); err != nil {
			return false, err
		}
		if first, err = p.present(ctx, layers, lease); err != nil { // another pull's, by now
			return false, err
		}
	}
	j.progress.layers(layers, first)
	if first == len(layers) {
		return false, nil
	}
	direct := p.direct(ctx)
	if err := p.admit(ctx, src, layers[first:]); err != nil {
		return false, err
	}
	u := &unpacker{p: p, direct: direct, j: j, src: src, layers: layers, lease: lease, budget: newBudget(p),
		slots: semaphore.NewWeighted(p.parallel(direct))}
	group, inner := errgroup.WithContext(ctx)
	below := make(chan struct{})
	close(below)
	for i := first; i < len(layers); i++ {
		// Slots are given from the lowest layer up: a layer that has to wait for
		// one below never holds the slot that that one needs.
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
	if err := group.Wait(); err != nil {
		return true, err
	}
	return true, context.Cause(ctx)
}

func (p *Puller) parallel(direct bool) int64 {
	if !direct {
		return 1
	}
	return int64(p.cfg.Limits.Parallel)
}

// present returns how many of the lowest layers are there, and holds them.
func (p *Puller) present(ctx context.Context, layers []layer, lease leases.Lease) (int, error) {
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

// hold adds a snapshot, and so its parents, to the lease. It looks after adding,
// because before that the collector may take it.
func (p *Puller) hold(ctx context.Context, lease leases.Lease, chain string) (bool, error) {
	if _, err := p.snapshots().Stat(ctx, chain); errdefs.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, unreachable("find snapshot", chain, err)
	}
	resource := leases.Resource{ID: chain, Type: "snapshots/" + p.cfg.Snapshotter}
	if err := p.client.LeasesService().AddResource(ctx, lease, resource); err != nil && !errdefs.IsAlreadyExists(err) {
		return false, unreachable("hold snapshot", chain, err)
	}
	_, err := p.snapshots().Stat(ctx, chain)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, unreachable("find snapshot", chain, err)
	}
	return true, nil
}

type unpacker struct {
	p      *Puller
	j      *job
	src    source
	layers []layer
	lease  leases.Lease
	slots  *semaphore.Weighted
	budget *budget
	direct bool
}

// acquire waits for a slot for one more layer, and returns what gives it back; that may
// be called more than once. A background pull takes all slots while a step runs, so it
// has one layer in work at a time.
func (u *unpacker) acquire(ctx context.Context) (release func(), err error) {
	weight := int64(1)
	if busyFunc(u.j.req.Busy).now() {
		weight = u.p.parallel(u.direct)
	}
	if err := u.slots.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { u.slots.Release(weight) }), nil
}

// layer makes one layer's snapshot present. It has a slot when it is called and
// gives it back once it needs no processor any more. below is closed when the
// parent is committed.
func (u *unpacker) layer(ctx context.Context, i int, below <-chan struct{}, release func()) error {
	defer release()
	l := u.layers[i]
	for {
		shared, err := u.p.flights.do(ctx, u.p.cfg.Snapshotter+"/"+l.chain.String(), u.j.req.Busy, func(busy busyFunc) error {
			if !u.direct {
				return u.apply(ctx, i, below, busy)
			}
			return u.unpack(ctx, i, below, release, busy)
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
			u.j.progress.layer(i, "done", l.desc.Size)
			return nil
		}
	}
}

// unpack fetches one layer into a directory of its own, and when the parent is
// committed makes a snapshot of it.
func (u *unpacker) unpack(ctx context.Context, i int, below <-chan struct{}, release func(), busy busyFunc) error {
	l := u.layers[i]
	key := "careen-unpack-" + uuid.NewString()
	mounts, err := u.p.snapshots().Prepare(ctx, key, "")
	if err != nil {
		return unreachable("prepare snapshot", l.chain.String(), err)
	}
	dir := ""
	defer func() {
		// The files go first. When the store is full, containerd's database has no
		// room either to note that they may go.
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
		u.discard(ctx, key)
	}()
	if dir, _, err = directories(mounts); err != nil {
		return err
	}
	place := &placement{u: u, l: l, below: below}
	defer place.close(ctx)
	target, err := untar.New(dir, untar.Options{Charge: u.budget.charge, Lower: place.lower})
	if err != nil {
		return err
	}
	defer target.Close()
	if err := u.extract(ctx, i, target, busy); err != nil {
		return err
	}
	release()
	lower, err := place.lower(ctx)
	if err != nil {
		return err
	}
	if err := target.Finish(lower); err != nil {
		return layerError(err, u.j.req.Original, l.desc)
	}
	if err := place.commit(ctx, key, dir); err != nil {
		return err
	}
	dir = "" // it is the snapshot's now
	return nil
}

// placement is where a layer goes on top of its parent. It can be known only
// when the parent is committed, which may be long after the layer has begun.
type placement struct {
	u     *unpacker
	l     layer
	below <-chan struct{}

	key   string // of the snapshot with the parent, "" before
	upper string
	dirs  []string
}

// lower waits for the parent and returns the directories of all layers below.
func (p *placement) lower(ctx context.Context) ([]string, error) {
	select {
	case <-p.below:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if p.l.parent == "" || p.key != "" {
		return p.dirs, nil
	}
	key := "careen-unpack-" + uuid.NewString()
	mounts, err := p.u.p.snapshots().Prepare(ctx, key, p.l.parent.String())
	if err != nil {
		return nil, unreachable("prepare snapshot", p.l.chain.String(), err)
	}
	p.key = key
	p.upper, p.dirs, err = directories(mounts)
	return p.dirs, err
}

// commit makes the directory the snapshot of the layer's chain: it becomes the
// upper directory of the snapshot with the parent, by renaming.
func (p *placement) commit(ctx context.Context, key, dir string) error {
	if p.l.parent != "" {
		if err := unix.Rename(dir, p.upper); err != nil {
			return fmt.Errorf("move layer into place: %w", err)
		}
		key = p.key
	}
	err := p.u.p.snapshots().Commit(ctx, p.l.chain.String(), key)
	if errdefs.IsAlreadyExists(err) { // another client was faster
		_, err = p.u.p.hold(ctx, p.u.lease, p.l.chain.String())
		return err
	}
	if err != nil {
		return unreachable("commit snapshot", p.l.chain.String(), err)
	}
	return nil
}

func (p *placement) close(ctx context.Context) {
	if p.key != "" {
		p.u.discard(ctx, p.key)
	}
}

// discard removes an active snapshot, if it was not committed.
func (u *unpacker) discard(ctx context.Context, key string) {
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	if err := u.p.snapshots().Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).WithField("key", key).Warn("cannot remove the snapshot of a pull")
	}
}

// directories returns where a snapshot's own files go and where those of the
// layers below are, the topmost first.
func directories(mounts []mount.Mount) (upper string, lower []string, err error) {
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		return mounts[0].Source, nil, nil
	}
	if len(mounts) == 1 && mounts[0].Type == "overlay" {
		for _, o := range mounts[0].Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				upper = dir
			} else if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
				lower = strings.Split(dirs, ":")
			}
		}
	}
	if upper == "" {
		return "", nil, &fault.Error{Code: fault.Internal, Op: "unpack layer into", Subject: "snapshot",
			Err: errors.New("the snapshotter gives no directory")}
	}
	return upper, lower, nil
}
