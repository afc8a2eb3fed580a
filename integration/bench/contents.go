package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
)

// contents makes the files of one layer.
type contents struct {
	rng   *rand.Rand
	words [][]byte
}

// newContents seeds a layer's files. Layers of the same number are the same in
// all images of one shape, so that images can share them; the topmost is not.
func newContents(layer int, s shape) *contents {
	seed := uint64(layer)
	if layer >= s.Layers {
		seed = uint64(1000 + s.Own)
	}
	c := &contents{rng: rand.New(rand.NewPCG(20, 26))} // the same image every time
	for range 4000 {
		word := make([]byte, 2+c.rng.IntN(9))
		for i := range word {
			word[i] = "etaoinshrdlcumwfgypbvkjxqz_-./=0123456789"[min(c.rng.IntN(41), c.rng.IntN(41))]
		}
		c.words = append(c.words, word)
	}
	c.rng = rand.New(rand.NewPCG(20, 26+seed))
	return c
}

// layer writes one layer: half of the image in the first, the rest in equal
// parts, files of very different sizes, in directories of about 100.
func (c *contents) layer(t *tar.Writer, s shape, layer int) error {
	files, left := share(s, layer, int64(s.Files)), share(s, layer, s.Bytes)
	if layer >= s.Layers {
		files, left = 10, 1<<20
	}
	if s.Empty {
		left = files * 512
	}
	if layer == 0 {
		if err := writeEntry(t, &tar.Header{Typeflag: tar.TypeReg, Name: "bin/true", Mode: 0o755}, exitZero(runtime.GOARCH)); err != nil {
			return err
		}
	}
	for n := range files {
		dir := fmt.Sprintf("usr/lib/l%d/d%d/", layer, n/100)
		if n%100 == 0 {
			if err := writeEntry(t, &tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil); err != nil {
				return err
			}
		}
		size := sizeOf(n, files, left)
		left -= size
		body := c.body(size, n%5 < 3)
		if err := writeEntry(t, &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%sf%d", dir, n), Mode: 0o644}, body); err != nil {
			return err
		}
	}
	if s.Empty && layer == 0 {
		if err := writeZeros(t, s.Bytes); err != nil {
			return err
		}
	}
	return t.Close()
}

// share is what one layer has of all.
func share(s shape, layer int, all int64) int64 {
	if s.Layers == 1 {
		return all
	}
	if layer == 0 {
		return all / 2
	}
	return all / 2 / int64(s.Layers-1)
}

// sizeOf makes nine of ten files small; the tenth takes what they leave, the
// last all that is left.
func sizeOf(n, files, left int64) int64 {
	mean := left / (files - n)
	switch {
	case n == files-1:
		return left
	case n%10 == 9:
		return min(left, mean*4)
	default:
		return mean / 8
	}
}

func writeEntry(t *tar.Writer, h *tar.Header, body []byte) error {
	h.ModTime, h.Size = when, int64(len(body))
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := t.Write(body)
	return err
}

func writeZeros(t *tar.Writer, size int64) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: size, ModTime: when}); err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for n := size; n > 0; n -= int64(len(zeros)) {
		if _, err := t.Write(zeros[:min(n, int64(len(zeros)))]); err != nil {
			return err
		}
	}
	return nil
}

// body makes text of words, some much more frequent than others, or something
// like machine code: a few opcodes, many operands, repeated stretches.
func (c *contents) body(size int64, program bool) []byte {
	var b bytes.Buffer
	b.Grow(int(size) + 64)
	for int64(b.Len()) < size {
		if !program {
			b.Write(c.words[min(c.rng.IntN(len(c.words)), c.rng.IntN(len(c.words)), c.rng.IntN(len(c.words)))])
			b.WriteByte(" \n"[min(c.rng.IntN(8)/7, 1)])
			continue
		}
		if b.Len() > 4096 && c.rng.IntN(6) == 0 {
			from := b.Len() - 1 - c.rng.IntN(4000)
			b.Write(b.Bytes()[from:min(from+16+c.rng.IntN(48), b.Len())])
			continue
		}
		for range 8 {
			b.WriteByte("\x48\x89\x8b\x0f\xe8\x00\x24\xff"[c.rng.IntN(8)])
			v := c.rng.Uint32()
			b.WriteByte(byte(v))
			b.WriteByte(byte(v >> 8))
		}
	}
	return b.Bytes()[:size]
}

// exitZero is the smallest program: an ELF file whose only segment calls
// exit(0). With it a run measures the engine and nothing of a program's start.
func exitZero(arch string) []byte {
	machine, code := uint16(62), []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05} // xor edi,edi; mov eax,60; syscall
	if arch == "arm64" {
		// mov x0,#0; mov x8,#93; svc #0
		machine, code = 183, []byte{0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}
	}
	const base, head = 0x400000, 64 + 56
	size := uint64(head + len(code))
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	le := binary.LittleEndian
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+head) // entry
	b = le.AppendUint64(b, 64)        // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 64, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // read and execute
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
