package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/client"
)

// usage is what one measured command took.
type usage struct {
	Seconds   float64 // by the clock
	Processor float64 // seconds of processors, user and system
	PeakRSS   int64   // of the largest process, bytes
}

// node is a directory on a tmpfs of its own, as a ramdisk's store is, and maybe an
// agent in it.
type node struct {
	b      *bench
	dir    string
	group  *group // nil where memory is not measured
	agent  *exec.Cmd
	log    bytes.Buffer
	client *client.Client
}

// onNode calls fn with an empty node and removes it afterwards.
func (b *bench) onNode(measured bool, fn func(n *node) error) (err error) {
	// A short name: sockets have paths of at most 107 bytes.
	dir, err := os.MkdirTemp("/run", "cb-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=80%"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	n := &node{b: b, dir: dir}
	if measured {
		if n.group, err = newGroup(); err != nil {
			return err
		}
		defer n.group.close()
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	return fn(n)
}

// start starts an agent and returns how long after exec it was ready.
func (n *node) start() (time.Duration, error) {
	socket := filepath.Join(n.dir, "s")
	for _, d := range []string{"root", "run"} {
		if err := os.MkdirAll(filepath.Join(n.dir, d), 0o700); err != nil {
			return 0, err
		}
	}
	cmd := exec.Command(n.b.binary, "agent", "--root", n.dir+"/root", "--run-dir", n.dir+"/run", "--socket", socket)
	cmd.Stdout, cmd.Stderr = &n.log, &n.log
	if n.group != nil {
		cmd = n.group.wrap(cmd)
	}
	cmd.Env = []string{"PATH="} // careen needs no other program
	cmd.WaitDelay = time.Millisecond
	n.client = client.New(socket)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	n.agent = cmd
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		if h, err := n.client.Health(ctx); err == nil && h.Ready {
			return time.Since(began), nil
		}
		select {
		case <-time.After(500 * time.Microsecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("the agent is not ready:\n%s", n.log.String())
		}
	}
}

func (n *node) stop() error {
	if n.agent == nil {
		return nil
	}
	n.client.Close()
	_ = n.agent.Process.Signal(syscall.SIGTERM)
	err := n.agent.Wait()
	n.agent = nil
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("the agent ended with %w:\n%s", err, n.log.String())
	}
	return nil
}

// careen runs the command line against the agent and counts what both took.
func (n *node) careen(args ...string) (usage, error) {
	cmd := exec.Command(n.b.binary, args...)
	cmd.Env = []string{"PATH=", "CAREEN_SOCKET=" + filepath.Join(n.dir, "s")}
	before := processor(n.agent.Process.Pid)
	u, err := timed(cmd)
	u.Processor += processor(n.agent.Process.Pid) - before
	return u, err
}

// timed runs a command to its end.
func timed(cmd *exec.Cmd) (usage, error) {
	began := time.Now()
	_, err := output(cmd)
	u := usage{Seconds: time.Since(began).Seconds()}
	if state := cmd.ProcessState; state != nil {
		u.Processor = (state.UserTime() + state.SystemTime()).Seconds()
		if r, ok := state.SysUsage().(*syscall.Rusage); ok {
			u.PeakRSS = r.Maxrss << 10
		}
	}
	return u, err
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// ticks is the unit of times in /proc, the same on all of Linux' platforms that
// careen runs on.
const ticks = 100

// processor returns the seconds of processors that a process and its children that
// were waited for have used.
func processor(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0
	}
	sum := 0.0
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		v, _ := strconv.ParseFloat(f, 64)
		sum += v / ticks
	}
	return sum
}
