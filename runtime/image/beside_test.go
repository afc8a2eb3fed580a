package image_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/registry"
)

// TestBesideAStep prints what a pull costs a step that keeps every processor at work:
// alone, beside a background pull and beside a pull at full speed, in turn. It only runs
// with CAREEN_BESIDE, which is the number of rounds, on a machine that is quiet.
func TestBesideAStep(t *testing.T) {
	if os.Getenv("CAREEN_SPIN") != "" {
		spin()
		return
	}
	rounds, err := strconv.Atoi(os.Getenv("CAREEN_BESIDE"))
	if err != nil {
		t.Skip("set CAREEN_BESIDE to the number of rounds")
	}
	reg := registry.Start(t)
	var layers []registry.Layer
	for i := range 3 {
		layers = append(layers, registry.NewLayer(t, registry.Tar(t, registry.File(fmt.Sprint(i), string(text(i)))), registry.Gzip))
	}
	ref, _ := reg.Push(t, "team/tool:1", registry.NewImage(t, layers))
	s := newStore(t, "1g")
	t.Log("step: SHA-256 of 2,000 MiB on each processor; image: 3 layers, 144 MiB unpacked")
	p := newPuller(t, s)
	slowed := map[string][]float64{}
	used := map[string][]float64{}
	for range rounds {
		alone := step(t).Seconds()
		for _, kind := range []string{"background", "full speed"} {
			req := insecure(request(ref))
			if kind == "background" {
				req.Busy = func() bool { return true }
			}
			before, began := processorTime(t), time.Now()
			ended := make(chan struct{})
			var pull, processor float64
			go func() {
				defer close(ended)
				if _, err := p.Pull(s.ctx, req, nil); err != nil {
					t.Error(err)
				}
				pull, processor = time.Since(began).Seconds(), processorTime(t)-before
			}()
			beside := step(t).Seconds()
			<-ended
			slowed[kind] = append(slowed[kind], beside/alone)
			used[kind] = append(used[kind], processor/pull)
			t.Logf("%-10s step alone %.2f s, beside the pull %.2f s; pull %.2f s, %.2f processors with the registry", kind, alone, beside, pull, processor/pull)
			require.NoError(t, p.Delete(s.ctx, ref))
		}
	}
	for kind := range slowed {
		slices.Sort(slowed[kind])
		slices.Sort(used[kind])
		t.Logf("%-10s median: step takes %.3f of alone, pull and registry use %.2f processors", kind, slowed[kind][rounds/2], used[kind][rounds/2])
	}
}

// step runs a process that keeps every processor at work, and returns how long it took.
func step(t *testing.T) time.Duration {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBesideAStep$")
	cmd.Env = append(os.Environ(), "CAREEN_SPIN=1")
	began := time.Now()
	require.NoError(t, cmd.Run())
	return time.Since(began)
}

func spin() {
	var group sync.WaitGroup
	for range goruntime.NumCPU() {
		group.Go(func() {
			block := make([]byte, 1<<20)
			for range 2000 {
				sum := sha256.Sum256(block)
				copy(block, sum[:])
			}
		})
	}
	group.Wait()
}

// processorTime is the time of this process, in seconds.
func processorTime(t *testing.T) float64 {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// text is 48 MiB that gzip halves, as it does programs.
func text(seed int) []byte {
	b := noise(48 << 20)
	for i := range b {
		if i%2 == 0 {
			b[i] = byte(seed)
		} else {
			b[i] &= 0x7f
		}
	}
	return b
}
