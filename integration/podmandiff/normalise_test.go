package podmandiff

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strings"

	"github.com/careen-project/careen/oci"
)

// object is a JSON object.
type object = map[string]any

func get(o object, path ...string) any {
	var v any = o
	for _, name := range path {
		next, ok := v.(object)
		if !ok {
			return nil
		}
		v = next[name]
	}
	return v
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func toObject(v any) object {
	content, _ := json.Marshal(v)
	var o object
	_ = json.Unmarshal(content, &o)
	return o
}

// side is one engine's spec and what is needed to normalise it.
type side struct {
	spec object
	id   string
	// engine returns what a mount's source is if it is the engine's own: "file",
	// "volume NAME", "overlay", else "".
	engine func(source string) string
}

// podmanSide normalises what only podman has.
func podmanSide(p *podman, got capture, run *oci.Run) side {
	s := side{spec: got.spec}
	cgroup, _ := get(s.spec, "linux", "cgroupsPath").(string)
	s.id = strings.TrimPrefix(filepath.Base(cgroup), "libpod-")
	if s.id == "" || s.id == "." {
		s.id = containerOf(s.spec)
	}
	volume := regexp.MustCompile(regexp.QuoteMeta(filepath.Join(p.dir, "root/volumes")) + `/([^/]+)/_data`)
	s.engine = func(source string) string {
		switch match := volume.FindStringSubmatch(source); {
		case match != nil && len(match[1]) == 64:
			return "volume <anonymous>"
		case match != nil:
			return "volume " + match[1]
		case strings.HasPrefix(source, p.dir+"/r"):
			return "file"
		}
		return ""
	}
	s.dropPodman(run)
	return s
}

// engineVariables are in podman's environment on this test's or its own account,
// and so in the container with --env-host.
var engineVariables = map[string]bool{"CONTAINERS_CONF": true, "TMPDIR": true, "PWD": true, "OLDPWD": true, "_": true, "SHLVL": true}

// idPattern finds the container's id in the paths of the engine's files.
var idPattern = regexp.MustCompile(`vfs-containers/([0-9a-f]{64})`)

func containerOf(spec object) string {
	match := idPattern.FindStringSubmatch(text1(spec["mounts"]))
	if match == nil {
		return ""
	}
	return match[1]
}

func text1(v any) string {
	content, _ := json.Marshal(v)
	return string(content)
}

// dropPodman takes out of podman's spec what careen leaves out on purpose; see
// gendoc.Differences.
func (s side) dropPodman(run *oci.Run) {
	process := s.spec["process"].(object)
	var env []any
	for _, entry := range list(process["env"]) {
		text := entry.(string)
		if text == "container=podman" {
			text = "container=careen"
		}
		name, _, _ := strings.Cut(text, "=")
		if text == "TERM=xterm" && !run.Options.TTY || engineVariables[name] {
			continue
		}
		env = append(env, text)
	}
	process["env"] = env
	for i, word := range list(process["args"]) {
		if i == 0 && word == "/run/podman-init" {
			list(process["args"])[i] = "/run/careen-init"
		}
	}
	asked := make(map[string]bool)
	for _, limit := range run.Options.Resources.Rlimits {
		asked[limit.Type] = true
	}
	var limits []any
	for _, limit := range list(process["rlimits"]) {
		if asked[limit.(object)["type"].(string)] {
			limits = append(limits, limit)
		}
	}
	process["rlimits"] = limits
	annotations, _ := s.spec["annotations"].(object)
	for name := range annotations {
		for _, prefix := range []string{"io.podman.", "io.container.manager", "io.kubernetes.cri-o.", "org.opencontainers.image.stopSignal"} {
			if strings.HasPrefix(name, prefix) {
				delete(annotations, name)
			}
		}
	}
	linux := s.spec["linux"].(object)
	var masked []any
	for _, path := range list(linux["maskedPaths"]) {
		if path != "" { // of mask= without a path, which hides nothing
			masked = append(masked, path)
		}
	}
	linux["maskedPaths"] = masked
	if path, ok := linux["cgroupsPath"].(string); ok {
		linux["cgroupsPath"] = strings.Replace(strings.Replace(path, "/libpod_parent", "/careen", 1), "libpod-", "careen-", 1)
	}
	if pids, ok := get(linux, "resources", "pids").(object); ok && pids["limit"] == float64(0) {
		pids["limit"] = float64(-1)
	}
}

// normal returns the spec in a form in which both sides are equal.
func (s side) normal(maskExtra bool) object {
	process := s.spec["process"].(object)
	user, _ := process["user"].(object)
	sortNumbers(user, "additionalGids")
	for _, name := range []string{"bounding", "effective", "permitted", "inheritable", "ambient"} {
		sortStrings(process["capabilities"], name)
	}
	sortStrings(process, "env")
	sortBy(process, "rlimits", "type")
	linux := s.spec["linux"].(object)
	sortBy(linux, "namespaces", "type")
	sortBy(linux, "devices", "path")
	for _, device := range list(linux["devices"]) {
		// podman keeps the type of the file in the mode, which runtimes ignore.
		if mode, ok := device.(object)["fileMode"].(float64); ok {
			device.(object)["fileMode"] = float64(int(mode) & 0o777)
		}
	}
	sortStrings(linux, "maskedPaths")
	sortStrings(linux, "readonlyPaths")
	if maskExtra {
		dropNewMasks(linux)
	}
	normalSeccomp(linux)
	resources, _ := linux["resources"].(object)
	if blockIO, ok := resources["blockIO"].(object); ok {
		for name := range blockIO {
			sortBy(blockIO, name, "minor")
		}
	}
	out := object{
		"process": process, "hostname": s.spec["hostname"], "annotations": s.spec["annotations"], "linux": linux,
		"mounts": s.mounts(), "readonly": get(s.spec, "root", "readonly") == true,
	}
	return s.hideID(out)
}

// hideID replaces the container's id by a word.
func (s side) hideID(o object) object {
	content, _ := json.Marshal(o)
	text := string(content)
	if len(s.id) == 64 {
		text = strings.NewReplacer(s.id, "<id>", s.id[:32], "<id>", s.id[:12], "<id>").Replace(text)
	}
	var out object
	_ = json.Unmarshal([]byte(text), &out)
	return out
}

func dropNewMasks(linux object) {
	var kept []any
	for _, path := range list(linux["maskedPaths"]) {
		text := path.(string)
		if text != "/proc/interrupts" && text != "/sys/devices/virtual/powercap" && !strings.HasSuffix(text, "/thermal_throttle") {
			kept = append(kept, path)
		}
	}
	linux["maskedPaths"] = kept
}

// normalSeccomp sorts the names of each rule and the rules.
func normalSeccomp(linux object) {
	filter, ok := linux["seccomp"].(object)
	if !ok {
		return
	}
	rules := list(filter["syscalls"])
	for _, rule := range rules {
		sortStrings(rule, "names")
	}
	sort.Slice(rules, func(i, j int) bool {
		a, _ := json.Marshal(rules[i])
		b, _ := json.Marshal(rules[j])
		return string(a) < string(b)
	})
}

// mounts are sorted by destination; an engine's own sources become words.
func (s side) mounts() []any {
	var out []any
	for _, m := range list(s.spec["mounts"]) {
		mount := m.(object)
		destination, _ := mount["destination"].(string)
		source, _ := mount["source"].(string)
		if destination == "/run/.containerenv" || destination == "/run/secrets" {
			continue
		}
		if destination == "/run/podman-init" {
			destination = "/run/careen-init"
		}
		entry := object{"destination": destination, "type": mount["type"], "source": source}
		options := []string{}
		for _, option := range list(mount["options"]) {
			text := option.(string)
			if text == "copy" || text == "nocopy" {
				continue // for the engine; podman leaves it in
			}
			for _, name := range []string{"upperdir=", "workdir=", "lowerdir="} {
				if rest, ok := strings.CutPrefix(text, name); ok && s.engine(rest) != "" {
					text = name + "<engine>"
				}
			}
			options = append(options, text)
		}
		if what := s.engine(source); what != "" {
			entry["source"] = what
		}
		if mount["type"] == "overlay" {
			// The source of an overlay is any word.
			entry["source"] = "overlay"
		}
		if destination == "/dev/shm" && (source == "shm" || entry["source"] == "file") {
			entry = object{"destination": destination, "type": "shm"}
			options = nil
		}
		sort.Strings(options)
		entry["options"] = options
		out = append(out, entry)
	}
	// podman's order among mounts of one depth is random, so the order is not
	// compared, but all that is mounted at one place is.
	sort.SliceStable(out, func(i, j int) bool {
		a, _ := json.Marshal(out[i])
		b, _ := json.Marshal(out[j])
		return string(a) < string(b)
	})
	return out
}

func sortStrings(holder any, name string) {
	o, ok := holder.(object)
	if !ok {
		return
	}
	l := list(o[name])
	sort.Slice(l, func(i, j int) bool { return fmt.Sprint(l[i]) < fmt.Sprint(l[j]) })
	// podman writes a capability twice that is added twice.
	var kept []any
	for i := range l {
		if i == 0 || l[i] != l[i-1] {
			kept = append(kept, l[i])
		}
	}
	o[name] = kept
	if len(l) == 0 {
		delete(o, name)
	}
}

func sortNumbers(o object, name string) {
	l := list(o[name])
	sort.Slice(l, func(i, j int) bool { return l[i].(float64) < l[j].(float64) })
}

func sortBy(o object, name, key string) {
	l := list(o[name])
	sort.SliceStable(l, func(i, j int) bool {
		return fmt.Sprint(l[i].(object)[key]) < fmt.Sprint(l[j].(object)[key])
	})
	if len(l) == 0 {
		delete(o, name)
	}
}

// diff lists the members that differ.
func diff(where string, podman, careen any) []string {
	a, ok1 := podman.(object)
	b, ok2 := careen.(object)
	if ok1 && ok2 {
		var out []string
		for name := range a {
			out = append(out, diff(where+"/"+name, a[name], b[name])...)
		}
		for name := range b {
			if _, ok := a[name]; !ok {
				out = append(out, diff(where+"/"+name, nil, b[name])...)
			}
		}
		sort.Strings(out)
		return out
	}
	la, ok1 := podman.([]any)
	lb, ok2 := careen.([]any)
	if ok1 && ok2 && len(la)+len(lb) > 1 {
		return diffLists(where, la, lb)
	}
	if reflect.DeepEqual(podman, careen) || empty(podman) && empty(careen) {
		return nil
	}
	return []string{fmt.Sprintf("%s: podman %s, careen %s", where, text(podman), text(careen))}
}

// diffLists shows only the elements that one side lacks.
func diffLists(where string, a, b []any) []string {
	if reflect.DeepEqual(a, b) {
		return nil
	}
	count := make(map[string]int)
	for _, v := range a {
		count[text(v)]++
	}
	for _, v := range b {
		count[text(v)]--
	}
	var out []string
	for v, n := range count {
		switch {
		case n > 0:
			out = append(out, fmt.Sprintf("%s: only podman has %s", where, v))
		case n < 0:
			out = append(out, fmt.Sprintf("%s: only careen has %s", where, v))
		}
	}
	if out == nil {
		out = []string{fmt.Sprintf("%s: order: podman %s, careen %s", where, text(a), text(b))}
	}
	sort.Strings(out)
	return out
}

func text(v any) string {
	content, _ := json.Marshal(v)
	if len(content) > 600 {
		content = append(content[:600], "..."...)
	}
	return string(content)
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case object:
		return len(v) == 0
	}
	return false
}
