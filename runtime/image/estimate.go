package image

import (
	"context"
	"encoding/binary"

	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/unpack"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// likelyExpansion is how much a compressed layer of programs and libraries grows
// when it says nothing about it itself; safeExpansion is what hardly any exceeds.
const (
	likelyExpansion = 2
	safeExpansion   = 5
)

// workingMemory is what a pull itself takes: buffers, tables, connections.
const workingMemory = 24 << 20

// checkSpace compares the image with the store's free space and the node's memory before
// the first byte is stored. It refuses an image that cannot fit. An image that may fit
// passes; the budget stops it in time if it does not.
func (p *Puller) checkSpace(ctx context.Context, src source, layers []layer) (err error) {
	var stored int64
	for _, l := range layers {
		if stored += l.desc.Size; stored < 0 {
			return failure.BadImage("manifest", "its layers have an impossible size")
		}
	}
	limits := p.cfg.Limits
	if stored > limits.MaxUnpacked {
		return bomb("its layers have more than %d bytes", limits.MaxUnpacked)
	}
	room := p.room()
	free := int64(1 << 62)
	if room.known {
		free = room.bytes - limits.Reserve
	}
	memory := int64(0)
	if room.inMemory {
		if memory = p.cfg.MemAvailable(); memory > 0 {
			free = min(free, memory-limits.Reserve-workingMemory)
		}
	}
	need := stored
	// Only when it may be close is it worth asking the layers for their size.
	if stored <= free && stored > free/safeExpansion {
		need = 0
		for _, l := range layers {
			need += unpackedSize(ctx, src, l.desc)
		}
	}
	if need <= free {
		return nil
	}
	if memory > 0 && memory-limits.Reserve-workingMemory < room.bytes-limits.Reserve {
		err = noMemory(need+limits.Reserve+workingMemory, memory)
	} else {
		err = noSpace(need, room.bytes-limits.Reserve, "takes "+mib(need)+" MiB unpacked, and the store has free only")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// unpackedSize estimates a layer's unpacked size from what the layer says: the
// length at the end of a gzip stream, or at the head of a zstd frame. Both may
// lie, so the result only decides what is refused early.
func unpackedSize(ctx context.Context, src source, desc ocispec.Descriptor) int64 {
	guess := desc.Size * likelyExpansion
	var head [zstd.HeaderMaxSize]byte
	if desc.Size < int64(len(head)) || src.probe(ctx, desc, 0, head[:]) != nil {
		return desc.Size
	}
	switch {
	case head[0] == unpack.GzipMagic[0] && head[1] == unpack.GzipMagic[1]:
		var tail [4]byte
		if src.probe(ctx, desc, desc.Size-4, tail[:]) != nil {
			return guess
		}
		// The length is modulo 2^32. deflate grows data that cannot be compressed by 5
		// bytes per block, of 16 KiB with some compressors (zlib, Go), so the least number
		// that is not further below the stored size is it.
		n := int64(binary.LittleEndian.Uint32(tail[:]))
		for n < desc.Size-desc.Size/1024-1024 {
			n += 1 << 32
		}
		if n > desc.Size*safeExpansion*4 {
			return guess // several members, or a lie
		}
		return n
	case [4]byte(head[:4]) == [4]byte(unpack.ZstdMagic):
		var h zstd.Header
		if h.Decode(head[:]) == nil && h.HasFCS && h.FrameContentSize < 1<<50 {
			return int64(h.FrameContentSize)
		}
		return guess
	default:
		return desc.Size
	}
}
