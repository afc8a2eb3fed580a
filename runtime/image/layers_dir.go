package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/unpack"
	"github.com/careen-project/careen/runtime/image/unpack/untar"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// unpackIntoDir fetches one layer into its own directory, and makes a snapshot of it when
// the parent is committed.
func (u *unpacker) unpackIntoDir(ctx context.Context, i int, below <-chan struct{}, release func(), busy busyFunc) error {
	l := u.layers[i]
	key := "careen-unpack-" + uuid.NewString()
	mounts, err := u.p.snapshots().Prepare(ctx, key, "")
	if err != nil {
		return failure.Containerd("prepare snapshot", l.chain.String(), err)
	}
	dir := ""
	defer func() {
		// Delete the files first: when the store is full, containerd's database has no
		// room to record their removal.
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
		return u.stored(unpack.LayerError(err, u.j.req.Original, l.desc.Digest))
	}
	if err := place.commit(ctx, key, dir); err != nil {
		return err
	}
	dir = "" // it belongs to the snapshot now
	return nil
}

// extract downloads one layer into target. The error names the host or the store.
func (u *unpacker) extract(ctx context.Context, i int, target *untar.Layer, busy busyFunc) error {
	l := u.layers[i]
	var blob io.ReadCloser
	err := unpack.Extract(ctx, unpack.Layer{Image: u.j.req.Original, Digest: l.desc.Digest, Size: l.desc.Size, DiffID: l.diffID}, target,
		func(ctx context.Context) (io.ReadCloser, error) {
			var err error
			if blob, err = u.src.blob(ctx, l.desc); err != nil {
				return nil, err
			}
			return readCloser{u.meter(ctx, i, blob, busy), blob}, nil
		},
		func(ctx context.Context, plain io.Reader) io.Reader { return u.paced(ctx, plain, busy) })
	switch fault.CodeOf(err) {
	case "":
		return nil
	case fault.Digest, fault.BadImage:
		return u.src.from(blob, err)
	default:
		return u.stored(err)
	}
}

type readCloser struct {
	io.Reader
	io.Closer
}

// stored names the store in an error about it.
func (u *unpacker) stored(err error) error {
	switch fault.CodeOf(err) {
	case fault.Space, fault.Memory, fault.Node:
		return failure.From("store", u.p.storeDir(), err)
	default:
		return err
	}
}

// placement is the place of a layer on top of its parent. It is known only when the parent
// is committed, which may be long after the layer has begun.
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
		return nil, failure.Containerd("prepare snapshot", p.l.chain.String(), err)
	}
	p.key = key
	p.upper, p.dirs, err = directories(mounts)
	return p.dirs, err
}

// commit makes the directory the snapshot of the layer's chain: it is renamed to the upper
// directory of the snapshot with the parent.
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
		return failure.Containerd("commit snapshot", p.l.chain.String(), err)
	}
	return nil
}

func (p *placement) close(ctx context.Context) {
	if p.key != "" {
		p.u.discard(ctx, p.key)
	}
}

// directories returns the directory of a snapshot's own files, and those of the layers
// below, the topmost first.
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
