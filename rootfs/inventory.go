package rootfs

import (
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Inventory is what is set up on the node that a step may leave behind, one line
// each: mounts, loop devices, device-mapper targets, md arrays, network links.
type Inventory map[string]bool

// TakeInventory looks at the node as this process sees it. Mounts below own, the
// directories of careen's, are left out: they come and go with containers.
// What cannot be read is taken for absent.
func TakeInventory(own ...string) Inventory {
	inv := Inventory{}
	mounts, err := mountinfo.GetMounts(nil)
	if err == nil {
		for _, m := range mounts {
			if !below(m.Mountpoint, own) {
				inv["mount "+m.Mountpoint+" ("+m.FSType+" from "+m.Source+")"] = true
			}
		}
	}
	inv.add("loop device", "/sys/block/loop*/loop/backing_file", func(path, content string) string {
		return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(path))) + " (" + content + ")"
	})
	inv.add("device-mapper target", "/sys/block/dm-*/dm/name", func(_, content string) string { return content })
	// Its state is none of its name: an array that was there becomes active by a write.
	inv.add("md array", "/sys/block/md*/md/array_state", func(path, _ string) string {
		return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(path)))
	})
	inv.add("network link", "/sys/class/net/*/ifindex", func(path, _ string) string {
		return filepath.Base(filepath.Dir(path))
	})
	return inv
}

func (inv Inventory) add(kind, pattern string, name func(path, content string) string) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return
	}
	for _, path := range paths {
		if content, err := os.ReadFile(path); err == nil {
			inv[kind+" "+name(path, strings.TrimSpace(string(content)))] = true
		}
	}
}

// Since returns what is there now and was not before, sorted.
func (inv Inventory) Since(before Inventory) []string {
	var news []string
	for item := range inv {
		if !before[item] {
			news = append(news, item)
		}
	}
	sort.Strings(news)
	return news
}

func below(path string, dirs []string) bool {
	for _, dir := range dirs {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}
