package pull

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/careen-project/careen/agent/fault"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
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
	for i := range first {
		j.progress.layer(i, "present", layers[i].desc.Size)
	}
	if first == len(layers) {
		return false, nil
	}
	u := &unpacker{p: p, j: j, src: src, layers: layers, lease: lease, slots: make(chan struct{}, p.parallel(j.req))}
	group, inner := errgroup.WithContext(ctx)
	below := make(chan struct{})
	close(below)
	for i := first; i < len(layers); i++ {
		// Slots are given from the lowest layer up: a layer that has to wait for
		// one below never holds the slot that that one needs.
		if !u.acquire(inner) {
			break
		}
		ready, done := below, make(chan struct{})
		group.Go(func() error {
			err := u.layer(inner, i, ready)
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

func (p *Puller) parallel(req *Request) int {
	if req.Background || !p.direct() {
		return 1
	}
	return p.cfg.Limits.Parallel
}

// direct reports whether layers are unpacked by this process.
func (p *Puller) direct() bool { return p.cfg.DirectApply && p.cfg.Snapshotter == "overlayfs" }

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
	slots  chan struct{}
}

func (u *unpacker) acquire(ctx context.Context) bool {
	select {
	case u.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// layer makes one layer's snapshot present. It has a slot when it is called and
// gives it back once it needs no processor any more. below is closed when the
// parent is committed.
func (u *unpacker) layer(ctx context.Context, i int, below <-chan struct{}) error {
	var once sync.Once
	release := func() { once.Do(func() { <-u.slots }) }
	defer release()
	l := u.layers[i]
	for {
		shared, err := u.p.flights.do(ctx, u.p.cfg.Snapshotter+"/"+l.chain.String(), func() error {
			return u.unpack(ctx, i, below, release)
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

func (u *unpacker) unpack(ctx context.Context, i int, below <-chan struct{}, release func()) (err error) {
	l := u.layers[i]
	sn := u.p.snapshots()
	key := "careen-unpack-" + uuid.NewString()
	mounts, err := sn.Prepare(ctx, key, "")
	if err != nil {
		return unreachable("prepare snapshot", l.chain.String(), err)
	}
	defer func() { u.discard(ctx, key) }()
	dir, err := upperDir(mounts)
	if err != nil {
		return err
	}
	if err := u.extract(ctx, i, dir); err != nil {
		return err
	}
	release()
	select {
	case <-below:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return u.commit(ctx, l, key, dir)
}

// commit makes the directory the snapshot of the layer's chain. The directory
// was prepared without a parent, because the parent was not there yet; now one
// with the parent is prepared and given the directory.
func (u *unpacker) commit(ctx context.Context, l layer, key, dir string) error {
	sn := u.p.snapshots()
	if l.parent != "" {
		child := "careen-unpack-" + uuid.NewString()
		mounts, err := sn.Prepare(ctx, child, l.parent.String())
		if err != nil {
			return unreachable("prepare snapshot", l.chain.String(), err)
		}
		defer func() { u.discard(ctx, child) }()
		upper, err := upperDir(mounts)
		if err != nil {
			return err
		}
		if err := os.Rename(dir, upper); err != nil {
			return fmt.Errorf("move layer into place: %w", err)
		}
		key = child
	}
	if err := sn.Commit(ctx, l.chain.String(), key); err != nil && !errdefs.IsAlreadyExists(err) {
		return unreachable("commit snapshot", l.chain.String(), err)
	}
	return nil
}

// discard removes an active snapshot, if it was not committed.
func (u *unpacker) discard(ctx context.Context, key string) {
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	if err := u.p.snapshots().Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).WithField("key", key).Warn("cannot remove the snapshot of a pull")
	}
}

// upperDir is the directory that the snapshotter would have written to.
func upperDir(mounts []mount.Mount) (string, error) {
	if len(mounts) == 1 {
		m := mounts[0]
		if m.Type == "bind" {
			return m.Source, nil
		}
		for _, o := range m.Options {
			if dir, ok := cutPrefix(o, "upperdir="); ok && m.Type == "overlay" {
				return dir, nil
			}
		}
	}
	return "", &fault.Error{Code: fault.Internal, Op: "unpack layer into", Subject: "snapshot",
		Err: errors.New("the snapshotter gives no directory")}
}
