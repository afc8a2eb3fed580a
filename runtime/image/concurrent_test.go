package image_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/polite"
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
			_, errs[i] = p.Pull(ctx, insecure(request(ref)), func(p api.PullProgress) {
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

// TestStepsBack pulls while a step runs: every stage is on a thread of the lowest
// priority, from its second look on.
func TestStepsBack(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, _ := reg.Push(t, "team/tool:1", large(t))
	var normal, low atomic.Int64
	busy := func() bool {
		// This is called on the thread that works. The system call has an offset.
		switch nice, _ := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid()); 20 - nice {
		case 0:
			normal.Add(1)
		case 19:
			low.Add(1)
		}
		return true
	}
	_, err := newPuller(t, s).Pull(polite.While(s.ctx, busy), insecure(request(ref)), nil)
	require.NoError(t, err)
	// Two layers with at most six looks each that find a thread as it was.
	require.LessOrEqual(t, normal.Load(), int64(2*6))
	require.Greater(t, low.Load(), normal.Load())
	// No thread stays so, for whatever the process does next.
	require.Eventually(t, func() bool { return lowThreads(t) == 0 }, 10*time.Second, time.Millisecond)
}

func lowThreads(t *testing.T) (n int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/self/task/*/stat")
	require.NoError(t, err)
	for _, file := range stats {
		text, _ := os.ReadFile(file) // a thread may have ended
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 16 && fields[16] == "19" {
			n++
		}
	}
	return n
}

func TestProgress(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, _ := reg.Push(t, "team/tool:1", large(t))
	var last api.PullProgress
	reports := 0
	start := time.Now()
	_, err := newPuller(t, s).Pull(s.ctx, insecure(request(ref)), func(p api.PullProgress) {
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
