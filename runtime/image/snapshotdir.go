package image

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/log"
	"github.com/google/uuid"
)

// snapshotDirs remembers whether this process can use the directories of containerd's
// snapshots under the names that containerd gives them.
type snapshotDirs struct {
	mu     sync.Mutex
	known  bool
	usable bool
	dir    string // the directory beside the snapshots, if they are usable
}

// storeDir is a directory on the store's file system, "" if none is known.
func (p *Puller) storeDir() string {
	if p.cfg.StoreDir != "" {
		return p.cfg.StoreDir
	}
	p.dirs.mu.Lock()
	defer p.dirs.mu.Unlock()
	return p.dirs.dir
}

// hasSnapshotDirs reports whether this process unpacks layers into the snapshots'
// directories. If not, containerd unpacks them.
func (p *Puller) hasSnapshotDirs(ctx context.Context) bool {
	switch {
	case p.cfg.Indirect || p.cfg.Snapshotter != "overlayfs":
		return false
	case p.cfg.DirectApply:
		return true
	}
	p.dirs.mu.Lock()
	defer p.dirs.mu.Unlock()
	if !p.dirs.known {
		usable, err := p.probeSnapshotDir(ctx)
		if err != nil {
			// The next pull may try again.
			log.G(ctx).WithError(err).Info("cannot find out whether containerd's snapshot directories are usable")
			return false
		}
		p.dirs.known, p.dirs.usable = true, usable
	}
	return p.dirs.usable
}

// probeSnapshotDir makes a directory in the directory that containerd names for a
// snapshot, and asks containerd for the number of inodes in it. A directory of the same
// name on another host or in another mount namespace does not pass.
func (p *Puller) probeSnapshotDir(ctx context.Context) (bool, error) {
	sn := p.snapshots()
	key := "careen-probe-" + uuid.NewString()
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
	probe := filepath.Join(dir, "careen-probe")
	if os.Mkdir(probe, 0o700) != nil {
		return false, nil
	}
	after, err := sn.Usage(ctx, key)
	_ = os.Remove(probe)
	if err != nil || after.Inodes != before.Inodes+1 {
		return false, err
	}
	p.dirs.dir = filepath.Dir(filepath.Dir(dir)) // the probe's own directory is removed
	return true, nil
}
