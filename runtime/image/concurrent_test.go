package image_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

// TestConcurrentPulls unpacks what several pulls share once, also when one of
// them is cancelled in the middle.
func TestConcurrentPulls(t *testing.T) {
	s := newStore(t, "256m")
	reg := registry.Start(t)
	base := registry.NewLayer(t, registry.Tar(t, registry.File("big", string(noise(4<<20)))), registry.Gzip)
	var refs []string
	for i := range 6 {
		own := registry.NewLayer(t, registry.Tar(t, registry.File(fmt.Sprint("own", i), "x")), registry.Gzip)
		ref, _ := reg.Push(t, fmt.Sprintf("team/t%d:1", i), registry.NewImage(t, []registry.Layer{base, own}))
		refs = append(refs, ref)
	}
	p := newPuller(t, s)
	var group sync.WaitGroup
	errs := make([]error, len(refs))
	for i, ref := range refs {
		group.Go(func() {
			ctx := s.ctx
			var cancel context.CancelFunc
			if i == 0 {
				ctx, cancel = context.WithCancel(ctx)
				defer cancel()
			}
			_, errs[i] = p.Pull(ctx, insecure(request(ref)), func(p image.Progress) {
				if i == 0 && p.Done > 1<<20 {
					cancel()
				}
			})
		})
	}
	group.Wait()
	for i, err := range errs {
		if i > 0 || !errors.Is(err, context.Canceled) {
			require.NoError(t, err, refs[i])
		}
	}
	require.LessOrEqual(t, reg.Faults.Count("/blobs/"+digest.FromBytes(base.Blob).String()), 2, "the base came once, and once more after the abort")
	for i, ref := range refs {
		if errs[i] == nil {
			require.NoError(t, p.Delete(s.ctx, ref))
		}
	}
	require.Empty(t, s.contents(t))
}

// TestWithoutDirectAccess pulls as with a containerd of another host: through
// its content store and diff service.
func TestWithoutDirectAccess(t *testing.T) {
	for _, snapshotter := range []string{"overlayfs", "native"} {
		t.Run(snapshotter, func(t *testing.T) {
			s := newStore(t, "128m")
			reg := registry.Start(t)
			ref, _ := reg.Push(t, "team/tool:1", simple(t))
			p := newPuller(t, s, func(c *image.Config) { c.Indirect, c.Snapshotter = true, snapshotter })
			img, err := p.Pull(s.ctx, insecure(request(ref)), nil)
			require.NoError(t, err)
			s.view(t, snapshotter, img.ChainID, func(root string) {
				require.FileExists(t, filepath.Join(root, "etc/a"))
				require.FileExists(t, filepath.Join(root, "etc/b"))
				require.NoFileExists(t, filepath.Join(root, "gone"))
			})
			require.NoError(t, p.Delete(s.ctx, img.Name))
			require.Empty(t, s.contents(t))

			corrupt := bad(t, registry.File("a", string(noise(100000))))
			ref, _ = reg.Push(t, "team/bad:1", corrupt)
			reg.Faults.Corrupt(layerPath(corrupt, 0), -1, 5000)
			_, err = p.Pull(s.ctx, insecure(request(ref)), nil)
			require.Equal(t, fault.Digest, fault.CodeOf(err), "%v", err)
			require.Empty(t, s.contents(t))
		})
	}
}

// TestRecover removes what a killed agent has left: a lease, and under it a
// snapshot that was being unpacked.
func TestRecover(t *testing.T) {
	s := newStore(t, "64m")
	p := newPuller(t, s)
	lease, err := s.client.LeasesService().Create(s.ctx, leases.WithRandomID(), leases.WithLabel("careen/pull", "1"))
	require.NoError(t, err)
	other, err := s.client.LeasesService().Create(s.ctx, leases.WithRandomID())
	require.NoError(t, err)
	_, err = s.client.SnapshotService("overlayfs").Prepare(leases.WithLease(s.ctx, lease.ID), "careen-unpack-1", "")
	require.NoError(t, err)
	require.NoError(t, p.Recover(s.ctx))
	require.Equal(t, []string{"lease " + other.ID}, s.contents(t))
}

// TestBackgroundPullIsPaced pulls while a step runs: both what arrives and what is
// unpacked keeps to the limit, so the pull takes at least as long as the limit says.
// Once the step has ended the pull goes on at full speed.
func TestBackgroundPullIsPaced(t *testing.T) {
	reg := registry.Start(t)
	built := registry.NewImage(t, []registry.Layer{
		registry.NewLayer(t, registry.Tar(t, registry.File("a", string(noise(8<<20)))), registry.Gzip),
		registry.NewLayer(t, registry.Tar(t, registry.File("b", string(noise(8 << 20)[7:]))), registry.Gzip),
	})
	ref, _ := reg.Push(t, "team/tool:1", built)
	// Two layers of 8 MiB, compressed and unpacked, at 48 MiB/s; the first bytes are free.
	const atLeast = time.Second * 31 / 48

	s := newStore(t, "64m")
	var busy atomic.Bool
	busy.Store(true)
	var asked atomic.Int64
	req := insecure(request(ref))
	req.Busy = func() bool { asked.Add(1); return busy.Load() }
	most := 0
	began := time.Now()
	_, err := newPuller(t, s).Pull(s.ctx, req, func(p image.Progress) {
		working := 0
		for _, l := range p.Layers {
			if l.Status == "downloading" && l.Done < l.Total {
				working++
			}
		}
		most = max(most, working)
	})
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), atLeast)
	require.LessOrEqual(t, most, 1, "layers in work at a time")

	// The limit ends in the middle of a layer: the step ends at the first report of bytes.
	s = newStore(t, "64m")
	p := newPuller(t, s)
	_, err = p.Pull(s.ctx, req, func(p image.Progress) {
		if p.Done > 0 {
			busy.Store(false)
		}
	})
	require.NoError(t, err)
	require.False(t, busy.Load())
	require.Positive(t, asked.Load())
}

// TestSlowReceiverDoesNotStopThePull: bytes go on while the receiver of the progress is
// blocked, as an agent is while its disk is frozen.
func TestSlowReceiverDoesNotStopThePull(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, _ := reg.Push(t, "team/tool:1", large(t))
	p := newPuller(t, s)
	blocked, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	ended := make(chan error, 1)
	go func() {
		_, err := p.Pull(s.ctx, insecure(request(ref)), func(p image.Progress) {
			if len(p.Layers) > 0 && p.Done > 0 {
				once.Do(func() { close(blocked) })
				<-free
			}
		})
		ended <- err
	}()
	<-blocked
	// The image record is the last thing that a pull writes.
	require.Eventually(t, func() bool { img, _ := p.Get(s.ctx, ref); return img != nil }, time.Minute, 5*time.Millisecond)
	close(free)
	require.NoError(t, <-ended)
}

func TestProgress(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, _ := reg.Push(t, "team/tool:1", large(t))
	var last image.Progress
	reports := 0
	start := time.Now()
	_, err := newPuller(t, s).Pull(s.ctx, insecure(request(ref)), func(p image.Progress) {
		require.GreaterOrEqual(t, p.Done, last.Done)
		last = p
		reports++
	})
	require.NoError(t, err)
	require.Equal(t, "done", last.Status)
	require.Equal(t, last.Total, last.Done)
	require.Len(t, last.Layers, 2)
	require.Equal(t, "done", last.Layers[0].Status)
	// A few for changes of the status, and five a second.
	require.LessOrEqual(t, reports, 6+int(time.Since(start)/(150*time.Millisecond)))
}

func TestNoGoroutineIsLeft(t *testing.T) {
	s := newStore(t, "128m")
	reg := registry.Start(t)
	built := large(t)
	ref, _ := reg.Push(t, "team/tool:1", built)
	before := goleak.IgnoreCurrent()
	p := newPuller(t, s)
	_, err := p.Pull(s.ctx, insecure(request(ref)), nil)
	require.NoError(t, err)
	require.NoError(t, p.Delete(s.ctx, ref))
	reg.Faults.Cut(layerPath(built, 0), -1, 1000)
	_, err = p.Pull(s.ctx, insecure(request(ref)), nil)
	require.Error(t, err)
	// The registry's own connections are in this process too and end a moment later.
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("net/http.(*conn).serve"))
}
