package polite_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/image/polite"
)

// nice returns the priority of the calling thread; the call has an offset of 20.
func nice(t *testing.T) int {
	t.Helper()
	v, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	require.NoError(t, err)
	return 20 - v
}

// lowThreads counts the process' threads of the lowest priority.
func lowThreads(t *testing.T) (n int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/self/task/*/stat")
	require.NoError(t, err)
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 16 && fields[16] == "19" {
			n++
		}
	}
	return n
}

func TestPriorityFollowsTheStep(t *testing.T) {
	var busy atomic.Bool
	ctx := polite.While(context.Background(), busy.Load)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w := polite.New(ctx)
		w.Check()
		require.Zero(t, nice(t), "nothing runs")
		busy.Store(true)
		w.Rest()
		require.Equal(t, 19, nice(t), "a step runs")
		busy.Store(false)
		w.Rest()
		if os.Getuid() == 0 {
			require.Zero(t, nice(t), "the step has ended")
		}
		busy.Store(true)
		w.Check()
		w.Done()
		w.Check()
	}()
	<-done
	require.Eventually(t, func() bool { return lowThreads(t) == 0 }, 10*time.Second, time.Millisecond, "threads that stay low")
}

func TestTwoWorkersOfOneGoroutine(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx := polite.While(context.Background(), func() bool { return true })
		one, two := polite.New(ctx), polite.New(ctx)
		one.Check()
		two.Check()
		one.Done()
		two.Done()
		if os.Getuid() == 0 {
			require.Zero(t, nice(t))
		}
	}()
	<-done
	require.Eventually(t, func() bool { return lowThreads(t) == 0 }, 10*time.Second, time.Millisecond, "threads that stay low")
}

func TestWithoutAStepNothingChanges(t *testing.T) {
	w := polite.New(context.Background())
	w.Rest()
	w.Check()
	require.Zero(t, nice(t))
}

func TestRestEndsWithTheWork(t *testing.T) {
	ctx, cancel := context.WithCancel(polite.While(context.Background(), func() bool { return true }))
	cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w := polite.New(ctx)
		defer w.Done()
		for range 1000 {
			w.Rest()
		}
	}()
	<-done
}
