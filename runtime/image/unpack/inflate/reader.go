package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ErrCorrupt is wrapped by all errors about the data itself.
var ErrCorrupt = errors.New("corrupt gzip data")

func corrupt(what string) error { return fmt.Errorf("%w: %s", ErrCorrupt, what) }

// Source returns the compressed bytes in pieces that are not copied.
type Source interface {
	// Next returns bytes that were not consumed yet, at least one, or an error; io.EOF
	// at the end. They stay unchanged until the next call.
	Next() ([]byte, error)
	// Advance consumes n of the bytes that Next returned.
	Advance(n int)
}

const (
	history = 32 << 10
	// outSize is the number of bytes decompressed at a time. With the history they fit in
	// the second-level cache.
	outSize = 128 << 10
	// slack is what one step of the fast loop may write behind the limit: three
	// literals, or two and a match and the rest of its last sixteen bytes.
	slack      = 258 + 32
	windowSize = history + outSize + slack
	// limit is where writing stops; a step may go slack bytes further.
	limit = windowSize - slack
)

type state int

const (
	atHeader state = iota
	atBlock
	inStored
	inCodes
	atTrailer
)

// Reader decompresses. It is for one goroutine.
type Reader struct {
	src  Source
	in   []byte // the bytes from Next; the first pos are consumed
	pos  int
	bits uint64 // input that is not used yet, the next bit lowest
	n    uint   // the number of valid bits

	// An array, so that its length and values derived from it are constants in the
	// fast loop, which has few registers.
	window *[windowSize]byte
	w, r   int // end of the written bytes, and of those returned to the caller

	state   state
	last    bool // the block is the member's last
	stored  int
	lit     *[litSize]uint32
	dist    *[distSize]uint32
	ownLit  [litSize]uint32
	ownDist [distSize]uint32
	lens    [maxLitCodes + maxDistCodes + 2]uint8

	crc   uint32
	size  uint32
	start int // of this member's history in the window: no match goes before it
	err   error
}

// NewReader returns a reader of the gzip stream in src.
func NewReader(src Source) *Reader {
	return &Reader{src: src, window: new([windowSize]byte)}
}

// Read returns io.EOF after the last member, io.ErrUnexpectedEOF inside a member,
// and errors of the source unchanged.
func (z *Reader) Read(p []byte) (int, error) {
	for z.r == z.w {
		if z.err != nil {
			return 0, z.err
		}
		z.slide()
		z.err = z.run()
		z.sum()
	}
	n := copy(p, z.window[z.r:z.w])
	z.r += n
	return n, nil
}

// slide makes room: only the last 32 KiB are needed for matches.
func (z *Reader) slide() {
	if z.w <= history {
		return
	}
	drop := z.w - history
	copy(z.window[:], z.window[drop:z.w])
	z.w, z.r = history, history
	z.start = max(0, z.start-drop)
}

// sum adds the bytes written since the last call to the member's checksum.
func (z *Reader) sum() {
	out := z.window[z.r:z.w]
	z.crc = crc32.Update(z.crc, crc32.IEEETable, out)
	z.size += uint32(len(out))
}

// run decompresses until it has output or the stream ends.
func (z *Reader) run() error {
	for {
		var err error
		switch z.state {
		case atHeader:
			err = z.header()
		case atBlock:
			err = z.block()
		case inStored:
			err = z.copyStored()
		case inCodes:
			err = z.codes()
		case atTrailer:
			// The trailer covers all output, so sum it first.
			if z.w > z.r {
				return nil
			}
			err = z.trailer()
		}
		if err != nil {
			return err
		}
		if z.w >= limit {
			return nil
		}
	}
}

// fetch makes in[pos] available. It returns io.EOF at the end of the source.
func (z *Reader) fetch() error {
	if z.pos < len(z.in) {
		return nil
	}
	z.src.Advance(z.pos)
	z.in, z.pos = nil, 0
	in, err := z.src.Next()
	if err != nil {
		return err
	}
	z.in = in
	return nil
}

// need makes at least n bits valid, n at most 32.
func (z *Reader) need(n uint) error {
	for z.n < n {
		if err := z.fetch(); err != nil {
			return unexpected(err)
		}
		z.bits |= uint64(z.in[z.pos]) << z.n
		z.pos++
		z.n += 8
	}
	return nil
}

func (z *Reader) take(n uint) uint32 {
	v := uint32(z.bits & (1<<n - 1))
	z.bits >>= n
	z.n -= n
	return v
}

// number reads n bits, n at most 32.
func (z *Reader) number(n uint) (uint32, error) {
	if err := z.need(n); err != nil {
		return 0, err
	}
	return z.take(n), nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// codes decompresses a coded block until it ends or the window is full.
func (z *Reader) codes() error {
	for {
		if done, err := z.fast(); done || err != nil {
			return err
		}
		if z.w >= limit {
			return nil
		}
		if done, err := z.careful(); done || err != nil {
			return err
		}
	}
}

// careful decodes one symbol near the end of a piece of input.
func (z *Reader) careful() (done bool, err error) {
	e, err := z.symbol(z.lit[:], litBits)
	if err != nil {
		return false, err
	}
	if e&literalFlag != 0 {
		z.window[z.w] = byte(e >> 16)
		z.w++
		return false, nil
	}
	if e&exceptionFlag != 0 {
		z.state = atBlock
		return true, nil
	}
	length, err := z.extra(e)
	if err != nil {
		return false, err
	}
	if e, err = z.symbol(z.dist[:], distBits); err != nil {
		return false, err
	}
	distance, err := z.extra(e)
	if err != nil {
		return false, err
	}
	if distance > z.w-z.start {
		return false, corrupt("a match from before the start")
	}
	for range length {
		z.window[z.w] = z.window[z.w-distance]
		z.w++
	}
	return false, nil
}

func load(b []byte, at int) uint64 { return binary.LittleEndian.Uint64((*[8]byte)(b[at:])[:]) }
