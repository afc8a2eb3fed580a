package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultLimit is the size of a log in bytes when none is given.
	DefaultLimit = 16 << 20
	// MinLimit is the smallest size of a log; a smaller limit is raised to it.
	MinLimit = 256 << 10

	// segmentsPerLog trades how much is dropped at once against the number of files.
	segmentsPerLog = 8
	// batch is how many bytes are gathered before they are written: with a flood of
	// short lines one system call carries thousands of them.
	batch = 64 << 10
	// batchDelay is how long a line may lie in memory. It is what is lost when the
	// shim is killed, and what a follower lags behind.
	batchDelay = 5 * time.Millisecond
	// partialDelay is how long the start of a line waits for its end before it is
	// shown as it is: a prompt has no newline.
	partialDelay = 25 * time.Millisecond
)

// Writer appends to a log. Its methods may be called from several goroutines.
// Output that cannot be written is counted and dropped: a full disk must not stop a step.
// When writing works again, a line of the stream careen reports the loss.
type Writer struct {
	dir   *os.Root
	lock  *os.File
	limit int64

	mu      sync.Mutex
	file    *os.File
	number  uint64
	size    int64
	old     []segment // complete segments, oldest first
	buf     []byte
	flushed time.Time
	streams []*stream
	timer   *time.Timer
	armed   bool
	due     time.Time
	dropped int64
	dropErr error
	closed  bool
}

// OpenWriter opens the log in dir, made if need be, to append to it. All
// segments together stay at or below limit bytes; 0 means [DefaultLimit]. Only
// one writer can have a log open: a second one is refused. Errors are those of the file
// system; none has a fault code.
func OpenWriter(dir string, limit int64) (*Writer, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make log directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open log directory: %w", err)
	}
	w := &Writer{dir: root, limit: max(limit, MinLimit), buf: make([]byte, 0, batch+maxRecord)}
	if err := w.open(); err != nil {
		w.release()
		return nil, fmt.Errorf("cannot open log in %s: %w", dir, err)
	}
	w.timer = time.AfterFunc(time.Hour, w.tick)
	w.timer.Stop()
	return w, nil
}

// open takes the lock and the newest segment, whose torn end it completes.
func (w *Writer) open() error {
	lock, err := w.dir.Open(".")
	if err != nil {
		return err
	}
	w.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another writer has it: %w", err)
	}
	found, err := segments(w.dir)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return w.next()
	}
	last := found[len(found)-1]
	w.old, w.number, w.size = found[:len(found)-1], last.number, last.size
	w.file, err = w.dir.OpenFile(segmentName(last.number), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	return w.mend()
}

// mend ends a record that a killed writer left torn, so that the next one
// starts on a new line. The text that was written stays.
func (w *Writer) mend() error {
	if w.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := w.file.ReadAt(last[:], w.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	n, err := w.file.Write([]byte{'\n'})
	w.size += int64(n)
	return err
}

// Stream returns where one stream of the container is written to: raw bytes,
// which it splits into lines. Closing it keeps an unfinished line as it is.
// Writes never fail because of the disk and never wait for a reader.
func (w *Writer) Stream(name string) io.WriteCloser {
	if len(name) > maxStream {
		name = name[:maxStream]
	}
	s := &stream{w: w, name: name}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams = append(w.streams, s)
	return s
}

// Close writes what is still in memory and closes the log and its open streams. Errors are
// those of the file system.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	w.timer.Stop()
	stamp := w.stamp()
	for _, s := range w.streams {
		s.endLine(stamp)
		s.closed = true
	}
	w.flush()
	err := w.dropErr
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
		w.file = nil
	}
	w.release()
	return err
}

// release closes the directory, which releases the lock.
func (w *Writer) release() {
	if w.file != nil {
		w.file.Close()
	}
	if w.lock != nil {
		w.lock.Close()
	}
	w.dir.Close()
}

func (w *Writer) stamp() []byte {
	return time.Now().UTC().AppendFormat(make([]byte, 0, len(stampLayout)), stampLayout)
}

// stream splits one stream into records.
type stream struct {
	w       *Writer
	name    string
	pending []byte // the start of a line, shorter than MaxText
	since   time.Time
	closed  bool
}

// Write takes all of p. All its lines bear the time of the call.
func (s *stream) Write(p []byte) (int, error) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.closed {
		return 0, os.ErrClosed
	}
	total := len(p)
	now, stamp := time.Now(), w.stamp()
	for len(p) > 0 {
		end := bytes.IndexByte(p[:min(len(p), MaxText-len(s.pending)+1)], '\n')
		switch {
		case end >= 0:
			s.record(stamp, p[:end], false)
			p = p[end+1:]
		case len(s.pending)+len(p) <= MaxText:
			// A whole MaxText waits too: its newline may be the next byte.
			if len(s.pending) == 0 {
				s.since = now
			}
			s.pending = append(s.pending, p...)
			p = nil
		default:
			n := MaxText - len(s.pending)
			s.record(stamp, p[:n], true)
			p = p[n:]
		}
		if len(w.buf) >= batch {
			w.flush()
		}
	}
	w.settle(now)
	return total, nil
}

// record puts the pending text and more into the batch.
func (s *stream) record(stamp, more []byte, partial bool) {
	if len(s.pending) == 0 {
		s.w.buf = appendRecord(s.w.buf, stamp, s.name, more, partial)
		return
	}
	s.pending = append(s.pending, more...)
	s.w.buf = appendRecord(s.w.buf, stamp, s.name, s.pending, partial)
	s.pending = s.pending[:0]
}

// endLine keeps an unfinished line as it is.
func (s *stream) endLine(stamp []byte) {
	if len(s.pending) > 0 {
		s.record(stamp, nil, true)
	}
}

// Close keeps an unfinished line and writes what is in memory.
func (s *stream) Close() error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.closed {
		return nil
	}
	s.endLine(s.w.stamp())
	s.closed = true
	s.w.flush()
	return nil
}

// settle writes the batch if the last write is long enough ago, so that a
// container which writes a line now and then is seen at once, and arms the
// timer for what has to wait.
func (w *Writer) settle(now time.Time) {
	if len(w.buf) > 0 && now.Sub(w.flushed) >= batchDelay {
		w.flush()
	}
	wait := batchDelay
	if len(w.buf) == 0 {
		if !w.waiting() {
			return
		}
		wait = partialDelay
	}
	if due := now.Add(wait); !w.armed || due.Before(w.due) {
		w.armed, w.due = true, due
		w.timer.Reset(wait)
	}
}

func (w *Writer) waiting() bool {
	for _, s := range w.streams {
		if len(s.pending) > 0 {
			return true
		}
	}
	return false
}

// tick writes what has waited long enough.
func (w *Writer) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	if w.closed {
		return
	}
	now, stamp := time.Now(), w.stamp()
	for _, s := range w.streams {
		if len(s.pending) > 0 && now.Sub(s.since) >= partialDelay {
			s.endLine(stamp)
		}
	}
	w.flush()
	w.settle(now)
}
