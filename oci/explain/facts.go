package explain

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/careen-project/careen/oci"
)

// States of a capability.
const (
	capReachable = "only for programs with file capabilities"
	capEffective = "in effect"
)

// changes returns how plan differs from base, sorted by what is changed.
func changes(base, plan *oci.Plan) []Change {
	from, to := facts(base), facts(plan)
	names := make(map[string]bool)
	for name := range from {
		names[name] = true
	}
	for name := range to {
		names[name] = true
	}
	// Without a filter before or after, single system calls are no news.
	filtered := from[factFilter] != "" && to[factFilter] != ""
	var list []Change
	for name := range names {
		if from[name] == to[name] || !filtered && strings.HasPrefix(name, factCall) {
			continue
		}
		list = append(list, Change{What: name, From: from[name], To: to[name]})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].What < list[j].What })
	return joinAlike(list)
}

// Names of facts that occur many times.
const (
	factFilter = "seccomp filter"
	factCall   = "system call "
)

// joined are the kinds of facts that become one change, with their plural.
var joined = []struct{ prefix, several string }{
	{"capability ", "capabilities"}, {"device /", "devices"}, {"hidden ", "hidden"}, {"read-only /", "read-only"},
	{factCall, "system calls"},
}

// shownDevices is the number of devices that are named.
const shownDevices = 8

// joinAlike makes one change of neighbours of one kind that change in the same way.
func joinAlike(list []Change) []Change {
	var out []Change
	index := make(map[string]int)
	count, first := make(map[string]int), make(map[string]string)
	for _, change := range list {
		key, name, several := "", "", ""
		for _, kind := range joined {
			if rest, ok := strings.CutPrefix(change.What, kind.prefix); ok {
				several = kind.several
				if strings.HasSuffix(kind.prefix, "/") {
					rest = "/" + rest
				}
				from, to := change.From, change.To
				if several == "devices" {
					from, to = fmt.Sprint(from != ""), fmt.Sprint(to != "")
				}
				key, name = several+"\x00"+from+"\x00"+to, rest
			}
		}
		if key == "" {
			out = append(out, change)
			continue
		}
		count[key]++
		at, ok := index[key]
		if ok && several == "devices" { // their numbers differ
			out[at].From, out[at].To = asFlag(change.From), asFlag(change.To)
		}
		switch {
		case !ok:
			index[key] = len(out)
			first[key] = name
			out = append(out, change)
		case several == "devices" && count[key] > shownDevices:
			kept, _, _ := strings.Cut(out[at].What, " and ")
			out[at].What = fmt.Sprintf("%s and %d more", kept, count[key]-shownDevices)
		case count[key] == 2:
			out[at].What = several + " " + first[key] + ", " + name
		default:
			out[at].What += ", " + name
		}
	}
	return out
}

// facts describes a plan: short texts by name.
func facts(plan *oci.Plan) map[string]string {
	f := make(map[string]string)
	spec := plan.Spec
	put := func(name string, v any) {
		if text := factText(v); text != "" {
			f[name] = text
		}
	}
	put("command", strings.Join(spec.Process.Args, " "))
	put("working directory", spec.Process.Cwd)
	put("user", fmt.Sprintf("%d:%d", spec.Process.User.UID, spec.Process.User.GID))
	put("supplementary groups", spec.Process.User.AdditionalGids)
	put("umask", spec.Process.User.Umask)
	put("terminal", spec.Process.Terminal)
	put("no new privileges", spec.Process.NoNewPrivileges)
	put("OOM score adjustment", spec.Process.OOMScoreAdj)
	put("AppArmor profile", spec.Process.ApparmorProfile)
	put("read-only root", spec.Root.Readonly)
	put("host name", spec.Hostname)
	put("stop signal", plan.StopSignal)
	put("stop timeout", plan.StopTimeout.String())
	put("time limit", plan.Timeout.String())
	for _, limit := range spec.Process.Rlimits {
		put("limit "+limit.Type, fmt.Sprintf("%d:%d", limit.Soft, limit.Hard))
	}
	for _, entry := range spec.Process.Env {
		name, value, _ := strings.Cut(entry, "=")
		f["variable "+name] = quote(oci.MaskVariable(name, value))
	}
	for name, value := range spec.Annotations {
		put("annotation "+name, quote(oci.MaskVariable(name, value)))
	}
	for name, value := range plan.Labels {
		put("label "+name, quote(oci.MaskVariable(name, value)))
	}
	for _, m := range spec.Mounts {
		f["mount "+m.Destination] = mountText(m, plan)
	}
	capabilityFacts(f, spec.Process.Capabilities)
	linuxFacts(put, spec.Linux)
	return f
}

// asFlag reduces a fact to its presence.
func asFlag(value string) string {
	if value == "" {
		return ""
	}
	return "yes"
}

// mountText describes a mount.
func mountText(m specs.Mount, plan *oci.Plan) string {
	what := m.Type
	if m.Type == "bind" {
		what = m.Source
		for _, file := range plan.Files {
			if file.Path == m.Source {
				what = "a file that careen generates"
			}
		}
		for _, volume := range plan.Volumes {
			switch {
			case volume.Path == m.Source && volume.Name != "":
				what = "the volume " + volume.Name
			case volume.Path == m.Source:
				what = "a new empty directory"
			}
		}
	}
	return fmt.Sprintf("%s (%s)", what, strings.Join(m.Options, ","))
}

func capabilityFacts(f map[string]string, caps *specs.LinuxCapabilities) {
	for _, name := range caps.Bounding {
		f["capability "+name] = capReachable
	}
	for _, name := range caps.Effective {
		f["capability "+name] = capEffective
	}
}

func linuxFacts(put func(name string, v any), linux *specs.Linux) {
	for _, ns := range linux.Namespaces {
		own := "private"
		if ns.Path != "" {
			own = ns.Path
		}
		put("namespace "+string(ns.Type), own)
	}
	for _, device := range linux.Devices {
		put("device "+device.Path, fmt.Sprintf("%s %d:%d", device.Type, device.Major, device.Minor))
	}
	for i, rule := range linux.Resources.Devices {
		put(fmt.Sprintf("device rule %d", i), ruleText(rule))
	}
	for name, value := range linux.Sysctl {
		put("sysctl "+name, value)
	}
	for _, file := range linux.MaskedPaths {
		put("hidden "+file, true)
	}
	for _, file := range linux.ReadonlyPaths {
		put("read-only "+file, true)
	}
	put("propagation of mounts", linux.RootfsPropagation)
	put("cgroup", linux.CgroupsPath)
	if linux.Personality != nil {
		put("personality", string(linux.Personality.Domain))
	}
	resources := *linux.Resources
	resources.Devices = nil
	flattenFacts(put, "resource", resources)
	if linux.Seccomp == nil {
		return
	}
	put(factFilter, string(linux.Seccomp.DefaultAction))
	for _, rule := range linux.Seccomp.Syscalls {
		for _, name := range rule.Names {
			if rule.Action == specs.ActAllow && len(rule.Args) == 0 {
				put(factCall+name, "allowed")
			}
		}
	}
}

func ruleText(rule specs.LinuxDeviceCgroup) string {
	number := func(n *int64) string {
		if n == nil {
			return "*"
		}
		return fmt.Sprint(*n)
	}
	kind, verb := rule.Type, "deny"
	if kind == "" {
		kind = "a"
	}
	if rule.Allow {
		verb = "allow"
	}
	return fmt.Sprintf("%s %s %s:%s %s", verb, kind, number(rule.Major), number(rule.Minor), rule.Access)
}

// flattenFacts names each limit by its path in the JSON.
func flattenFacts(put func(name string, v any), prefix string, v any) {
	content, err := json.Marshal(v)
	if err != nil {
		return
	}
	var tree map[string]any
	if json.Unmarshal(content, &tree) != nil {
		return
	}
	for name, value := range tree {
		if inner, ok := value.(map[string]any); ok {
			flattenFacts(put, prefix+" "+name, inner)
			continue
		}
		text, _ := json.Marshal(value)
		if bytes, ok := value.(float64); ok && strings.HasSuffix(prefix, " memory") && name != "swappiness" {
			put(prefix+" "+name, units.BytesSize(bytes))
			continue
		}
		put(prefix+" "+name, string(text))
	}
}

// factText writes a value, "" for values that need no line.
func factText(v any) string {
	switch v := v.(type) {
	case string:
		if v == "0s" {
			return ""
		}
		return v
	case bool:
		if v {
			return "yes"
		}
		return ""
	case *int:
		if v == nil {
			return ""
		}
		return fmt.Sprint(*v)
	case *uint32:
		if v == nil {
			return ""
		}
		return fmt.Sprintf("%04o", *v)
	case []uint32:
		if len(v) == 0 {
			return ""
		}
		return strings.Trim(fmt.Sprint(v), "[]")
	default:
		return fmt.Sprint(v)
	}
}

// quote quotes a value, of a long one the beginning.
func quote(s string) string {
	const limit = 240
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return fmt.Sprintf("%q", s)
}
