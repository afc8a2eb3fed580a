package oci

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/careen-project/careen/agent/fault"
)

// ParseRun reads `[options] IMAGE [COMMAND [ARG...]]` as podman run does. With --help only
// Options.Help is set. The error is an [Errors] with every problem; their codes are
// [fault.BadOption], [fault.Unsupported], [fault.BadReference] and [fault.BadRequest] (no
// image, or too many words).
func ParseRun(words []string, caller Caller) (*Run, error) {
	s := scan(OnRun, words)
	run := &Run{scanned: s, caller: caller}
	if s.bool("help", false) {
		run.Options.Help = true
		return run, nil
	}
	switch {
	case len(s.rest) == 0 && len(s.errs) == 0:
		s.fail(&fault.Error{
			Code: fault.BadRequest, Op: "run", Reason: "the image is missing after the options",
			Remedy: "Write it like careen run --rm docker://registry.example/tool:1",
		})
	case len(s.rest) > 0:
		run.setImage(s, s.rest[0])
		run.Command = s.rest[1:]
	}
	return run.finish()
}

// ParseRunOptions reads options alone, such as Ironic's run_options, for a separate image
// and command. It refuses words that are not options. Errors are those of [ParseRun].
func ParseRunOptions(words []string, image string, command []string, caller Caller) (*Run, error) {
	s := scan(OnRun, words)
	run := &Run{scanned: s, caller: caller, Command: command}
	refuseRest(s)
	run.setImage(s, image)
	return run.finish()
}

// refuseRest reports words that are not options where only options may be, and
// --help, with which podman would print its help, run nothing and report success.
func refuseRest(s *scanned) {
	if s.bool("help", false) {
		s.fail(unsupported(s.written("help"), "it does not run anything", "Leave it out; docs/options.md lists the options"))
	}
	if len(s.rest) == 0 || len(s.errs) > 0 {
		return
	}
	s.fail(&fault.Error{
		Code: fault.BadRequest, Op: "read options", Subject: quote(s.rest[0]),
		Reason: "it is not an option; options are split at white space, also inside a value",
		Remedy: "Join name and value with =, or give the options as a list of exact words",
	})
}

func (r *Run) setImage(s *scanned, image string) {
	ref, err := ParseReference(image)
	if err != nil {
		s.fail(asFault(err, image, ""))
		return
	}
	if ref.Path != "" && !filepath.IsAbs(ref.Path) {
		ref.Path = filepath.Join(r.caller.WorkDir, ref.Path)
	}
	r.Image = ref
}

// finish turns the scanned options into typed ones and reports every error.
func (r *Run) finish() (*Run, error) {
	s := r.scanned
	o := &r.Options
	p := runParser{scanned: s, caller: r.caller, o: o}
	for _, parse := range []func(){
		p.identity, p.process, p.environment, p.users, p.capabilities, p.security, p.namespaces, p.network,
		p.mounts, p.devices, p.limits, p.ulimits, p.sysctls, p.noops, p.pull, p.conflicts,
	} {
		parse()
	}
	if err := s.errs.err(); err != nil {
		return nil, err
	}
	return r, nil
}

// runParser makes RunOptions from a scanned command line. Each method reads one
// group of options and records what is wrong with them.
type runParser struct {
	*scanned
	caller Caller
	o      *RunOptions
}

// path makes a path of the caller absolute.
func (p *runParser) path(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.caller.WorkDir, path)
}

// maxFile bounds the files that options name.
const maxFile = 1 << 20

// readFile reads a file that an option names.
func (p *runParser) readFile(it item, path string) ([]byte, bool) {
	if p.caller.Host == nil {
		return nil, false
	}
	content, err := p.caller.Host.ReadFile(p.path(path), maxFile)
	if err != nil {
		e := badOption(it.written, "the file cannot be read: "+err.Error(), "")
		e.Err, e.Remedy = err, "Use a file that exists on the node"
		p.fail(e)
		return nil, false
	}
	return content, true
}

func (p *runParser) identity() {
	o := p.o
	o.Name = p.text("name", "")
	if o.Name != "" && !validName(o.Name) {
		p.bad("name", "a name has letters, digits, _, . and -, and starts with a letter or digit")
	}
	o.CIDFile = p.text("cidfile", "")
	if o.CIDFile != "" {
		o.CIDFile = p.path(o.CIDFile)
		p.mustBeAbsent("cidfile", o.CIDFile)
	}
	if o.PIDFile = p.text("pidfile", ""); o.PIDFile != "" {
		o.PIDFile = p.path(o.PIDFile)
	}
	o.Labels = p.labels()
	o.Annotations = make(map[string]string)
	for _, it := range p.items("annotation") {
		name, value, ok := strings.Cut(it.value, "=")
		if !ok {
			p.badItem("annotation", it, "it has no =")
			continue
		}
		o.Annotations[name] = value
	}
}

func (p *runParser) mustBeAbsent(name, path string) {
	if p.caller.Host == nil {
		return
	}
	if _, err := p.caller.Host.Lstat(path); err == nil {
		e := badOption(p.written(name), "the file exists already; another container may use it", "")
		e.Remedy = "Remove it or use another path"
		p.fail(e)
		return
	}
	if dir, err := p.caller.Host.Stat(filepath.Dir(path)); err != nil || !dir.IsDir() {
		e := badOption(p.written(name), "its directory does not exist", "")
		e.Err, e.Remedy = err, "Use a path in an existing directory"
		p.fail(e)
	}
}

// labels reads --label-file and --label; the latter win.
func (p *runParser) labels() map[string]string {
	labels := make(map[string]string)
	for _, it := range p.items("label-file") {
		content, ok := p.readFile(it, it.value)
		if !ok {
			continue
		}
		if err := parseLabelFile(labels, content, p.caller.Environ); err != nil {
			p.badItem("label-file", it, err.Error())
		}
	}
	for _, it := range p.items("label") {
		name, value, _ := strings.Cut(it.value, "=")
		if name == "" {
			p.badItem("label", it, "it has no name")
			continue
		}
		labels[name] = value
	}
	return labels
}

// validName is podman's rule for the names of containers and volumes.
func validName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return false
		}
	}
	return name != ""
}

// conflicts reports options that podman does not accept together.
func (p *runParser) conflicts() {
	o := p.o
	for _, name := range []string{"cpu-period", "cpu-quota"} {
		if p.changed(name) && p.changed("cpus") {
			p.bad(name, "it cannot be given together with --cpus")
		}
	}
	p.networkConflicts()
	p.cgroupConflicts()
	if o.Init && (o.PID.Host() || o.PID.Mode == NamespacePath) {
		p.bad("init", "the init process needs a private PID namespace")
	}
	if o.Init && o.Systemd == "always" {
		p.bad("init", "it cannot be given together with --systemd=always")
	}
	p.readOnlyConflicts()
	if p.bool("replace", false) && o.Name == "" {
		p.bad("replace", "it needs --name")
	}
}

// networkConflicts does it for names, the network and shared memory.
func (p *runParser) networkConflicts() {
	o := p.o
	if o.NoHosts && p.changed("add-host") {
		p.bad("add-host", "it cannot be given together with --no-hosts")
	}
	if o.NoHosts && p.changed("hosts-file") {
		p.bad("hosts-file", "it cannot be given together with --no-hosts")
	}
	uts := o.UTS.Mode
	if o.Hostname != "" && uts != NamespaceDefault && uts != NamespacePrivate {
		p.bad("hostname", "the host name can be set only in a private UTS namespace")
	}
	if p.text("shm-size", "") != "" && (o.IPC.Host() || o.IPC.Mode == NamespaceNone) {
		p.bad("shm-size", fmt.Sprintf("with --ipc=%s the container has no private /dev/shm", o.IPC.Mode))
	}
	for _, name := range []string{"dns", "dns-option", "dns-search"} {
		if p.changed(name) && o.Network.Mode == NamespaceNone {
			p.bad(name, "it cannot be given together with --network=none")
		}
	}
	if o.ImageResolvConf && (len(o.DNSOptions) > 0 || len(o.DNSSearch) > 0) {
		p.bad("dns", "none keeps the image's resolv.conf and excludes other DNS options")
	}
}

// cgroupConflicts does it for control groups.
func (p *runParser) cgroupConflicts() {
	o := p.o
	if o.Cgroups == "disabled" && o.CgroupParent != "" {
		p.bad("cgroup-parent", "it cannot be given together with --cgroups=disabled")
	}
	if o.Cgroups == "disabled" && (o.PID.Host() || o.PID.Mode == NamespacePath) {
		p.bad("cgroups", "without cgroups the container needs a private PID namespace")
	}
}

// readOnlyTargets are where --read-only mounts a tmpfs, in podman's order.
var readOnlyTargets = []string{"/tmp", "/var/tmp", "/run"}

// readOnlyConflicts refuses a mount at one of readOnlyTargets in another spelling, such as
// /tmp/. podman treats it as another path and then fails with two mounts at one path.
// --mount cleans its path before.
func (p *runParser) readOnlyConflicts() {
	if !p.o.ReadOnly || !p.o.ReadOnlyTmpfs {
		return
	}
	for _, m := range p.o.Mounts {
		raw := m.raw
		if raw == "" {
			raw = m.Destination
		}
		if clean := path.Clean(raw); clean != raw && contains(readOnlyTargets, clean) && m.Kind != MountOverlay {
			e := badOption(m.Written, quote(raw)+" is not the same as "+clean+", where --read-only mounts a tmpfs", "")
			e.Remedy = "Write " + clean
			p.fail(e)
		}
	}
}
