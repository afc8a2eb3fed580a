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

// Source gives the compressed bytes in pieces that are not copied.
type Source interface {
	// Next returns bytes that were not taken yet, at least one, or an error; io.EOF
	// at the end. They stay as they are until the next call.
	Next() ([]byte, error)
	// Advance takes n of the bytes that Next returned.
	Advance(n int)
}

const (
	history = 32 << 10
	// outSize is what is decompressed at a time. With the history it stays in the
	// second-level cache.
	outSize = 128 << 10
	// slack is what one step of the fast loop may write behind the limit: three
	// literals, or two and a match and the rest of its last sixteen bytes.
	slack = 258 + 32
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
	in   []byte // what Next returned; pos of it is taken
	pos  int
	bits uint64 // input that is not used yet, the next bit lowest
	n    uint   // how many bits of it count

	window []byte
	w, r   int // written up to, and given to the caller up to

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
	return &Reader{src: src, window: make([]byte, history+outSize+slack)}
}

// Read returns io.EOF after the last member, io.ErrUnexpectedEOF inside of one,
// and errors of the source as they are.
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
	copy(z.window, z.window[drop:z.w])
	z.w, z.r = history, history
	z.start = max(0, z.start-drop)
}

// sum adds what was written since the last time to the member's checksum.
func (z *Reader) sum() {
	out := z.window[z.r:z.w]
	z.crc = crc32.Update(z.crc, crc32.IEEETable, out)
	z.size += uint32(len(out))
}

// limit is where writing stops; a step may go slack bytes further.
func (z *Reader) limit() int { return len(z.window) - slack }

// run decompresses until there is output to give or the stream ends.
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
			// The trailer is about all output, so that has to be summed first.
			if z.w > z.r {
				return nil
			}
			err = z.trailer()
		}
		if err != nil {
			return err
		}
		if z.w >= z.limit() {
			return nil
		}
	}
}

// fetch makes in[pos] exist. It returns io.EOF at the end of the source.
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

// need makes at least n bits count, n at most 32.
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

// header reads a member's header, or finds the end of the stream.
func (z *Reader) header() error {
	if z.n == 0 {
		if err := z.fetch(); err != nil {
			if err == io.EOF && z.lit == nil {
				return io.ErrUnexpectedEOF // there was no member at all
			}
			return err
		}
	}
	var h [10]byte
	for i := range h {
		b, err := z.number(8)
		if err != nil {
			return err
		}
		h[i] = byte(b)
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 {
		return corrupt("no gzip header")
	}
	flags := h[3]
	if flags&0xe0 != 0 {
		return corrupt("reserved bits of the header are set")
	}
	if flags&4 != 0 { // extra field
		n, err := z.number(16)
		if err != nil {
			return err
		}
		for ; n > 0; n-- {
			if _, err := z.number(8); err != nil {
				return err
			}
		}
	}
	for _, flag := range []byte{8, 16} { // file name, comment
		for flags&flag != 0 {
			b, err := z.number(8)
			if err != nil {
				return err
			}
			if b == 0 {
				break
			}
		}
	}
	if flags&2 != 0 { // checksum of the header
		if _, err := z.number(16); err != nil {
			return err
		}
	}
	z.crc, z.size, z.start, z.state = 0, 0, z.w, atBlock
	z.lit, z.dist = &fixedLit, &fixedDist
	return nil
}

func (z *Reader) trailer() error {
	z.take(z.n % 8)
	crc, err := z.number(32)
	if err != nil {
		return err
	}
	size, err := z.number(32)
	if err != nil {
		return err
	}
	if crc != z.crc {
		return corrupt("wrong checksum")
	}
	if size != z.size {
		return corrupt("wrong length")
	}
	z.state = atHeader
	return nil
}

// block reads the head of a block.
func (z *Reader) block() error {
	if z.last {
		z.last, z.state = false, atTrailer
		return nil
	}
	head, err := z.number(3)
	if err != nil {
		return err
	}
	z.last = head&1 != 0
	switch head >> 1 {
	case 0:
		z.take(z.n % 8)
		n, err := z.number(32)
		if err != nil {
			return err
		}
		if n&0xffff != ^n>>16 {
			return corrupt("stored block with a wrong length")
		}
		z.stored, z.state = int(n&0xffff), inStored
		return nil
	case 1:
		z.lit, z.dist, z.state = &fixedLit, &fixedDist, inCodes
		return nil
	case 2:
		z.state = inCodes
		return z.dynamic()
	default:
		return corrupt("unknown kind of block")
	}
}

func (z *Reader) copyStored() error {
	for z.stored > 0 && z.w < z.limit() {
		if z.n >= 8 { // bytes that were taken ahead
			z.window[z.w] = byte(z.take(8))
			z.w++
			z.stored--
			continue
		}
		if err := z.fetch(); err != nil {
			return unexpected(err)
		}
		n := copy(z.window[z.w:min(z.limit(), z.w+z.stored)], z.in[z.pos:])
		z.pos, z.w, z.stored = z.pos+n, z.w+n, z.stored-n
	}
	if z.stored == 0 {
		z.state = atBlock
	}
	return nil
}

// dynamic reads the codes of a block that brings its own.
func (z *Reader) dynamic() error {
	head, err := z.number(14)
	if err != nil {
		return err
	}
	nlit, ndist, ncode := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if nlit > maxLitCodes || ndist > maxDistCodes {
		return corrupt("too many codes")
	}
	var codeLens [19]uint8
	for i := range ncode {
		v, err := z.number(3)
		if err != nil {
			return err
		}
		codeLens[codeOrder[i]] = uint8(v)
	}
	if !build(z.ownLit[:], 7, codeLens[:], codeMeaning[:]) {
		return corrupt("bad code lengths")
	}
	if err := z.lengths(nlit + ndist); err != nil {
		return err
	}
	if !build(z.ownLit[:], litBits, z.lens[:nlit], litMeaning[:]) ||
		!build(z.ownDist[:], distBits, z.lens[nlit:nlit+ndist], distMeaning[:]) {
		return corrupt("bad code")
	}
	z.lit, z.dist = &z.ownLit, &z.ownDist
	return nil
}

// lengths reads the lengths of the codes, which are themselves coded.
func (z *Reader) lengths(total int) error {
	for i := 0; i < total; {
		e, err := z.symbol(z.ownLit[:], 7)
		if err != nil {
			return err
		}
		symbol := e >> 16 & 31
		if symbol < 16 {
			z.lens[i] = uint8(symbol)
			i++
			continue
		}
		var repeat uint32
		value := uint8(0)
		switch symbol {
		case 16:
			if i == 0 {
				return corrupt("repeats a length that is not there")
			}
			value = z.lens[i-1]
			repeat, err = z.number(2)
			repeat += 3
		case 17:
			repeat, err = z.number(3)
			repeat += 3
		default:
			repeat, err = z.number(7)
			repeat += 11
		}
		if err != nil {
			return err
		}
		if i+int(repeat) > total {
			return corrupt("too many lengths")
		}
		for range repeat {
			z.lens[i] = value
			i++
		}
	}
	return nil
}

// symbol decodes one symbol with as little input as it needs, so that the end
// of a stream is not read over. The extra bits are not taken.
func (z *Reader) symbol(table []uint32, tableBits uint) (uint32, error) {
	for {
		e := table[z.bits&(1<<tableBits-1)]
		if e&linkFlag != 0 {
			e = table[uint64(e>>16)+(z.bits>>tableBits)&(1<<(e>>8&15)-1)]
		}
		n := uint(e >> 8 & 15)
		if e != 0 && n <= z.n {
			z.take(n)
			return e, nil
		}
		if e == 0 && z.n >= maxCode {
			return 0, corrupt("a code that is not assigned")
		}
		if err := z.need(z.n + 1); err != nil {
			if e == 0 && err == io.ErrUnexpectedEOF {
				err = corrupt("a code that is not assigned")
			}
			return 0, err
		}
	}
}

// extra adds the extra bits of a length or distance to its base.
func (z *Reader) extra(e uint32) (int, error) {
	v, err := z.number(uint(e&0xff) - uint(e>>8&15))
	return int(e>>16) + int(v), err
}

// codes decompresses a coded block until it ends or the window is full.
func (z *Reader) codes() error {
	for {
		if done, err := z.fast(); done || err != nil {
			return err
		}
		if z.w >= z.limit() {
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

func store(b []byte, at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
