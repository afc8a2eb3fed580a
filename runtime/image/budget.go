package image

import (
	"strconv"
	"sync/atomic"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/procfs"
	"github.com/careen-project/careen/runtime/image/failure"
	"golang.org/x/sys/unix"
)

// budget is what one pull may still take. All its layers charge it.
type budget struct {
	p       *Puller
	stored  atomic.Int64
	logical atomic.Int64
	entries atomic.Int64
	// checked is the amount at which memory was looked at last.
	checked atomic.Int64
	room    room
}

// room is what the store had free when the pull began.
type room struct {
	known    bool
	bytes    int64
	inMemory bool
}

// checkEvery is how much is unpacked between two looks at the node's memory.
const checkEvery = 64 << 20

// entryCost is what a file takes beside its content: an inode and a name, in
// memory that a tmpfs does not count against its size.
const entryCost = 1 << 10

func newBudget(p *Puller) *budget { return &budget{p: p, room: p.room()} }

// room is what the store has free.
func (p *Puller) room() room {
	var st unix.Statfs_t
	if dir := p.storeDir(); dir == "" || unix.Statfs(dir, &st) != nil {
		return room{}
	}
	return room{known: true, bytes: int64(st.Bavail) * st.Bsize,
		inMemory: st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC}
}

// charge is called before space is taken. What it allows may still fail with
// ENOSPC; what it refuses would have, or would have taken the node down.
func (b *budget) charge(entries, stored, logical int64) error {
	limits := b.p.cfg.Limits
	n := b.entries.Add(entries)
	bytes := b.stored.Add(stored)
	all := b.logical.Add(logical)
	switch {
	case n > limits.MaxEntries:
		return bomb("it has more than %d files", limits.MaxEntries)
	case all > limits.MaxUnpacked, bytes > limits.MaxUnpacked:
		return bomb("it unpacks to more than %d bytes", limits.MaxUnpacked)
	case b.room.known && bytes > b.room.bytes-limits.Reserve:
		return noSpace(bytes, b.room.bytes-limits.Reserve, "unpacks to more than the store has free,")
	}
	taken := bytes + n*entryCost
	if last := b.checked.Load(); b.room.inMemory && taken-last > checkEvery && b.checked.CompareAndSwap(last, taken) {
		if free := b.p.cfg.MemAvailable(); free > 0 && free < limits.Reserve {
			return noMemory(limits.Reserve, free)
		}
	}
	return nil
}

func bomb(format string, limit int64) error {
	return failure.BadImage("image", format, limit)
}

func noSpace(needed, free int64, verb string) error {
	return &fault.Error{Code: fault.Space, Op: "store", Subject: "image",
		Reason: "it " + verb + " " + mib(free) + " MiB",
		Remedy: "Use a smaller image, remove others, or give the store more room",
		Attrs:  map[string]any{"needed_bytes": needed, "free_bytes": max(free, 0)}}
}

func noMemory(needed, free int64) error {
	return &fault.Error{Code: fault.Memory, Op: "store", Subject: "image",
		Reason: "the node has " + mib(free) + " MiB of memory left, and the pull needs " + mib(needed) + " MiB",
		Remedy: "Use a smaller image or a node with more memory",
		Attrs:  map[string]any{"needed_bytes": needed, "free_bytes": free}}
}

func mib(n int64) string { return strconv.FormatInt(max(n, 0)>>20, 10) }

// memAvailable is the memory that can be had without swapping, in bytes; 0 if unknown.
func memAvailable() int64 {
	m, err := procfs.MemInfo()
	if err != nil {
		return 0
	}
	return m.Available
}
