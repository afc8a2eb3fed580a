package image

import (
	"github.com/careen-project/careen/runtime/image/peers"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scarceReserves is how many times Limits.Reserve has to be free, in the store and in
// memory, for layers to be kept for other nodes: 256 MiB by default.
const scarceReserves = 8

// scarce reports whether what is kept for other nodes has to go.
func (p *Puller) scarce() bool {
	limit, kept := scarceReserves*p.cfg.Limits.Reserve, p.cfg.Kept.Size()
	room := p.room()
	if room.known && room.bytes-kept < limit {
		return true
	}
	memory := p.cfg.MemAvailable()
	return room.inMemory && memory > 0 && memory < limit
}

// memory is what the node can give, and could without the layers that are kept in its
// memory for other nodes.
func (p *Puller) memory() int64 {
	memory := p.cfg.MemAvailable()
	if memory > 0 {
		memory += p.cfg.Kept.Size()
	}
	return memory
}

// makeRoom decides on the layers of an image that takes so much unpacked and stored,
// of what is free: whether they are kept for other nodes, and whether those that are
// kept already have to go.
func (p *Puller) makeRoom(unpacked, stored, free int64) (keep bool) {
	left := free - unpacked - scarceReserves*p.cfg.Limits.Reserve
	if keep = p.cfg.Kept != nil && left >= stored; keep {
		left -= stored
	}
	if left < p.cfg.Kept.Size() {
		p.cfg.Kept.Drop()
	}
	return keep
}

// keep begins to keep a layer, nil if it is not kept.
func (u *unpacker) keep(desc ocispec.Descriptor) *peers.Writer {
	if !u.budget.keep.Load() {
		return nil
	}
	return u.p.cfg.Kept.Create(u.p.storeDir(), desc.Digest, desc.Size)
}

// giveBack drops what is kept, and keeps nothing more of this pull. It reports whether
// there was anything.
func (b *budget) giveBack() bool {
	b.keep.Store(false)
	return b.p.cfg.Kept.Drop() > 0
}
