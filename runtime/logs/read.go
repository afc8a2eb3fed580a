package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// ReadOptions says what to read of a log. The zero value is all there is now.
type ReadOptions struct {
	// Tail starts with the last so many lines (not records); 0 means all.
	Tail int
	// Stream keeps one stream's lines; "" means all. Notes of careen are kept always.
	Stream string
	// Since leaves out what is older, by the node's clock.
	Since time.Time
	// After starts at a place, such as the Cursor of the last line a reader had
	// before it lost its connection. It wins over Tail.
	After Cursor
	// Follow goes on with what is written later, until ctx ends or Done is closed.
	Follow bool
	// Done ends following once all that was written before it was closed is read.
	Done <-chan struct{}
	// Idle, if set, is called when all there is has been passed on and Read is about
	// to wait for more. Its error ends Read.
	Idle func() error
}

// Read calls fn for each record, oldest first. Text belongs to fn until it
// returns. A log that does not exist is empty; with Follow, Read waits for it. Torn and
// unreadable records are skipped. A line of the stream careen marks output that rotation
// removed before it was read. The error is that of fn, of ctx or of the file system; none
// has a fault code.
func Read(ctx context.Context, dir string, opts ReadOptions, fn func(Line) error) error {
	var watch *watcher
	if opts.Follow {
		watch = newWatcher(ctx, opts.Done)
		defer watch.close()
	}
	root, err := waitForDir(dir, watch)
	if err != nil || root == nil {
		return err
	}
	defer root.Close()
	r := &reader{root: root, opts: opts, fn: fn, buf: bufio.NewReaderSize(nil, 64<<10)}
	defer r.closeFile()
	if err := r.begin(); err != nil {
		return err
	}
	for {
		// What was written before the end was announced is read after it.
		ended := watch == nil || watch.ended()
		if err := r.drain(ctx); err != nil {
			return err
		}
		if ended {
			return ctx.Err()
		}
		if opts.Idle != nil {
			if err := opts.Idle(); err != nil {
				return err
			}
		}
		watch.wait()
	}
}

// waitForDir opens the log's directory; nil means that following ended before it existed.
func waitForDir(dir string, watch *watcher) (*os.Root, error) {
	for {
		ended := watch == nil || watch.ended()
		root, err := os.OpenRoot(dir)
		if err == nil {
			if watch != nil {
				watch.attach(root)
			}
			return root, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot open log: %w", err)
		}
		if ended {
			return nil, nil
		}
		watch.wait()
	}
}

// Tail returns the last n lines. Records of one line count once; they are
// returned as they are.
func Tail(dir string, n int) ([]Line, error) {
	var lines []Line
	if n <= 0 {
		return nil, nil
	}
	err := Read(context.Background(), dir, ReadOptions{Tail: n}, func(l Line) error {
		l.Text = bytes.Clone(l.Text)
		lines = append(lines, l)
		return nil
	})
	return lines, err
}

// reader goes through the segments of one log.
type reader struct {
	root   *os.Root
	opts   ReadOptions
	fn     func(Line) error
	buf    *bufio.Reader
	file   *os.File
	at     Cursor // after the last whole record; Segment 0: nothing opened yet
	record []byte
	skip   bool // inside a record that is longer than any can be
}

// begin finds the place to start at.
func (r *reader) begin() error {
	if r.opts.After != (Cursor{}) {
		r.at = r.opts.After
		return nil
	}
	if r.opts.Tail > 0 {
		at, err := tailStart(r.root, r.opts)
		r.at = at
		return err
	}
	return nil
}

// drain reads all there is now.
func (r *reader) drain(ctx context.Context) error {
	for {
		if r.file == nil {
			if more, err := r.open(r.at.Segment, r.at.Offset); err != nil || !more {
				return err
			}
		}
		if err := r.readSegment(ctx); err != nil {
			return err
		}
		// Only once a newer segment exists is this one complete; what was written
		// between the end that was just read and that is read first.
		newer, err := r.newer()
		if err != nil || newer == 0 {
			return err
		}
		if err := r.readSegment(ctx); err != nil {
			return err
		}
		r.closeFile()
		if missed := newer - r.at.Segment - 1; missed > 0 {
			if err := r.gap(missed); err != nil {
				return err
			}
		}
		r.at = Cursor{Segment: newer}
	}
}

// open opens the segment with that number, or the oldest one after it.
func (r *reader) open(number uint64, offset int64) (bool, error) {
	for {
		found, err := segments(r.root)
		if err != nil {
			return false, err
		}
		i := 0
		for i < len(found) && found[i].number < number {
			i++
		}
		if i == len(found) {
			return false, nil
		}
		file, err := r.root.Open(segmentName(found[i].number))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed between the list and the open
		}
		if err != nil {
			return false, err
		}
		return true, r.use(file, found[i].number, number, offset)
	}
}

// use starts reading file, which is segment got where want was looked for.
func (r *reader) use(file *os.File, got, want uint64, offset int64) error {
	r.file, r.skip, r.record = file, false, r.record[:0]
	if got != want {
		offset = 0
	}
	r.at = Cursor{Segment: got, Offset: offset}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	r.buf.Reset(file)
	if want > 0 && got > want {
		return r.gap(got - want)
	}
	return nil
}

func (r *reader) closeFile() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// newer returns the number of the oldest segment after the current one, or 0.
func (r *reader) newer() (uint64, error) {
	found, err := segments(r.root)
	for _, s := range found {
		if s.number > r.at.Segment {
			return s.number, err
		}
	}
	return 0, err
}

// readSegment passes on the whole records up to the segment's present end.
func (r *reader) readSegment(ctx context.Context) error {
	for {
		chunk, err := r.buf.ReadSlice('\n')
		if !r.skip {
			r.record = append(r.record, chunk...)
		}
		r.at.Offset += int64(len(chunk))
		switch {
		case err == nil:
			if err := r.pass(); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		case errors.Is(err, io.EOF):
			return nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
		if len(r.record) > maxRecord {
			r.skip, r.record = true, r.record[:0]
		}
	}
}

// pass hands the gathered record to fn if it is one and is asked for.
func (r *reader) pass() error {
	skip, rec := r.skip, r.record
	r.skip, r.record = false, r.record[:0]
	if skip || len(rec) > maxRecord {
		return nil
	}
	l, ok := parseRecord(rec[:len(rec)-1])
	if !ok || !r.opts.wants(l) {
		return nil
	}
	l.Cursor = r.at
	return r.fn(l)
}

func (o ReadOptions) wants(l Line) bool {
	if o.Stream != "" && l.Stream != o.Stream && l.Stream != Careen {
		return false
	}
	return l.Time.Equal(o.Since) || l.Time.After(o.Since)
}

// gap reports that rotation removed output before it was read.
func (r *reader) gap(missed uint64) error {
	text := fmt.Sprintf("output is missing here: %d log files were removed by rotation before they were read", missed)
	if missed == 1 {
		text = "output is missing here: a log file was removed by rotation before it was read"
	}
	return r.fn(Line{Time: time.Now().UTC(), Stream: Careen, Text: []byte(text), Cursor: r.at})
}
