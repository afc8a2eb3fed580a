package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// failpoint returns a function that kills the process, as SIGKILL does, at the points that
// a test names in CAREEN_FAILPOINT: "NAME", or "NAME=N" for the N-th time, with commas
// between. It is nil if no point is named.
func failpoint() func(string) {
	armed := map[string]*atomic.Int64{}
	for word := range strings.SplitSeq(os.Getenv("CAREEN_FAILPOINT"), ",") {
		name, count, _ := strings.Cut(word, "=")
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil {
			n = 1
		}
		if name != "" {
			armed[name] = new(atomic.Int64)
			armed[name].Store(n)
		}
	}
	if len(armed) == 0 {
		return nil
	}
	return func(name string) {
		if left := armed[name]; left != nil && left.Add(-1) == 0 {
			fmt.Fprintln(os.Stderr, "killed at failpoint", name)
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
}
