package inflate

import "math/bits"

// An entry of a decoding table:
//
//	bits 0-7    bits to consume from the input: the code and its extra bits
//	bits 8-11   bits of the code alone; of a link, the bits that index the subtable
//	bit 12      exception: a link, the end of the block
//	bit 13      link to a subtable, whose start is in bits 16 and up
//	bits 16-30  the literal, or the least length or distance of the code
//	bit 31      literal
//
// Zero is a code that is not assigned.
const (
	literalFlag   = 1 << 31
	exceptionFlag = 1 << 12
	linkFlag      = 1 << 13
)

// The sizes of the tables. The first level is indexed by that many bits of the
// input; codes that are longer share a subtable per start, as large as the
// longest code needs. Every start has at least two codes, so the arrays hold
// the worst case: 2^11 + 286/2 * 2^(15-11) and 2^8 + 30/2 * 2^(15-8). Sizes are
// powers of two so that a masked index needs no check.
const (
	litBits  = 11
	litSize  = 8192
	distBits = 8
	distSize = 4096
	maxCode  = 15
)

const (
	maxLitCodes  = 286
	maxDistCodes = 30
	endOfBlock   = 256
)

var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// The meanings of symbols, without the length of their code: entry adds the length.
var (
	litMeaning  [288]uint32
	distMeaning [32]uint32
	codeMeaning [19]uint32
	fixedLit    [litSize]uint32
	fixedDist   [distSize]uint32
)

func init() {
	for i := range 256 {
		litMeaning[i] = literalFlag | uint32(i)<<16
	}
	litMeaning[endOfBlock] = exceptionFlag
	base, extra := 3, 0
	for i := 257; i < 285; i++ {
		if i >= 265 && (i-265)%4 == 0 {
			extra++
		}
		litMeaning[i] = uint32(base)<<16 | uint32(extra)
		base += 1 << extra
	}
	litMeaning[285] = 258 << 16
	base, extra = 1, 0
	for i := range 30 {
		if i >= 4 && i%2 == 0 {
			extra++
		}
		distMeaning[i] = uint32(base)<<16 | uint32(extra)
		base += 1 << extra
	}
	for i := range codeMeaning {
		codeMeaning[i] = uint32(i|32) << 16 // not zero, for symbol 0 has a meaning
	}
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	build(fixedLit[:], litBits, lens[:], litMeaning[:])
	for i := range 32 {
		lens[i] = 5
	}
	build(fixedDist[:], distBits, lens[:32], distMeaning[:])
}

// build fills a table for the canonical code with these lengths. It refuses
// codes that are over-subscribed or incomplete. There are two exceptions, which encoders
// write when a block has at most one distance: a single symbol of one bit, and no code.
func build(table []uint32, tableBits uint, lens []uint8, meaning []uint32) bool {
	var count, next [maxCode + 2]int
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	used, left, longest := 0, 1, 0
	for n := 1; n <= maxCode; n++ {
		left <<= 1
		left -= count[n]
		if left < 0 {
			return false
		}
		if count[n] > 0 {
			longest = n
		}
		used += count[n]
		next[n+1] = (next[n] + count[n]) << 1
	}
	clear(table[:1<<tableBits])
	if left > 0 && (used > 1 || (used == 1 && count[1] != 1)) {
		return false
	}
	free := 1 << tableBits // where the next subtable goes
	for symbol, n8 := range lens {
		if n8 == 0 {
			continue
		}
		n := uint(n8)
		code := int(bits.Reverse16(uint16(next[n])) >> (16 - n))
		next[n]++
		m := meaning[symbol]
		// A symbol without meaning stays unassigned, as RFC 1951 requires.
		entry := uint32(0)
		if m != 0 {
			entry = m&^0xff | uint32(n)<<8 | (m&0xff + uint32(n))
		}
		if n <= tableBits {
			for i := code; i < 1<<tableBits; i += 1 << n {
				table[i] = entry
			}
			continue
		}
		first, subBits := code&(1<<tableBits-1), uint(longest)-tableBits
		if table[first]&linkFlag == 0 {
			table[first] = exceptionFlag | linkFlag | uint32(free)<<16 | uint32(subBits)<<8 | uint32(tableBits)
			clear(table[free : free+1<<subBits])
			free += 1 << subBits
		}
		start := int(table[first] >> 16)
		for i := code >> tableBits; i < 1<<subBits; i += 1 << (n - tableBits) {
			table[start+i] = entry
		}
	}
	return true
}
