package logs

import (
	"context"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// pollEvery is how often a follower looks where the node gives out no more
// inotify instances, or while the log's directory does not exist.
const pollEvery = 100 * time.Millisecond

// pollAnyway is how often it looks beside inotify, which some file systems lack.
const pollAnyway = 2 * time.Second

// watcher wakes a follower when its log grows, or when it should end.
type watcher struct {
	ctx  context.Context //nolint:containedctx // the watcher is one call of a follower
	done <-chan struct{}
	wake chan struct{}
	// inotify is nil where there is none: then the follower polls.
	inotify *os.File
}

// newWatcher returns a watcher; the caller closes it.
func newWatcher(ctx context.Context, done <-chan struct{}) *watcher {
	return &watcher{ctx: ctx, done: done, wake: make(chan struct{}, 1)}
}

// attach starts watching the directory that was opened, wherever it is moved to.
func (w *watcher) attach(root *os.Root) {
	dir, err := root.Open(".")
	if err != nil {
		return
	}
	defer dir.Close()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return // too many followers for the node's limit: poll
	}
	file := os.NewFile(uintptr(fd), "inotify")
	const events = unix.IN_MODIFY | unix.IN_CREATE
	if _, err := unix.InotifyAddWatch(fd, procPath(dir), events); err != nil {
		file.Close()
		return
	}
	w.inotify = file
	go w.read()
}

// procPath names an open directory. inotify takes no descriptor.
func procPath(dir *os.File) string {
	return "/proc/self/fd/" + strconv.FormatUint(uint64(dir.Fd()), 10)
}

// read turns inotify's events into wake-ups until the file is closed.
func (w *watcher) read() {
	buf := make([]byte, 4096)
	for {
		if _, err := w.inotify.Read(buf); err != nil {
			return // closed; anything else leaves the slow poll
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// ended reports whether following is over.
func (w *watcher) ended() bool {
	select {
	case <-w.ctx.Done():
		return true
	case <-w.done:
		return true
	default:
		return false
	}
}

// wait returns when there may be more to read, or when following is over.
func (w *watcher) wait() {
	every := pollEvery
	if w.inotify != nil {
		every = pollAnyway
	}
	timer := time.NewTimer(every)
	defer timer.Stop()
	select {
	case <-w.wake:
	case <-timer.C:
	case <-w.ctx.Done():
	case <-w.done:
	}
}

// close closes the directory. The kernel takes up to tens of milliseconds to close an
// inotify instance; the reader does not wait for that.
func (w *watcher) close() {
	if w.inotify != nil {
		go w.inotify.Close()
	}
}
