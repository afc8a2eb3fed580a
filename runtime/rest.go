package runtime

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/procfs"
)

// restTime is how long after a container was made or removed the memory for that is
// given back: not between one and the other of a short step.
const restTime = 2 * time.Second

// restAbove is how much the process may hold at rest, in bytes, before it lets go of
// the binary's pages as well: to find all of them again costs the next run time.
const restAbove = 28 << 20

// rest makes the process small while nothing goes on: garbage goes back to the
// kernel, and where that is not enough the binary's own pages are no longer held.
// The latter stay where they are, in the page cache or the ramdisk that the binary
// lies in, and are found there again by the next call; but who asks what the agent
// takes of the node's memory is not told of a file that is there in any case.
func rest() {
	debug.FreeOSMemory()
	if resident() > restAbove {
		letGo()
	}
}

// resident is the memory of this process in RAM, in bytes; 0 if unknown.
func resident() int64 {
	p, err := procfs.Self()
	if err != nil {
		return 0
	}
	return p.Resident
}

// letGo gives back the binary's pages that are as they are in the file.
func letGo() {
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer maps.Close()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, m := range clean(bufio.NewScanner(maps), self) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// clean finds in smaps (proc_pid_smaps(5)) where a file is mapped and every page is
// still as it is in the file. Those that are not, such as tables that were filled in
// and then made read-only, would lose what was written.
func clean(smaps *bufio.Scanner, file string) []mapping {
	var found []mapping
	var at *mapping
	for smaps.Scan() {
		fields := strings.Fields(smaps.Text())
		if len(fields) == 0 {
			continue
		}
		if key, ok := strings.CutSuffix(fields[0], ":"); ok && !strings.Contains(key, "-") {
			if at != nil && key == "Anonymous" && len(fields) > 1 && fields[1] == "0" {
				found = append(found, *at)
			}
			continue
		}
		at = nil
		if len(fields) < 6 || fields[1][1] != '-' || strings.Join(fields[5:], " ") != file {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && start < end {
			at = &mapping{uintptr(start), uintptr(end)}
		}
	}
	return found
}
