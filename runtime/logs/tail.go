package logs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
)

// tailStart finds where the last opts.Tail lines begin, from the newest segment
// backwards, so that a long log is not read as a whole.
func tailStart(root *os.Root, opts ReadOptions) (Cursor, error) {
	found, err := segments(root)
	if err != nil {
		return Cursor{}, err
	}
	t := tailScan{opts: opts, left: opts.Tail}
	for i := len(found) - 1; i >= 0; i-- {
		data, err := readAll(root, found[i])
		if errors.Is(err, fs.ErrNotExist) {
			break // rotated away: what is newer is all there is
		}
		if err != nil {
			return Cursor{}, err
		}
		if at, done := t.segment(data); done {
			return Cursor{Segment: found[i].number, Offset: at}, nil
		}
	}
	return Cursor{}, nil
}

// readAll reads a segment up to the size that it was listed with.
func readAll(root *os.Root, s segment) ([]byte, error) {
	file, err := root.Open(segmentName(s.number))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, s.size))
}

// tailScan counts lines from the end.
type tailScan struct {
	opts ReadOptions
	left int
	// start is where the earliest line counted so far begins.
	started bool
}

// segment scans one segment's records backwards. done says that the record at
// the returned offset is the first one wanted.
func (t *tailScan) segment(data []byte) (at int64, done bool) {
	end := bytes.LastIndexByte(data, '\n') + 1
	for end > 0 {
		begin := bytes.LastIndexByte(data[:end-1], '\n') + 1
		l, ok := parseRecord(data[begin : end-1])
		if ok && t.opts.wants(l) {
			// A full record ends a line, and so does whatever is last of all: the
			// records before it, if partial, belong to it.
			if !l.Partial || !t.started {
				if t.left == 0 {
					return int64(end), true
				}
				t.left--
				t.started = true
			}
		}
		end = begin
	}
	return 0, false
}
