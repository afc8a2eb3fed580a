package image

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/log"
	"github.com/google/uuid"
)

// reach remembers whether a containerd's directories are this process's too.
type reach struct {
	mu    sync.Mutex
	known bool
	ok    bool
	dir   string // where its snapshots are, if they can be reached
}

// storeDir is a directory on the store's file system, "" if none is known.
func (p *Puller) storeDir() string {
	if p.cfg.StoreDir != "" {
		return p.cfg.StoreDir
	}
	p.reach.mu.Lock()
	defer p.reach.mu.Unlock()
	return p.reach.dir
}

// direct reports whether layers are unpacked by this process.
func (p *Puller) direct(ctx context.Context) bool {
	switch {
	case p.cfg.Indirect || p.cfg.Snapshotter != "overlayfs":
		return false
	case p.cfg.DirectApply:
		return true
	}
	p.reach.mu.Lock()
	defer p.reach.mu.Unlock()
	if !p.reach.known {
		ok, err := p.tryReach(ctx)
		if err != nil {
			// Not known for good: the next pull may try again.
			log.G(ctx).WithError(err).Info("cannot tell whether containerd's directories can be reached")
			return false
		}
		p.reach.known, p.reach.ok = true, ok
	}
	return p.reach.ok
}

// tryReach makes a directory where containerd says that a snapshot is, and asks
// containerd how many there are. A directory of the same name on another host or
// in another mount namespace does not pass.
func (p *Puller) tryReach(ctx context.Context) (bool, error) {
	sn := p.snapshots()
	key := "careen-reach-" + uuid.NewString()
	mounts, err := sn.Prepare(ctx, key, "")
	if err != nil {
		return false, err
	}
	defer func() {
		clean, cancel := cleanupContext(ctx)
		defer cancel()
		if err := sn.Remove(clean, key); err != nil {
			log.G(ctx).WithError(err).WithField("key", key).Warn("cannot remove a snapshot")
		}
	}()
	dir, _, err := directories(mounts)
	if err != nil {
		return false, nil
	}
	before, err := sn.Usage(ctx, key)
	if err != nil {
		return false, err
	}
	sign := filepath.Join(dir, "careen-reach")
	if os.Mkdir(sign, 0o700) != nil {
		return false, nil
	}
	after, err := sn.Usage(ctx, key)
	_ = os.Remove(sign)
	if err != nil || after.Inodes != before.Inodes+1 {
		return false, err
	}
	p.reach.dir = filepath.Dir(filepath.Dir(dir)) // beside the snapshots; it stays
	return true, nil
}
