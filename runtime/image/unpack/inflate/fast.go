package inflate

import "encoding/binary"

// fast decodes as long as there are sixteen bytes of input and room for a step
// of output. It works on copies of the reader's fields, which the compiler keeps
// in registers, and puts them back at the end.
//
// The dependency from one symbol to the next limits its speed: index the table, load,
// shift. So it looks up the next entry before the refill, from bits that it has
// already. The refill is not on that critical path: it adds bits above those.
//
// A refill reads eight bytes and counts those that fit. The bits above the counted
// ones are the next bits of the input already, so the next refill sets the same bits
// and a plain or is enough.
//
//nolint:funlen,gocyclo // one loop, whose parts would each cost a call per symbol
func (z *Reader) fast() (done bool, err error) {
	in, pos := z.in, z.pos
	buf, n := z.bits, z.n
	window, w := z.window, z.w
	lit, dist := z.lit, z.dist
	inEnd := len(in) - 16
	if pos > inEnd || w >= limit {
		return false, nil
	}
	buf |= load(in, pos) << (n & 63)
	pos += int((63 - n) >> 3)
	n |= 56
	e := lit[buf&(1<<litBits-1)]

	for {
		if e&literalFlag != 0 {
			buf >>= e & 63
			n -= uint(e & 63)
			window[w] = byte(e >> 16)
			w++
			e = lit[buf&(1<<litBits-1)]
			if e&literalFlag != 0 {
				buf >>= e & 63
				n -= uint(e & 63)
				window[w] = byte(e >> 16)
				w++
				e = lit[buf&(1<<litBits-1)]
				if e&literalFlag != 0 {
					buf >>= e & 63
					n -= uint(e & 63)
					window[w] = byte(e >> 16)
					w++
					e = lit[buf&(1<<litBits-1)]
					if pos > inEnd || w >= limit {
						break
					}
					buf |= load(in, pos) << (n & 63)
					pos += int((63 - n) >> 3)
					n |= 56
					continue
				}
			}
		}
		if e&exceptionFlag != 0 {
			if e&linkFlag != 0 {
				e = lit[(uint64(e>>16)+(buf>>litBits)&(1<<(e>>8&15)-1))&(litSize-1)]
				if e&literalFlag != 0 {
					buf >>= e & 63
					n -= uint(e & 63)
					window[w] = byte(e >> 16)
					w++
					if pos > inEnd || w >= limit {
						break
					}
					buf |= load(in, pos) << (n & 63)
					pos += int((63 - n) >> 3)
					n |= 56
					e = lit[buf&(1<<litBits-1)]
					continue
				}
			}
			if e&exceptionFlag != 0 { // the end of the block
				buf >>= e & 63
				n -= uint(e & 63)
				done = true
				break
			}
		}
		if e == 0 {
			err = corrupt("a code that is not assigned")
			break
		}
		length := int(e>>16) + int((buf&(1<<(e&63)-1))>>(e>>8&15))
		buf >>= e & 63
		n -= uint(e & 63)

		// At most 22 bits of literals and 20 of the length are gone: enough are left
		// for the first level, but a distance may need 28.
		e = dist[buf&(1<<distBits-1)]
		buf |= load(in, pos) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		if e&linkFlag != 0 {
			e = dist[(uint64(e>>16)+(buf>>distBits)&(1<<(e>>8&15)-1))&(distSize-1)]
		}
		if e == 0 {
			err = corrupt("a code that is not assigned")
			break
		}
		distance := int(e>>16) + int((buf&(1<<(e&63)-1))>>(e>>8&15))
		buf >>= e & 63
		n -= uint(e & 63)
		from := w - distance
		if from < z.start {
			err = corrupt("a match from before the start")
			break
		}
		end := w + length
		e = lit[buf&(1<<litBits-1)]
		switch {
		case distance >= 16:
			for {
				*(*[16]byte)(window[w:]) = *(*[16]byte)(window[from:])
				w, from = w+16, from+16
				if w >= end {
					break
				}
			}
		case distance >= 8:
			for {
				binary.LittleEndian.PutUint64(window[w:], binary.LittleEndian.Uint64(window[from:]))
				w, from = w+8, from+8
				if w >= end {
					break
				}
			}
		case distance == 1:
			v := uint64(window[from]) * 0x0101010101010101
			for {
				binary.LittleEndian.PutUint64(window[w:], v)
				w += 8
				if w >= end {
					break
				}
			}
		default:
			for ; w < end; w, from = w+1, from+1 {
				window[w] = window[from]
			}
		}
		w = end
		if pos > inEnd || w >= limit {
			break
		}
		buf |= load(in, pos) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
	}
	z.pos, z.w = pos, w
	// Keep only the counted bits: the next reader may continue at another place.
	z.bits, z.n = buf&(1<<n-1), n
	if done {
		z.state = atBlock
	}
	return done, err
}
