package leaks

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ticksPerSecond is the unit of start times in /proc/PID/stat: USER_HZ, 100 on every
// architecture that Go knows.
const ticksPerSecond = 100

// containerGroup is a control group named after a container's id.
var containerGroup = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`[0-9a-f]{64}`)
})

// processes lists the processes that a container may have left on the node by moving
// them out of its control group, one line each. Such a process started after the time
// since on the boot clock. Its mount namespace is neither this process's nor that of the
// node's init. And it belongs to no running container, no systemd unit and not to careen.
func processes(since time.Duration) []string {
	self, _ := os.Readlink("/proc/self/exe")
	own, _ := os.ReadFile("/proc/self/cgroup")
	known := map[string]bool{namespaceOf("self"): true, namespaceOf("1"): true}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var leaked []string
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		// Kernel threads have init's namespace; a process that has ended has none.
		if ns := namespaceOf(pid); ns == "" || known[ns] {
			continue
		}
		if exe, err := os.Readlink(dir + "/exe"); err == nil && exe == self {
			continue
		}
		groups, err := os.ReadFile(dir + "/cgroup")
		if err != nil || containerGroup().Match(groups) || string(groups) != string(own) && inUnit(string(groups)) {
			continue
		}
		name, started, err := startOf(dir + "/stat")
		if err == nil && started >= since {
			leaked = append(leaked, fmt.Sprintf("process %s (pid %s)", name, pid))
		}
	}
	return leaked
}

func namespaceOf(pid string) string {
	ns, _ := os.Readlink("/proc/" + pid + "/ns/mnt")
	return ns
}

// inUnit reports whether a process's groups, as /proc has them, are those of a unit.
func inUnit(groups string) bool {
	for line := range strings.Lines(groups) {
		switch path.Ext(strings.TrimSpace(line)) {
		case ".service", ".scope":
			return true
		}
	}
	return false
}

// startOf returns a process's name and when it was started on the boot clock.
func startOf(file string) (name string, started time.Duration, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", 0, err
	}
	// The name is in parentheses and may hold any byte.
	first, last := strings.IndexByte(string(data), '('), strings.LastIndexByte(string(data), ')')
	if first < 0 || last < first {
		return "", 0, os.ErrInvalid
	}
	fields := strings.Fields(string(data[last+1:]))
	if len(fields) < 20 {
		return "", 0, os.ErrInvalid
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64) // the 22nd of all
	return string(data[first+1 : last]), time.Duration(ticks) * (time.Second / ticksPerSecond), err
}
