package exec

import (
	"sync"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/machine"
)

// item is one thing in the inbox.
type item struct {
	event machine.Event
	// request is what a submission asks for; it is kept in the run directory of this boot.
	request *api.RunRequest
	// reply, if not nil, gets the reply to a request. It has room for one.
	reply chan<- machine.Reply
	// answer says that a call of the owner has ended.
	answer bool
	// flush, if not nil, asks to write out what is due.
	flush chan<- error
}

// inbox holds what the owner of the runs has to handle, in order. Who puts something in
// never waits for the owner.
type inbox struct {
	ready chan struct{}
	mu    sync.Mutex
	items []item
	shut  bool
}

// put adds an item. It reports false when the inbox takes no more requests; answers are
// taken always.
func (b *inbox) put(it item) bool {
	b.mu.Lock()
	if b.shut && !it.answer {
		b.mu.Unlock()
		return false
	}
	b.items = append(b.items, it)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return true
}

// take returns all items.
func (b *inbox) take() []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}

func (b *inbox) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items) == 0
}

// close refuses further requests.
func (b *inbox) close() {
	b.mu.Lock()
	b.shut = true
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *inbox) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shut
}
