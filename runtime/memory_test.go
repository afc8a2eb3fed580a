package runtime_test

import (
	"fmt"
	goruntime "runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/runtime/container"
)

// TestCreatedHoldsLittleMemory: the agent keeps what Create returns in the record of each
// of a thousand runs. The plan of one container has 16 KB and must not go with it.
func TestCreatedHoldsLittleMemory(t *testing.T) {
	r := newRig(t)
	const count = 8
	kept := make([]container.Created, count)
	image, err := r.engine.Image(t.Context(), r.run("", "true").Pull(), func(api.PullProgress) {})
	require.NoError(t, err)
	for i := range kept {
		c := container.Container{Run: fmt.Sprint("run-", i), ID: fmt.Sprintf("%064x", i), Dir: t.TempDir()}
		kept[i], err = r.engine.Create(t.Context(), container.CreateSpec{Container: c, Run: r.run("", "true"), Image: image})
		require.NoError(t, err)
		_, err = r.engine.Delete(t.Context(), c)
		require.NoError(t, err)
	}
	with := heap()
	goruntime.KeepAlive(kept)
	require.Less(t, with-heap(), int64(count*4<<10), "bytes of %d containers", count)
}

// heap returns the bytes in use after a collection. Finalizers need a second one.
func heap() int64 {
	var stats goruntime.MemStats
	for range 2 {
		goruntime.GC()
	}
	goruntime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
