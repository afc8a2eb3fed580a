package oci

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Explanation says what a set of options does, for an operator who reviews a
// runbook before it runs.
type Explanation struct {
	// Options says of each option that was given what it is for, in the order of
	// docs/options.md; those without effect say why.
	Options []string
	// Changes are the differences from the spec of the same image without options.
	Changes []Change
	// Warnings are what weakens isolation and what is dropped, one line each.
	Warnings []string
}

// Change is one difference between two plans.
type Change struct {
	// What is changed, such as "memory limit" or "mount /host".
	What string
	// From and To are the values; "" is absent.
	From, To string
}

// String writes a change as a line of a diff.
func (c Change) String() string {
	switch {
	case c.From == "":
		return fmt.Sprintf("+ %s: %s", c.What, c.To)
	case c.To == "":
		return fmt.Sprintf("- %s: %s", c.What, c.From)
	default:
		return fmt.Sprintf("~ %s: %s → %s", c.What, c.From, c.To)
	}
}

// String writes the explanation as `careen explain` prints it.
func (e *Explanation) String() string {
	var b strings.Builder
	section := func(title, none string, lines []string) {
		b.WriteString(title + "\n")
		if len(lines) == 0 {
			lines = []string{none}
		}
		for _, line := range lines {
			b.WriteString("  " + line + "\n")
		}
		b.WriteString("\n")
	}
	changes := make([]string, len(e.Changes))
	for i, change := range e.Changes {
		changes[i] = change.String()
	}
	section("What the options are for:", "there are none", e.Options)
	section("Against careen's default for this image:", "nothing changes", changes)
	section("Warnings:", "none: the container is as isolated as by default", e.Warnings)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// Baseline returns the same image and command without any option.
func (r *Run) Baseline() *Run {
	base, err := ParseRunOptions(nil, r.Image.Original, r.Command, Caller{Environ: map[string]string{}})
	if err != nil {
		// The image has been parsed already, so this is a defect of careen's.
		panic(fmt.Sprintf("parsing %q again: %v", r.Image.Original, err))
	}
	return base
}

// Explain compares the plan of run with base, the plan of [Run.Baseline] for the
// same image, node and id. Values that look like secrets are masked.
func Explain(run *Run, plan, base *Plan) *Explanation {
	e := &Explanation{Warnings: plan.Warnings}
	for _, option := range optionTable {
		for _, use := range run.scanned.uses[option.Name] {
			if option.On&OnRun != 0 {
				e.Options = append(e.Options, explainUse(use))
			}
		}
	}
	from, to := facts(base), facts(plan)
	names := make(map[string]bool)
	for name := range from {
		names[name] = true
	}
	for name := range to {
		names[name] = true
	}
	for name := range names {
		if from[name] != to[name] {
			e.Changes = append(e.Changes, Change{What: name, From: from[name], To: to[name]})
		}
	}
	sort.Slice(e.Changes, func(i, j int) bool { return e.Changes[i].What < e.Changes[j].What })
	return e
}

func explainUse(use given) string {
	written := "--" + use.option.Name
	if use.option.Kind != Bool || use.value != "true" {
		written += "=" + redactValue(use.option, use.value)
	}
	switch use.option.Verdict {
	case Accept:
		return fmt.Sprintf("%s has no effect: %s", written, use.option.Help)
	case Reject:
		return fmt.Sprintf("%s has no effect: it is the default", written)
	}
	return fmt.Sprintf("%s: %s", written, use.option.Help)
}

// facts lists what a plan says by name, each as one short text.
func facts(plan *Plan) map[string]string {
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
		if value != "" && secretVariable(name, value) {
			value = masked
		}
		f["variable "+name] = quote(value)
	}
	for name, value := range spec.Annotations {
		put("annotation "+name, quote(value))
	}
	for name, value := range plan.Labels {
		put("label "+name, quote(value))
	}
	for _, m := range spec.Mounts {
		f["mount "+m.Destination] = fmt.Sprintf("%s from %s (%s)", m.Type, m.Source, strings.Join(m.Options, ","))
	}
	capabilityFacts(f, spec.Process.Capabilities)
	linuxFacts(put, spec.Linux)
	return f
}

func capabilityFacts(f map[string]string, caps *specs.LinuxCapabilities) {
	for _, name := range caps.Bounding {
		f["capability "+name] = "may be gained"
	}
	for _, name := range caps.Effective {
		f["capability "+name] = "in effect"
	}
}

func linuxFacts(put func(name string, v any), linux *specs.Linux) {
	for _, ns := range linux.Namespaces {
		own := "the container's own"
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
	flattenFacts(put, "limit", resources)
	if linux.Seccomp == nil {
		return
	}
	put("seccomp filter", string(linux.Seccomp.DefaultAction))
	for _, rule := range linux.Seccomp.Syscalls {
		for _, name := range rule.Names {
			if rule.Action == specs.ActAllow && len(rule.Args) == 0 {
				put("system call "+name, "allowed")
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

// flattenFacts names each number of the limits by its path.
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
		put(prefix+" "+name, string(text))
	}
}

// factText writes a value; "" is for what is not worth a line.
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
