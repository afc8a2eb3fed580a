package unpack

import (
	"context"
	"io"
	"sync/atomic"
)

// Buffers between the stages of a pipeline. 128 KiB fits the processor's cache
// beside the other stages' data; six of them let a stage run ahead of a slower
// one without the layer taking more than 2 MiB.
const (
	chunkSize  = 128 << 10
	chunkCount = 6
)

type chunk struct {
	buf  []byte
	n    int
	refs atomic.Int32
}

// stream carries bytes from one goroutine to several, each of which sees all of
// them. Buffers are shared, not copied, and go back when the last has read them.
type stream struct {
	free chan *chunk
	outs []*reader
	err  error // what ended the stream, io.EOF at its end; set before closing
}

func newStream(readers int) *stream {
	s := &stream{free: make(chan *chunk, chunkCount)}
	for range chunkCount {
		s.free <- &chunk{}
	}
	for range readers {
		s.outs = append(s.outs, &reader{s: s, in: make(chan *chunk, chunkCount)})
	}
	return s
}

// pump reads r to its end into the stream. It has to be called once, and ends
// early when ctx ends.
func (s *stream) pump(ctx context.Context, r io.Reader) error {
	defer func() {
		for _, out := range s.outs {
			close(out.in)
		}
	}()
	for {
		var c *chunk
		select {
		case c = <-s.free:
		case <-ctx.Done():
			s.err = context.Cause(ctx)
			return s.err
		}
		if c.buf == nil {
			c.buf = make([]byte, chunkSize)
		}
		n, err := fill(r, c.buf)
		if n > 0 {
			c.n = n
			c.refs.Store(int32(len(s.outs)))
			for _, out := range s.outs {
				out.in <- c // never blocks: there are as many places as chunks
			}
		}
		if err != nil {
			s.err = err
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// fill reads until b is full, the end or an error.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// reader is one consumer's end of a stream. The consumer reads it to its end, or the
// context of the pump has to be cancelled.
type reader struct {
	s   *stream
	in  chan *chunk
	cur *chunk
	at  int
}

// Next returns the unread rest of the current buffer, or the next one. It is
// valid until the next call. Call Advance with the number of bytes that were used.
func (r *reader) Next() ([]byte, error) {
	if r.cur != nil && r.at < r.cur.n {
		return r.cur.buf[r.at:r.cur.n], nil
	}
	r.drop()
	c, ok := <-r.in
	if !ok {
		return nil, r.s.err
	}
	r.cur, r.at = c, 0
	return c.buf[:c.n], nil
}

// Advance takes n bytes of what Next returned.
func (r *reader) Advance(n int) { r.at += n }

func (r *reader) drop() {
	if c := r.cur; c != nil {
		r.cur = nil
		if c.refs.Add(-1) == 0 {
			r.s.free <- c
		}
	}
}

// Read makes it an io.Reader, ReadByte one that decompressors do not wrap.
func (r *reader) Read(p []byte) (int, error) {
	b, err := r.Next()
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	r.Advance(n)
	return n, nil
}

// ReadByte returns the next byte.
func (r *reader) ReadByte() (byte, error) {
	b, err := r.Next()
	if err != nil {
		return 0, err
	}
	r.Advance(1)
	return b[0], nil
}

// each calls fn with every buffer up to the end.
func (r *reader) each(fn func([]byte)) error {
	for {
		b, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		fn(b)
		r.Advance(len(b))
	}
}
