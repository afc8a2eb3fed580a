package runtime

import (
	"runtime/debug"
	"time"
)

// trimDelay is the time from the last creation or removal of a container to the trim
// of this process's memory. It is longer than a short step takes.
const trimDelay = 2 * time.Second

// trimMemory returns the memory of collected garbage to the kernel: the agent shares
// the node's memory with the steps.
func trimMemory() { debug.FreeOSMemory() }
