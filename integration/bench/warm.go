package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// warm compares runs of an image that is there, when its tag is asked for at the
// registry each time.
func (b *bench) warm() error {
	if err := b.need(small); err != nil {
		return err
	}
	var careen, podman, local, podmanLocal, floor, ready []float64
	err := b.serving(func() error {
		return b.onNode(false, func(n *node) error {
			if _, err := n.start(); err != nil {
				return err
			}
			// One of each before it counts: the image, the page cache.
			if _, err := b.careenRun(n, small.Name, "always"); err != nil {
				return err
			}
			if err := b.podmanBoth(n, nil); err != nil {
				return err
			}
			bundle, err := b.bundle(n)
			if err != nil {
				return err
			}
			for range 2 * b.rounds {
				u, err := b.careenRun(n, small.Name, "always")
				if err != nil {
					return err
				}
				careen = append(careen, u.Seconds)
				if err := b.podmanBoth(n, &podman); err != nil {
					return err
				}
				if u, err = b.careenRun(n, small.Name, "never"); err != nil {
					return err
				}
				local = append(local, u.Seconds)
				if u, err = b.podmanRun(n, small.Name); err != nil {
					return err
				}
				podmanLocal = append(podmanLocal, u.Seconds)
				if u, err = b.runcRun(n, bundle); err != nil {
					return err
				}
				floor = append(floor, u.Seconds)
			}
			return nil
		})
	})
	for range 2*b.rounds + 1 {
		if err == nil {
			err = b.onNode(false, func(n *node) error {
				took, err := n.start()
				ready = append(ready, took.Seconds()*1000)
				return err
			})
		}
	}
	if err != nil {
		return err
	}
	b.table.add(line{What: "warm run, tag asked for at the registry", Unit: "s", Careen: careen, Other: podman, With: "podman pull && run", Limit: 0.15})
	b.table.add(line{What: "warm run, tag asked for at the registry", Unit: "s", Careen: careen, Other: floor, With: "runc run alone"})
	b.table.add(line{What: "warm run, nothing asked for", Unit: "s", Careen: local, Other: podmanLocal, With: "podman run"})
	b.table.add(line{What: "agent ready after exec", Unit: "ms", Careen: ready, Limit: 50})
	return nil
}

// podmanBoth is what IPA does with podman: pull, then run.
func (b *bench) podmanBoth(n *node, took *[]float64) error {
	first, err := b.podmanPull(n, small.Name)
	if err != nil {
		return err
	}
	second, err := b.podmanRun(n, small.Name)
	if took != nil {
		*took = append(*took, first.Seconds+second.Seconds)
	}
	return err
}

// held is what an agent holds of the node while nothing runs.
type held struct {
	resident, anonymous                       float64 // MiB
	fds, goroutines, threads, mounts, cgroups int64
}

// idle measures what the agent holds before and after many runs.
func (b *bench) idle() error {
	if err := b.need(small); err != nil {
		return err
	}
	var before, after held
	err := b.serving(func() error {
		return b.onNode(false, func(n *node) error {
			if _, err := n.start(); err != nil {
				return err
			}
			// The first runs bring what stays by design: connections, a warm heap.
			for range 5 {
				if _, err := b.careenRun(n, small.Name, "always"); err != nil {
					return err
				}
			}
			var err error
			if before, err = n.settled(); err != nil {
				return err
			}
			for range b.runs {
				if _, err := b.careenRun(n, small.Name, "never"); err != nil {
					return err
				}
			}
			after, err = n.settled()
			return err
		})
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf(" after %d runs", b.runs)
	mb := func(what string, now, then float64, limit float64) {
		b.table.add(line{What: what, Unit: "MiB", Careen: []float64{now}, Limit: limit})
		b.table.add(line{What: what + name, Unit: "MiB", Careen: []float64{then}, Limit: limit})
	}
	mb("agent idle, resident", before.resident, after.resident, 32)
	mb("agent idle, anonymous", before.anonymous, after.anonymous, 0)
	// A thread more or less is the Go runtime's business; what leaks, leaks with
	// every run.
	slack := int64(max(1, b.runs/50))
	for _, c := range []struct {
		what      string
		now, then int64
	}{
		{"file descriptors", before.fds, after.fds}, {"goroutines", before.goroutines, after.goroutines}, {"threads", before.threads, after.threads},
		{"mounts", before.mounts, after.mounts}, {"control groups", before.cgroups, after.cgroups},
	} {
		b.table.add(line{What: c.what + name, Careen: []float64{float64(c.then)}, With: fmt.Sprintf("before %d", c.now), Limit: float64(c.now + slack)})
	}
	return nil
}

// settled reads what the agent holds, three seconds after the last run, as the
// least of several looks: what a request or a collection just uses is not held.
func (n *node) settled() (held, error) {
	least := held{}
	for i := range 6 {
		time.Sleep(500 * time.Millisecond)
		h, err := n.held()
		if err != nil {
			return h, err
		}
		if i == 0 {
			least = h
		}
		least = held{min(least.resident, h.resident), min(least.anonymous, h.anonymous), min(least.fds, h.fds), min(least.goroutines, h.goroutines),
			min(least.threads, h.threads), min(least.mounts, h.mounts), min(least.cgroups, h.cgroups)}
	}
	return least, nil
}

func (n *node) held() (held, error) {
	var h held
	proc := fmt.Sprintf("/proc/%d/", n.agent.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return h, err
	}
	field := func(name string) float64 {
		m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+)`).FindSubmatch(status)
		if m == nil {
			return 0
		}
		v, _ := strconv.ParseFloat(string(m[1]), 64)
		return v
	}
	h.resident, h.anonymous, h.threads = field("VmRSS")/1024, field("RssAnon")/1024, int64(field("Threads"))
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		return h, err
	}
	h.fds = int64(len(fds))
	mounts, err := os.ReadFile(proc + "mountinfo")
	if err != nil {
		return h, err
	}
	for _, line := range bytes.Split(mounts, []byte("\n")) {
		// The node's own may come and go meanwhile.
		if bytes.Contains(line, []byte(n.dir)) {
			h.mounts++
		}
	}
	var metrics bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.client.Metrics(ctx, &metrics); err != nil {
		return h, err
	}
	if m := regexp.MustCompile(`(?m)^go_goroutines (\d+)`).FindStringSubmatch(metrics.String()); m != nil {
		h.goroutines, _ = strconv.ParseInt(m[1], 10, 64)
	}
	h.cgroups = countGroups("/sys/fs/cgroup")
	return h, nil
}

// countGroups counts the control groups whose path has careen's name.
func countGroups(root string) (n int64) {
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, "careen") {
			n++
		}
		return nil
	})
	return n
}
