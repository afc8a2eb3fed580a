package logs

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// MaxText is the longest text of one record in bytes; a longer line becomes
// several records. It is what Kubernetes' container runtimes use.
const MaxText = 16 << 10

// The streams of a log. A container writes the first two.
const (
	Stdout = "stdout"
	Stderr = "stderr"
	// Careen is the stream of notes that careen itself puts between the lines.
	Careen = "careen"
)

const (
	// stampLayout is RFC 3339 with all nine digits, so that records sort as text.
	stampLayout = "2006-01-02T15:04:05.000000000Z"
	// maxStream bounds a stream's name, and so a record's length.
	maxStream = 16
	// maxRecord is the longest record: stamp, stream, tag, text and separators.
	maxRecord = len(stampLayout) + maxStream + MaxText + 5

	segmentSuffix = ".log"
)

// Line is one record of a log.
type Line struct {
	// Time is when careen read the text, by the node's clock, which may jump.
	Time time.Time
	// Stream is stdout, stderr or careen.
	Stream string
	// Text is without the newline, any bytes but that.
	Text []byte
	// Partial says that the line goes on in the stream's next record.
	Partial bool
	// Cursor is the place just after this record, for [ReadOptions.After].
	Cursor Cursor
}

// Cursor is a place in a log. The zero Cursor is its beginning.
type Cursor struct {
	// Segment is the number in a segment's name; they start at 1.
	Segment uint64
	// Offset is in bytes from the segment's start.
	Offset int64
}

// String returns the cursor as "SEGMENT:OFFSET", which [ParseCursor] reads.
func (c Cursor) String() string { return fmt.Sprintf("%d:%d", c.Segment, c.Offset) }

// ParseCursor reads what [Cursor.String] wrote.
func ParseCursor(text string) (Cursor, error) {
	segment, offset, ok := strings.Cut(text, ":")
	s, err1 := strconv.ParseUint(segment, 10, 63)
	o, err2 := strconv.ParseInt(offset, 10, 63)
	if !ok || err1 != nil || err2 != nil || o < 0 {
		return Cursor{}, fmt.Errorf("log cursor %q is not SEGMENT:OFFSET", text)
	}
	return Cursor{Segment: s, Offset: o}, nil
}

// appendRecord appends one record to b.
func appendRecord(b, stamp []byte, stream string, text []byte, partial bool) []byte {
	b = append(b, stamp...)
	b = append(b, ' ')
	b = append(b, stream...)
	if partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	b = append(b, text...)
	return append(b, '\n')
}

// parseRecord reads a record without its newline. What a crash left torn, or
// what is no record at all, is not ok. The text of l is part of rec.
func parseRecord(rec []byte) (l Line, ok bool) {
	stamp, rest, ok := bytes.Cut(rec, []byte{' '})
	if !ok || len(stamp) < len("2006-01-02T15:04:05Z") || len(stamp) > len(stampLayout)+6 {
		return l, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return l, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(stream) == 0 || len(stream) > maxStream {
		return l, false
	}
	tag, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(tag) != 1 || (tag[0] != 'F' && tag[0] != 'P') {
		return l, false
	}
	return Line{Time: at, Stream: string(stream), Text: text, Partial: tag[0] == 'P'}, true
}

// segmentName returns the file name of segment n.
func segmentName(n uint64) string { return fmt.Sprintf("%010d%s", n, segmentSuffix) }

// segmentNumber reads a segment's file name.
func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(filepath.Base(name), segmentSuffix)
	if !ok || len(digits) < 10 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, err == nil && n > 0
}
