package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Check fails the test if an agent that has no run to work on holds more than it
// did when it was ready: mounts in its namespace or the node's, cgroups,
// processes, files of containers. It gives clean-ups that go on in the background
// some seconds.
func (a *Agent) Check() {
	a.t.Helper()
	a.eventually("while the agent runs", func() []string {
		var left []string
		for mount := range a.mounts() {
			if !a.before[mount] {
				left = append(left, "mount in the agent's namespace: "+mount)
			}
		}
		return append(left, a.onNode()...)
	})
}

// checkStopped is the same after the agent has ended, when the store's own records
// can be read too.
func (a *Agent) checkStopped() {
	a.t.Helper()
	a.eventually("after the agent has ended", func() []string { return append(a.onNode(), a.inStore()...) })
}

// leakPatience is what clean-ups in the background may take: the longest is that
// of a shim whose agent was killed before it could ask it for anything.
const leakPatience = 40 * time.Second

// eventually reports what find still finds after a while.
func (a *Agent) eventually(when string, find func() []string) {
	a.t.Helper()
	deadline := time.Now().Add(leakPatience)
	for {
		left := find()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			a.t.Errorf("left behind %s:\n  %s", when, strings.Join(left, "\n  "))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// onNode lists what there is of this agent's containers outside of its store.
func (a *Agent) onNode() []string {
	ids := a.containers()
	left := mountsBelow("/proc/self/mountinfo", a.RunDir, a.Root)
	left = append(left, cgroups(ids)...)
	left = append(left, a.processes(ids)...)
	return append(left, a.files()...)
}

// containerID is what a container's id looks like; digests look the same and do no
// harm here.
var containerID = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// containers returns every id that the agent has on record, or had when this was
// called before.
func (a *Agent) containers() map[string]bool {
	a.idsMu.Lock()
	defer a.idsMu.Unlock()
	if a.ids == nil {
		a.ids = map[string]bool{}
	}
	journals, _ := filepath.Glob(filepath.Join(a.State(), "journal", "*"))
	for _, path := range journals {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // replaced just now
		}
		for _, id := range containerID.FindAllString(string(data), -1) {
			a.ids[id] = true
		}
	}
	return maps.Clone(a.ids)
}

// Note takes note of the containers on record: where runs are deleted, the journal
// forgets them.
func (a *Agent) Note() { a.containers() }

// State is the agent's state directory.
func (a *Agent) State() string {
	for i, flag := range a.flags {
		if flag == "--state" {
			return a.flags[i+1]
		}
	}
	return filepath.Join(a.RunDir, "state")
}

// mounts are the mounts of this agent that its own namespace has.
func (a *Agent) mounts() map[string]bool {
	found := map[string]bool{}
	for _, m := range mountsBelow(fmt.Sprintf("/proc/%d/mountinfo", a.Pid()), a.RunDir, a.Root) {
		found[m] = true
	}
	return found
}

func mountsBelow(mountinfoFile string, dirs ...string) []string {
	data, err := os.ReadFile(mountinfoFile)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		for _, dir := range dirs {
			if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
				found = append(found, "mount "+fields[4])
			}
		}
	}
	return found
}

// detachBelow detaches what is mounted below dir in the test's namespace.
func detachBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	sort.Slice(mounts, func(i, j int) bool { return len(mounts[i].Mountpoint) > len(mounts[j].Mountpoint) })
	var errs []error
	for _, m := range mounts {
		errs = append(errs, unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	return errors.Join(errs...)
}

// cgroups lists the control groups of these containers, in every hierarchy.
func cgroups(ids map[string]bool) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil // groups of others come and go
		}
		if id := containerID.FindString(filepath.Base(path)); ids[id] {
			found = append(found, "cgroup "+path)
		}
		return nil
	})
	return found
}

// processes lists shims and processes of these containers, and whatever else names
// the agent's directory in its command line.
func (a *Agent) processes(ids map[string]bool) []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		if pid == fmt.Sprint(a.Pid()) || pid == fmt.Sprint(os.Getpid()) {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // ended
		}
		group, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		words := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
		if mine(group, ids) || slices.ContainsFunc(words, func(w string) bool { return ids[w] }) ||
			strings.Contains(string(cmdline), a.RunDir+"/") && strings.Contains(string(cmdline), "shim") {
			found = append(found, "process "+pid+": "+strings.Join(words, " "))
		}
	}
	return found
}

func mine(group []byte, ids map[string]bool) bool {
	for _, id := range containerID.FindAllString(string(group), -1) {
		if ids[id] {
			return true
		}
	}
	return false
}

// kept are the files that may stay with a run that has ended.
var kept = regexp.MustCompile(`^runs/[^/]+(/log(/.*)?|/exit\.json|/spec\.json|/before\.json|/events\.jsonl)?$`)

// files lists files of containers and requests that should have gone with them.
func (a *Agent) files() []string {
	var found []string
	for _, dir := range []string{
		"runs", "requests", "events", "containerd/s", "containerd/io.containerd.runtime.v2.task/careen",
	} {
		base := filepath.Join(a.RunDir, dir)
		_ = filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(a.RunDir, path)
			if err == nil && path != base && !kept.MatchString(rel) {
				found = append(found, "file "+path)
			}
			return nil
		})
	}
	return found
}

// inStore lists containers, leases and writable layers that the embedded
// containerd still has on record, and directories of its snapshotter that are on
// no record.
func (a *Agent) inStore() []string {
	base := filepath.Join(a.Root, "containerd")
	db, err := bolt.Open(filepath.Join(base, "io.containerd.metadata.v1.bolt/meta.db"), 0o600, &bolt.Options{ReadOnly: true, Timeout: patience})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an external containerd keeps it
	}
	if err != nil {
		return []string{err.Error()}
	}
	defer db.Close()
	var found []string
	layers := map[string]bool{}
	err = db.View(func(tx *bolt.Tx) error {
		for _, kind := range []string{"containers", "leases"} {
			for name := range bucketKeys(tx, "v1", "careen", kind) {
				found = append(found, kind+" record "+name)
			}
		}
		for snapshotter := range bucketKeys(tx, "v1", "careen", "snapshots") {
			for key := range bucketKeys(tx, "v1", "careen", "snapshots", snapshotter) {
				if !strings.HasPrefix(key, "sha256:") {
					found = append(found, "snapshot "+key)
				}
				layers[key] = true
			}
		}
		return nil
	})
	if err != nil {
		found = append(found, err.Error())
	}
	dirs, _ := filepath.Glob(filepath.Join(base, "io.containerd.snapshotter.v1.*", "snapshots", "*"))
	if len(dirs) > len(layers) {
		found = append(found, fmt.Sprintf("%d directories of snapshots for %d records %v", len(dirs), len(layers),
			slices.Sorted(maps.Keys(layers))))
	}
	return found
}

// bucketKeys returns the keys of a bucket, none where it does not exist.
func bucketKeys(tx *bolt.Tx, path ...string) map[string]bool {
	keys := map[string]bool{}
	bucket := tx.Bucket([]byte(path[0]))
	for _, name := range path[1:] {
		if bucket == nil {
			return keys
		}
		bucket = bucket.Bucket([]byte(name))
	}
	if bucket != nil {
		_ = bucket.ForEach(func(k, _ []byte) error {
			keys[string(k)] = true
			return nil
		})
	}
	return keys
}
