package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// group is a control group that counts memory: of processes, and of what they
// put into a tmpfs, which no process' resident size shows.
type group struct {
	dir string
	v2  bool
}

var groups int

// newGroup makes an empty group, in version 1 or 2, whichever has the memory
// controller here.
func newGroup() (*group, error) {
	groups++
	g := &group{dir: "/sys/fs/cgroup/memory"}
	if _, err := os.Stat(g.dir); err != nil {
		g.v2, g.dir = true, "/sys/fs/cgroup"
		_ = os.WriteFile(g.dir+"/cgroup.subtree_control", []byte("+memory"), 0o644) // it may be on already
	}
	g.dir = filepath.Join(g.dir, fmt.Sprintf("bench-%d-%d", os.Getpid(), groups))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	if _, err := g.peak(); err != nil {
		_ = os.Remove(g.dir)
		return nil, fmt.Errorf("no control group here counts the peak of memory: %w", err)
	}
	return g, nil
}

// wrap makes cmd start in the group, with all its children.
func (g *group) wrap(cmd *exec.Cmd) *exec.Cmd {
	script := `echo $$ >"$0"/cgroup.procs && exec "$@"`
	wrapped := exec.Command("/bin/sh", append([]string{"-c", script, g.dir, cmd.Path}, cmd.Args[1:]...)...)
	wrapped.Env, wrapped.Stdout, wrapped.Stderr, wrapped.Stdin = cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Stdin
	return wrapped
}

func (g *group) peak() (int64, error) {
	if g.v2 {
		return readNumber(filepath.Join(g.dir, "memory.peak"))
	}
	return readNumber(filepath.Join(g.dir, "memory.max_usage_in_bytes"))
}

// now is what the group holds: anonymous memory, tmpfs and the kernel's own, but
// no cache of files on disk, which the kernel would give back.
func (g *group) now() (int64, error) {
	name, fields := "memory.usage_in_bytes", [2]string{"total_cache", "total_shmem"}
	if g.v2 {
		name, fields = "memory.current", [2]string{"file", "shmem"}
	}
	usage, err := readNumber(filepath.Join(g.dir, name))
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile(filepath.Join(g.dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	value := map[string]int64{}
	for _, line := range strings.Split(string(stat), "\n") {
		if name, text, ok := strings.Cut(line, " "); ok {
			value[name], _ = strconv.ParseInt(text, 10, 64)
		}
	}
	return usage - value[fields[0]] + value[fields[1]], nil
}

// close removes the group. Its processes have to have ended.
func (g *group) close() { _ = os.Remove(g.dir) }

func readNumber(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}
