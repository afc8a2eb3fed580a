package inflate

import "io"

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
	for z.stored > 0 && z.w < limit {
		if z.n >= 8 { // bytes that were read ahead
			z.window[z.w] = byte(z.take(8))
			z.w++
			z.stored--
			continue
		}
		if err := z.fetch(); err != nil {
			return unexpected(err)
		}
		n := copy(z.window[z.w:min(limit, z.w+z.stored)], z.in[z.pos:])
		z.pos, z.w, z.stored = z.pos+n, z.w+n, z.stored-n
	}
	if z.stored == 0 {
		z.state = atBlock
	}
	return nil
}

// dynamic reads the codes of a block with dynamic Huffman codes.
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

// lengths reads the lengths of the codes, which are Huffman-coded too.
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

// symbol decodes one symbol from as few bits as possible, so that it does not read
// past the end of a stream. It does not consume the extra bits.
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
