package conformance

import (
	"encoding/json"
	"slices"
	"sort"
	"strings"

	"github.com/careen-project/careen/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// newMask is true for what careen masks as newer podman does, and podman 4.3.1 not.
func newMask(file string) bool {
	return file == "/proc/interrupts" || file == "/sys/devices/virtual/powercap" || strings.HasSuffix(file, "/thermal_throttle")
}

// Adjust applies to podman's result the differences that concern every case;
// gendoc.Differences has the reasons. network is what was put before the options.
func Adjust(expect map[string]any, network string, run *oci.Run) {
	process := expect["process"].(map[string]any)
	var env []any
	for _, entry := range process["env"].([]any) {
		switch {
		case entry == "container=podman":
			entry = "container=careen"
		case entry == "TERM=xterm" && !run.Options.TTY:
			continue
		}
		env = append(env, entry)
	}
	process["env"] = env
	if len(run.Options.Resources.Rlimits) == 0 {
		delete(process, "rlimits")
	}
	linux := expect["linux"].(map[string]any)
	if text, ok := linux["cgroupsPath"].(string); ok {
		text = strings.Replace(text, "/libpod_parent", "/careen", 1)
		linux["cgroupsPath"] = strings.Replace(text, "libpod-", "careen-", 1)
	}
	if pids, ok := linux["resources"].(map[string]any)["pids"].(map[string]any); ok && pids["limit"] == float64(0) {
		pids["limit"] = float64(-1)
	}
	if network == "--network=none" {
		var mounts []any
		for _, m := range expect["mounts"].([]any) {
			if !strings.HasSuffix(m.(map[string]any)["destination"].(string), "/etc/resolv.conf") {
				mounts = append(mounts, m)
			}
		}
		expect["mounts"] = mounts
	}
	container := expect["container"].(map[string]any)
	for _, name := range []string{"healthcheck", "restart_policy"} {
		delete(container, name)
	}
	if annotations := expect["annotations"].(map[string]any); len(annotations) == 0 {
		expect["annotations"] = map[string]any{}
	}
}

// Result is what careen made of one option set.
type Result struct {
	Spec *specs.Spec
	// Plan is nil when only the spec is known, as from careen spec.
	Plan *oci.Plan
	Run  *oci.Run
	// ID and Hostname are the container's id and the node's name; they become words.
	ID, Hostname string
	// RunDir and VolumeDir are where careen keeps generated files and named volumes.
	RunDir, VolumeDir string
	// BridgeNS is the path of the network namespace that stands for podman's bridge.
	BridgeNS string
}

// Normalise writes a result in the corpus's form. expect decides which optional parts
// are compared; without a plan container and files are left out.
func (r Result) Normalise(expect map[string]any) map[string]any {
	spec, plan, run := r.Spec, r.Plan, r.Run
	out := map[string]any{
		"process":     normalProcess(spec.Process, expect["process"].(map[string]any), run),
		"root":        map[string]any{"readonly": spec.Root.Readonly},
		"mounts":      r.mounts(),
		"linux":       r.linux(expect["linux"].(map[string]any)),
		"annotations": spec.Annotations,
		"hostname":    nil,
	}
	if spec.Hostname != "" {
		out["hostname"] = spec.Hostname
	}
	if plan != nil {
		out["container"] = normalContainer(plan, run, expect["container"].(map[string]any))
		if files, ok := expect["files"].(map[string]any); ok {
			out["files"] = normalFiles(plan, files)
		}
	}
	return r.replaceNames(out)
}

// replaceNames puts words for the container's id and the node's name.
func (r Result) replaceNames(v any) map[string]any {
	content, _ := json.Marshal(v)
	text := strings.NewReplacer(
		r.ID, "<cid>", r.ID[:32], "<cid:32>", r.ID[:12], "<cid>", `"`+r.Hostname+`"`, `"<host>"`,
	).Replace(string(content))
	var out map[string]any
	_ = json.Unmarshal([]byte(text), &out)
	return out
}

func normalProcess(process *specs.Process, expect map[string]any, run *oci.Run) map[string]any {
	var env []string
	hostname := any(nil)
	for _, entry := range process.Env {
		name, value, _ := strings.Cut(entry, "=")
		if _, set := run.Options.Env["HOSTNAME"]; name == "HOSTNAME" && !set {
			hostname = value
			continue
		}
		env = append(env, entry)
	}
	sort.Strings(env)
	user := map[string]any{"uid": process.User.UID, "gid": process.User.GID, "umask": process.User.Umask}
	if gids := process.User.AdditionalGids; len(gids) > 0 {
		sort.Slice(gids, func(i, j int) bool { return gids[i] < gids[j] })
		user["additionalGids"] = gids
	}
	caps := process.Capabilities
	out := map[string]any{
		"args": process.Args, "env": env, "env_hostname": hostname, "cwd": process.Cwd, "user": user,
		"capabilities": map[string]any{
			"bounding": normalCaps(caps.Bounding), "effective": normalCaps(caps.Effective),
			"permitted": normalCaps(caps.Permitted), "ambient": normalCaps(caps.Ambient),
			"inheritable": normalCaps(caps.Inheritable),
		},
		"noNewPrivileges": process.NoNewPrivileges, "oomScoreAdj": process.OOMScoreAdj, "terminal": process.Terminal,
	}
	if _, ok := expect["rlimits"]; ok || len(process.Rlimits) > 0 {
		limits := process.Rlimits
		sort.Slice(limits, func(i, j int) bool { return limits[i].Type < limits[j].Type })
		out["rlimits"] = limits
	}
	return out
}

func normalCaps(caps []string) []string {
	if len(caps) == len(AllCapabilities()) {
		return []string{"ALL"}
	}
	sorted := append([]string{}, caps...)
	sort.Strings(sorted)
	return sorted
}

func (r Result) mounts() []any {
	var out []any
	for _, m := range r.Spec.Mounts {
		options := append([]string{}, m.Options...)
		entry := map[string]any{"destination": m.Destination, "type": m.Type}
		switch {
		case m.Destination == "/dev/shm" && m.Type == "tmpfs" && m.Source == "shm":
			// podman mounts the tmpfs on the node and binds it.
			entry["type"], entry["engine_source"] = "bind", true
			options = []string{"bind", "nodev", "noexec", "nosuid", "rprivate"}
		case m.Type == "overlay":
			entry["source"] = m.Source
			for i, option := range options {
				for _, name := range []string{"upperdir=", "workdir="} {
					if strings.HasPrefix(option, name+r.RunDir+"/") {
						options[i] = name + "<engine>"
					}
				}
			}
		case strings.HasPrefix(m.Source, r.VolumeDir+"/"):
			entry["volume"] = strings.TrimPrefix(m.Source, r.VolumeDir+"/")
		case strings.HasPrefix(m.Source, r.RunDir+"/volumes/"):
			entry["volume"] = "<anonymous>"
		case strings.HasPrefix(m.Source, r.RunDir+"/"):
			entry["engine_source"] = true
		default:
			entry["source"] = m.Source
		}
		sort.Strings(options)
		entry["options"] = options
		out = append(out, entry)
	}
	sort.SliceStable(out, func(i, j int) bool {
		return out[i].(map[string]any)["destination"].(string) < out[j].(map[string]any)["destination"].(string)
	})
	return out
}

func (r Result) linux(expect map[string]any) map[string]any {
	linux, run := r.Spec.Linux, r.Run
	namespaces := []any{}
	for _, ns := range linux.Namespaces {
		entry := map[string]any{"type": string(ns.Type)}
		if ns.Path != "" && ns.Path != r.BridgeNS {
			entry["path"] = ns.Path
		}
		namespaces = append(namespaces, entry)
	}
	sort.Slice(namespaces, func(i, j int) bool {
		return namespaces[i].(map[string]any)["type"].(string) < namespaces[j].(map[string]any)["type"].(string)
	})
	masked := []string{}
	for _, file := range linux.MaskedPaths {
		if !newMask(file) || slices.Contains(run.Options.Security.Mask, file) {
			masked = append(masked, file)
		}
	}
	sort.Strings(masked)
	readonly := append([]string{}, linux.ReadonlyPaths...)
	sort.Strings(readonly)
	out := map[string]any{
		"namespaces": namespaces, "devices": normalDevices(linux.Devices, expect["devices"]),
		"resources": linux.Resources, "sysctl": linux.Sysctl, "maskedPaths": masked, "readonlyPaths": readonly,
		"seccomp": normalSeccomp(linux.Seccomp, run),
	}
	if linux.RootfsPropagation != "" {
		out["rootfsPropagation"] = linux.RootfsPropagation
	}
	if linux.Personality != nil {
		out["personality"] = map[string]any{"domain": linux.Personality.Domain}
	}
	if _, ok := expect["cgroupsPath"]; ok {
		out["cgroupsPath"] = linux.CgroupsPath
	}
	return out
}

// normalDevices lists the devices, or says of a privileged container what the
// corpus says.
func normalDevices(devices []specs.LinuxDevice, expect any) any {
	summary, ok := expect.(map[string]any)
	if !ok {
		list := []any{}
		for _, device := range devices {
			list = append(list, map[string]any{
				"path": device.Path, "type": device.Type, "major": device.Major, "minor": device.Minor,
			})
		}
		sort.Slice(list, func(i, j int) bool {
			return list[i].(map[string]any)["path"].(string) < list[j].(map[string]any)["path"].(string)
		})
		return list
	}
	has := make(map[string]bool)
	for _, device := range devices {
		has[device.Path] = true
	}
	contained, excluded := []any{}, []any{}
	for _, name := range summary["contains"].([]any) {
		if has[name.(string)] {
			contained = append(contained, name)
		}
	}
	for _, name := range summary["excludes"].([]any) {
		if !has[name.(string)] {
			excluded = append(excluded, name)
		}
	}
	return map[string]any{"count_gt_50": len(devices) > 50, "contains": contained, "excludes": excluded}
}

// defaultAllowed are the system calls that a container without options may make.
var defaultAllowed = func() map[string]bool {
	run, err := oci.ParseRun([]string{"x"}, oci.Caller{})
	if err != nil {
		panic(err)
	}
	input := oci.BuildInput{ID: strings.Repeat("0", 64), Node: oci.Node{Capabilities: AllCapabilities(), SeccompArch: "amd64", Seccomp: true}}
	input.Image.Config.Config.Cmd = []string{"x"}
	plan, err := run.Build(input)
	if err != nil {
		panic(err)
	}
	return allowed(plan.Spec.Linux.Seccomp)
}()

func allowed(filter *specs.LinuxSeccomp) map[string]bool {
	names := make(map[string]bool)
	for _, rule := range filter.Syscalls {
		if rule.Action == specs.ActAllow && len(rule.Args) == 0 {
			for _, name := range rule.Names {
				names[name] = true
			}
		}
	}
	return names
}

func normalSeccomp(filter *specs.LinuxSeccomp, run *oci.Run) map[string]any {
	if filter == nil {
		return map[string]any{"present": false, "defaultAction": nil}
	}
	out := map[string]any{"present": true, "defaultAction": filter.DefaultAction}
	if run.Options.Security.SeccompPath != "" {
		return out
	}
	now := allowed(filter)
	out["extra_allowed"], out["no_longer_allowed"] = missing(now, defaultAllowed), missing(defaultAllowed, now)
	return out
}

// missing returns what is in a and not in b.
func missing(a, b map[string]bool) []string {
	names := []string{}
	for name := range a {
		if !b[name] {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

func normalContainer(plan *oci.Plan, run *oci.Run, expect map[string]any) map[string]any {
	shm := run.Options.ShmSize
	if shm == 0 {
		shm = 65536000
	}
	out := map[string]any{
		"stop_signal": plan.StopSignal, "stop_timeout": plan.StopTimeout.Seconds(), "timeout": plan.Timeout.Seconds(),
		"shm_size": shm, "open_stdin": run.Options.Interactive, "tty": run.Options.TTY,
	}
	if _, ok := expect["labels"]; ok || len(plan.Labels) > 0 {
		out["labels"] = plan.Labels
	}
	if _, ok := expect["name"]; ok {
		out["name"] = run.Options.Name
	}
	return out
}

// normalFiles shows the generated files that the corpus names, in its form.
func normalFiles(plan *oci.Plan, expect map[string]any) map[string]any {
	contents := make(map[string]string)
	for _, file := range plan.Files {
		contents[file.Path] = string(file.Content)
	}
	generated := make(map[string]any)
	for _, m := range plan.Spec.Mounts {
		if content, ok := contents[m.Source]; ok {
			generated[m.Destination] = content
		}
	}
	out := make(map[string]any)
	for name, want := range expect {
		file, appended := strings.CutSuffix(name, " (appended)")
		content, ok := generated[file].(string)
		switch {
		case appended:
			out[name] = appendedLines(plan, file, content)
		case !ok:
			out[name] = nil
		default:
			out[name] = normalFile(content, want)
		}
	}
	return out
}

func appendedLines(plan *oci.Plan, file, mounted string) []string {
	text := ""
	for _, add := range plan.RootAppends {
		if add.Path == file {
			text += string(add.Content)
		}
	}
	if text == "" {
		lines := strings.Split(strings.TrimRight(mounted, "\n"), "\n")
		return lines[len(lines)-1:]
	}
	return strings.Split(strings.TrimRight(text, "\n"), "\n")
}

func normalFile(content string, want any) any {
	list, ok := want.([]any)
	if !ok {
		return content
	}
	lines := strings.Split(strings.TrimRight(content, "\n"), "\n")
	if _, entries := list[0].([]any); !entries {
		return lines
	}
	// Of /etc/hosts only the lines that an option asked for are in the corpus.
	var out []any
	for _, line := range lines[:len(list)] {
		out = append(out, strings.Fields(line))
	}
	return out
}
