package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// flush writes the batch, over as many segments as it takes. Records are never
// split between segments.
func (w *Writer) flush() {
	w.flushed = time.Now()
	w.reportDrop()
	data := w.buf
	for len(data) > 0 {
		part := fit(data, w.segmentSize()-w.size)
		if part == 0 || w.file == nil {
			if err := w.next(); err != nil {
				w.drop(data, err)
				break
			}
			continue
		}
		if err := w.write(data[:part]); err != nil {
			w.drop(data[part:], nil)
			break
		}
		data = data[part:]
	}
	w.buf = w.buf[:0]
}

// fit returns how many bytes of whole records of data fit into room.
func fit(data []byte, room int64) int {
	if room <= 0 {
		return 0
	}
	if int64(len(data)) <= room {
		return len(data)
	}
	return bytes.LastIndexByte(data[:room], '\n') + 1
}

func (w *Writer) segmentSize() int64 { return w.limit / segmentsPerLog }

// write appends whole records to the segment. When the disk is full it removes the oldest
// segments first: the newest output is worth more.
func (w *Writer) write(data []byte) error {
	for {
		n, err := w.file.Write(data)
		if err == nil {
			w.size += int64(n)
			return nil
		}
		if n > 0 {
			// A record cut short would swallow the next one.
			if terr := w.file.Truncate(w.size); terr != nil {
				w.size += int64(n)
			}
		}
		full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
		if !full || len(w.old) == 0 {
			w.drop(data, err)
			return err
		}
		w.removeOldest()
	}
}

// next starts a new segment and removes as many old ones as the limit asks.
func (w *Writer) next() error {
	if w.file != nil {
		if err := w.file.Close(); err != nil {
			return err
		}
		w.file = nil
		w.old = append(w.old, segment{number: w.number, size: w.size})
	}
	for len(w.old) > 0 && w.oldBytes()+w.segmentSize() > w.limit {
		w.removeOldest()
	}
	file, err := w.dir.OpenFile(segmentName(w.number+1), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return w.reopen(err)
	}
	w.file, w.number, w.size = file, w.number+1, 0
	return nil
}

// reopen goes back to the last segment when no new one can be made, so that
// the next flush can try again.
func (w *Writer) reopen(cause error) error {
	if len(w.old) == 0 {
		return cause
	}
	last := w.old[len(w.old)-1]
	file, err := w.dir.OpenFile(segmentName(last.number), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return errors.Join(cause, err)
	}
	w.old = w.old[:len(w.old)-1]
	w.file, w.number, w.size = file, last.number, last.size
	return cause
}

func (w *Writer) oldBytes() (total int64) {
	for _, s := range w.old {
		total += s.size
	}
	return total
}

func (w *Writer) removeOldest() {
	// A file that cannot be removed is not tried again: the next batches would fail too.
	_ = w.dir.Remove(segmentName(w.old[0].number))
	w.old = w.old[1:]
}

// drop counts output that could not be stored.
func (w *Writer) drop(data []byte, err error) {
	w.dropped += int64(len(data))
	if err != nil {
		w.dropErr = err
	}
}

// reportDrop puts a note before the batch once something was dropped.
func (w *Writer) reportDrop() {
	if w.dropped == 0 || len(w.buf) == 0 {
		return
	}
	note := fmt.Sprintf("%d bytes of output could not be stored: %v", w.dropped, w.dropErr)
	head := appendRecord(nil, w.stamp(), Careen, []byte(note), false)
	w.buf = append(head, w.buf...)
	w.dropped, w.dropErr = 0, nil
}
