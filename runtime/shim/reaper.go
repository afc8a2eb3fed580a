package shim

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaper reaps orphans: processes of a container that became the shim's children. It
// leaves alone the processes that libcontainer waits for itself; every start of such a
// process happens with the reaper held.
type reaper struct {
	mu      sync.Mutex
	managed map[int]bool
	poke    chan struct{}
}

func startReaper(ctx context.Context) *reaper {
	r := &reaper{managed: map[int]bool{}, poke: make(chan struct{}, 1)}
	signals := make(chan os.Signal, 32)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		// A child that ends while the reaper is held may leave no further signal.
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		defer signal.Stop(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			case <-tick.C:
			case <-r.poke:
			}
			r.reap()
		}
	}()
	return r
}

// hold keeps the reaper away from children while f starts and awaits some.
func (r *reaper) hold(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// manage says that other code waits for pid. The caller holds the reaper.
func (r *reaper) manage(pid int) { r.managed[pid] = true }

// release says that pid has been waited for.
func (r *reaper) release(pid int) {
	r.mu.Lock()
	delete(r.managed, pid)
	r.mu.Unlock()
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// reap reaps the children that are not managed and have ended.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var info unix.Siginfo
		// WNOWAIT does not reap: the exit status of a managed child is for the code
		// that manages it.
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		pid := siginfoPid(&info)
		if err != nil || pid == 0 || r.managed[pid] {
			return
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}
