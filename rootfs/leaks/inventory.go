package leaks

import (
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// inventory is the set of things on the node that a step may leave behind, one line
// each.
type inventory map[string]bool

// takeInventory reads the node as this process sees it, without mounts below own.
func takeInventory(own []string) inventory {
	inv := inventory{}
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
	// The name leaves out the state: a write makes an array active that was there before.
	inv.add("md array", "/sys/block/md*/md/array_state", func(path, _ string) string {
		return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(path)))
	})
	inv.add("network link", "/sys/class/net/*/ifindex", func(path, _ string) string {
		return filepath.Base(filepath.Dir(path))
	})
	return inv
}

func (inv inventory) add(kind, pattern string, name func(path, content string) string) {
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

// since returns what is in inv and not in before, sorted.
func (inv inventory) since(before inventory) []string {
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
