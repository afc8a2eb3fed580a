package image

import (
	"strconv"
	"sync/atomic"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/procfs"
	"github.com/careen-project/careen/runtime/image/failure"
	"golang.org/x/sys/unix"
)

// budget counts what one pull stores. All its layers charge it.
type budget struct {
	p       *Puller
	stored  atomic.Int64
	logical atomic.Int64
	entries atomic.Int64
	// checked is the number of bytes at the last check of the node's memory.
	checked atomic.Int64
	room    room
}

// room is the free space of the store when the pull began.
type room struct {
	known    bool
	bytes    int64
	inMemory bool
}

// checkEvery is the number of unpacked bytes between two checks of the node's memory.
const checkEvery = 64 << 20

// entryCost is the memory of a file beside its content, in bytes: an inode and a name. A
// tmpfs does not count it against its size.
const entryCost = 1 << 10

func newBudget(p *Puller) *budget { return &budget{p: p, room: p.room()} }

// room returns the free space of the store.
func (p *Puller) room() room {
	var st unix.Statfs_t
	if dir := p.storeDir(); dir == "" || unix.Statfs(dir, &st) != nil {
		return room{}
	}
	return room{known: true, bytes: int64(st.Bavail) * st.Bsize,
		inMemory: st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC}
}

// charge is called before space is used. A write that it allows may still fail with ENOSPC.
// A write that it refuses would have failed, or would have used up the node's memory. The
// error is [fault.BadImage], [fault.Space] or [fault.Memory].
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

// memAvailable is the memory that is available without swapping, in bytes; 0 if unknown.
func memAvailable() int64 {
	m, err := procfs.MemInfo()
	if err != nil {
		return 0
	}
	return m.Available
}
