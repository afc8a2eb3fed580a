package oci

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// bindOptions completes the options of a bind: rw and rprivate unless told
// otherwise, what the source's file system is mounted with unless the opposite is
// given, rbind unless bind is.
func bindOptions(options, inherited []string) []string {
	return completeOptions(options, inherited, "rbind")
}

// volumeDefaults are what a volume's mount gets in place of a file system's flags.
var volumeDefaults = []string{"nosuid", "nodev"}

// tmpfsOptions completes the options of a tmpfs: rw, rprivate, nosuid, nodev and
// tmpcopyup unless told otherwise. It refuses options that podman refuses.
func tmpfsOptions(options []string) ([]string, error) {
	seen := make(map[string]string)
	kept := make([]string, 0, len(options)+5)
	copyup := "tmpcopyup"
	for _, option := range options {
		set := tmpfsOptionSet(option)
		if set == "" {
			return nil, fmt.Errorf("the tmpfs option %s is unknown", quote(option))
		}
		if other, ok := seen[set]; ok && set != "consistency" {
			return nil, fmt.Errorf("%s and %s cannot be given together", other, option)
		}
		seen[set] = option
		if set == "copyup" {
			copyup = ""
		}
		if option != "notmpcopyup" && set != "consistency" {
			kept = append(kept, option)
		}
	}
	return completeOptions(kept, volumeDefaults, copyup), nil
}

// memoryOptions completes the options of a tmpfs or ramfs. Over /dev they stay as
// they are, as in podman.
func (m Mount) memoryOptions() ([]string, error) {
	if path.Clean(m.Destination) == "/dev" {
		return append([]string{}, m.Options...), nil
	}
	return tmpfsOptions(m.Options)
}

// tmpfsOptionSet returns what option excludes, "" for an unknown one.
func tmpfsOptionSet(option string) string {
	name, _, hasValue := strings.Cut(option, "=")
	switch name {
	case "size", "mode", "consistency":
		return name
	}
	if hasValue {
		return ""
	}
	switch name {
	case "tmpcopyup", "notmpcopyup":
		return "copyup"
	case "z", "Z", "O", "bind", "rbind", "copy", "nocopy":
		return ""
	}
	return volumeOptionSet(option)
}

// completeOptions adds the defaults of podman, in its order.
func completeOptions(options, inherited []string, last string) []string {
	all := append([]string(nil), options...)
	has := func(set string) bool {
		for _, option := range options {
			if volumeOptionSet(option) == set {
				return true
			}
		}
		return false
	}
	if !has("rw") {
		all = append(all, "rw")
	}
	if !has("private") {
		all = append(all, "rprivate")
	}
	for _, flag := range []string{"noexec", "nosuid", "nodev"} {
		if !has(flag) && contains(inherited, flag) {
			all = append(all, flag)
		}
	}
	if last != "" && !(last == "rbind" && has("bind")) {
		all = append(all, last)
	}
	return all
}

// splitVolumeOptions takes out of a bind's or volume's options what the runtime
// does not mount with: U (chown), z and Z (labels), copy and nocopy, O and its
// directories, idmap.
func splitVolumeOptions(options []string) (mount []string, special map[string]string) {
	special = make(map[string]string)
	for _, option := range options {
		switch set := volumeOptionSet(option); {
		case option == "U" || option == "z" || option == "Z" || option == "O" || option == "copy" || option == "nocopy":
			special[option] = option
		case set == "idmap" || set == "upperdir" || set == "workdir":
			special[set] = option
		default:
			mount = append(mount, option)
		}
	}
	return mount, special
}

// parseIDMap reads idmap=uids=A-B-N[#A-B-N...];gids=..., where A is an id on the
// file system, B the id it is seen as, N how many. No mapping at all is the
// container's user namespace, which here is the identity: nil.
func parseIDMap(option string) (uids, gids []specs.LinuxIDMapping, err error) {
	_, text, ok := strings.Cut(option, "=")
	if !ok || text == "" {
		return nil, nil, nil
	}
	for _, part := range strings.Split(text, ";") {
		kind, ranges, _ := strings.Cut(part, "=")
		mappings, err := parseIDRanges(ranges)
		if err != nil {
			return nil, nil, err
		}
		switch kind {
		case "uids":
			uids = mappings
		case "gids":
			gids = mappings
		default:
			return nil, nil, fmt.Errorf("idmap has no part %s", quote(kind))
		}
	}
	if uids == nil || gids == nil {
		return nil, nil, fmt.Errorf("idmap needs both uids= and gids=")
	}
	return uids, gids, nil
}

func parseIDRanges(text string) ([]specs.LinuxIDMapping, error) {
	var mappings []specs.LinuxIDMapping
	for _, triplet := range strings.Split(text, "#") {
		// @ means relative to the user namespace, which is the node's here.
		fields := strings.Split(strings.TrimPrefix(triplet, "@"), "-")
		if len(fields) != 3 {
			return nil, fmt.Errorf("idmap range %s is not FROM-TO-COUNT", quote(triplet))
		}
		var numbers [3]uint32
		for i, field := range fields {
			n, err := strconv.ParseUint(field, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("idmap range %s is not three numbers", quote(triplet))
			}
			numbers[i] = uint32(n)
		}
		mappings = append(mappings, specs.LinuxIDMapping{ContainerID: numbers[0], HostID: numbers[1], Size: numbers[2]})
	}
	return mappings, nil
}
