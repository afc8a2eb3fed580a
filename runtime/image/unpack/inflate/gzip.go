package inflate

import "io"

// header reads a member's header, or finds the end of the stream.
func (z *Reader) header() error {
	if z.n == 0 {
		if err := z.fetch(); err != nil {
			if err == io.EOF && z.lit == nil {
				return io.ErrUnexpectedEOF // the stream has no member
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
