package peers

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// watchEvery is the time between two looks at the room that is left and at the age
// of what is kept.
const watchEvery = 250 * time.Millisecond

// Kept are compressed layers that stay for other nodes after they were unpacked. They
// are files without a name: the kernel takes them back when the process ends, however
// it ends. A nil *Kept keeps nothing. Its methods may be called at once.
type Kept struct {
	max  int64
	keep time.Duration

	mu     sync.Mutex
	byID   map[digest.Digest]*blob
	order  []*blob // the oldest first
	open   map[*Writer]struct{}
	size   int64 // of all blobs, and of those that are being written when they are whole
	scarce func() bool
	timer  *time.Timer
	closed bool
}

type blob struct {
	id    digest.Digest
	file  *os.File
	size  int64
	since time.Time
}

// NewKept returns an empty store for at most limit bytes, each layer of which goes
// after the time keep.
func NewKept(limit int64, keep time.Duration) *Kept {
	return &Kept{max: limit, keep: keep, byID: map[digest.Digest]*blob{}, open: map[*Writer]struct{}{}}
}

// Guard sets what says that the node needs the room for something else. It is asked
// four times a second as long as something is kept; if it does, all of it goes.
func (k *Kept) Guard(scarce func() bool) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.scarce = scarce
}

// Size returns how many bytes are taken.
func (k *Kept) Size() int64 {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.size
}

// Create begins to keep a layer in the file system of dir. It returns nil, which may
// be written to all the same, for one that is there already or has no room within the
// bound. The oldest layers give way.
func (k *Kept) Create(dir string, id digest.Digest, size int64) *Writer {
	if k == nil || dir == "" || size <= 0 || size > k.max {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.byID[id] != nil {
		return nil
	}
	for k.size+size > k.max && len(k.order) > 0 {
		k.remove(k.order[0])
	}
	if k.size+size > k.max { // what else is being written takes the room
		return nil
	}
	file, err := unnamed(dir)
	if err != nil {
		return nil
	}
	w := &Writer{k: k, file: file, id: id, size: size}
	k.open[w] = struct{}{}
	k.size += size
	if k.timer == nil {
		k.timer = time.AfterFunc(watchEvery, k.watch)
	}
	return w
}

// unnamed makes a file that is gone when it is closed.
func unnamed(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, ".careen-kept-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// Open returns a kept layer's content and size. What is dropped meanwhile cannot be
// read any further.
func (k *Kept) Open(id digest.Digest) (io.ReadSeeker, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.byID[id]
	if b == nil {
		return nil, false
	}
	return io.NewSectionReader(b.file, 0, b.size), true
}

// Drop lets go of everything, also of what is being written, and returns how many
// bytes that were.
func (k *Kept) Drop() int64 {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.drop()
}

func (k *Kept) drop() int64 {
	freed := k.size
	for len(k.order) > 0 {
		k.remove(k.order[0])
	}
	for w := range k.open {
		w.discard()
	}
	return freed
}

// remove has to be called with the lock held. Reading goes on until the call that has
// begun returns, so the file's room is free at once.
func (k *Kept) remove(b *blob) {
	delete(k.byID, b.id)
	for i, other := range k.order {
		if other == b {
			k.order = append(k.order[:i], k.order[i+1:]...)
			break
		}
	}
	k.size -= b.size
	_ = b.file.Close()
}

// watch drops what is too old, and everything when room is scarce.
func (k *Kept) watch() {
	k.mu.Lock()
	scarce := k.scarce
	k.mu.Unlock()
	needed := scarce != nil && scarce()
	k.mu.Lock()
	defer k.mu.Unlock()
	if needed {
		k.drop()
	}
	for len(k.order) > 0 && time.Since(k.order[0].since) >= k.keep {
		k.remove(k.order[0])
	}
	if k.closed || len(k.order)+len(k.open) == 0 {
		k.timer = nil
		return
	}
	k.timer.Reset(watchEvery)
}

// Close drops everything for good.
func (k *Kept) Close() error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.drop()
	if k.timer != nil {
		k.timer.Stop()
	}
	return nil
}

// Writer takes a layer as it comes from the network. A nil *Writer takes nothing.
type Writer struct {
	k    *Kept
	file *os.File
	id   digest.Digest
	size int64
	n    int64
	gone bool // guarded by the lock of k
}

// Write never fails: a layer that cannot be kept is one that is not given away.
func (w *Writer) Write(p []byte) (int, error) {
	if w != nil {
		// A file that was dropped is closed, and takes nothing.
		n, _ := w.file.Write(p)
		w.n += int64(n)
	}
	return len(p), nil
}

// Commit gives the layer away from now on. It has to have been verified.
func (w *Writer) Commit() {
	if w == nil {
		return
	}
	k := w.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.gone {
		return
	}
	if w.n != w.size || k.byID[w.id] != nil {
		w.discard()
		return
	}
	w.gone = true
	delete(k.open, w)
	b := &blob{id: w.id, file: w.file, size: w.size, since: time.Now()}
	k.byID[w.id] = b
	k.order = append(k.order, b)
}

// Discard forgets the layer, unless it was committed.
func (w *Writer) Discard() {
	if w == nil {
		return
	}
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	w.discard()
}

func (w *Writer) discard() {
	if w.gone {
		return
	}
	w.gone = true
	delete(w.k.open, w)
	w.k.size -= w.size
	_ = w.file.Close()
}
