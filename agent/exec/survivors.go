package exec

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// survivors describes the processes at and below pid: their state, what they wait
// for in the kernel, and the top of their stack. It is what can be known of a
// container that SIGKILL did not end.
func survivors(pid int) string {
	const most = 5
	if pid <= 0 {
		return ""
	}
	var found []string
	for next := []int{pid}; len(next) > 0 && len(found) < most; next = next[1:] {
		if line := describe(next[0]); line != "" {
			found = append(found, line)
		}
		next = append(next, children(next[0])...)
	}
	if len(found) == 0 {
		return ""
	}
	return ": " + strings.Join(found, "; ")
}

// describe returns one process in words, "" for one that is gone.
func describe(pid int) string {
	proc := "/proc/" + strconv.Itoa(pid) + "/"
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return ""
	}
	// The command's name is in parentheses and may hold any byte.
	open, closed := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if open < 0 || closed < open || closed+2 >= len(stat) {
		return ""
	}
	line := fmt.Sprintf("process %d %q in state %c", pid, stat[open+1:closed], stat[closed+2])
	if wchan, err := os.ReadFile(proc + "wchan"); err == nil && len(wchan) > 1 {
		line += " in " + string(wchan)
	}
	if stack, err := os.ReadFile(proc + "stack"); err == nil {
		if top, _, _ := strings.Cut(string(stack), "\n"); top != "" {
			line += " (" + top + ")"
		}
	}
	return line
}

func children(pid int) (pids []int) {
	id := strconv.Itoa(pid)
	data, err := os.ReadFile("/proc/" + id + "/task/" + id + "/children")
	if err != nil {
		return nil
	}
	for _, word := range strings.Fields(string(data)) {
		if n, err := strconv.Atoi(word); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}
