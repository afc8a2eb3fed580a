package image

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/unpack"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxExpansion is how much a compressed layer of programs and libraries grows at most. A
// layer that says it grows more is mostly pages of zeros, which take no room, or lies.
const maxExpansion = 20

// usualExpansion is the growth that nearly no image exceeds. An image that fits even then
// is not worth a question to the registry.
const usualExpansion = 5

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
	if stored <= free/usualExpansion {
		return nil
	}
	var need int64
	for _, l := range layers {
		need += leastUnpacked(l.desc.Size)
	}
	if need <= free {
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
		err = noSpace(need, room.bytes-limits.Reserve, "takes at least "+mib(need)+" MiB unpacked, and the store has free only")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// leastUnpacked is the least unpacked size of a compressed layer of a size. It assumes that
// compressors let data grow by less than 1/1024 and 1 KiB: deflate's and zstd's blocks
// have 3 to 5 bytes each, blocks have 16 KiB or more (zlib, Go), and members of a blocked
// gzip stream 64 KiB (bgzip) and 31 bytes.
func leastUnpacked(size int64) int64 { return max(0, size-size/1024-1024) }

// unpackedSize is the least unpacked size of a layer, in bytes, by what the layer says: the
// length at the end of a gzip stream (RFC 1952, section 2.3.1), or in the header of a zstd
// frame (RFC 8878, section 3.1.1.1).
//
// Neither is the length of the whole layer for certain. A layer may have several members or
// frames, as eStargz has one per file, and gzip's length is modulo 2^32. So a length counts
// only where it is more than leastUnpacked. A layer that is larger than it says is stopped
// by the budget. It assumes that few pages are zeros, which are not stored, unless the
// layer grows by more than maxExpansion.
func unpackedSize(ctx context.Context, src source, desc ocispec.Descriptor) int64 {
	least := leastUnpacked(desc.Size)
	says := func(length int64) int64 {
		if length < 0 || length > desc.Size*maxExpansion {
			return least
		}
		return max(least, length)
	}
	var head [zstd.HeaderMaxSize]byte
	if desc.Size < int64(len(head)) || src.probe(ctx, desc, 0, head[:]) != nil {
		return least
	}
	switch {
	case bytes.HasPrefix(head[:], unpack.GzipMagic):
		var tail [4]byte
		if src.probe(ctx, desc, desc.Size-4, tail[:]) != nil {
			return least
		}
		return says(int64(binary.LittleEndian.Uint32(tail[:])))
	case bytes.HasPrefix(head[:], unpack.ZstdMagic):
		var h zstd.Header
		if h.Decode(head[:]) != nil || !h.HasFCS || h.FrameContentSize > 1<<50 {
			return least
		}
		return says(int64(h.FrameContentSize))
	default:
		return desc.Size
	}
}
