package oci

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/docker/go-units"
)

func (p *runParser) mounts() {
	o := p.o
	set := mountSet{}
	for _, it := range p.items("mount") {
		m, err := p.parseMount(it)
		if err == nil {
			err = set.add(m, false)
		}
		if err != nil {
			p.fail(asFault(err, it.written, p.example("mount")))
		}
	}
	for _, it := range p.items("volume") {
		m, err := p.parseVolume(it)
		if err == nil {
			err = set.add(m, true)
		}
		if err != nil {
			p.fail(asFault(err, it.written, p.example("volume")))
		}
	}
	for _, it := range p.items("tmpfs") {
		m, err := parseTmpfs(it)
		if err == nil {
			err = set.add(m, true)
		}
		if err != nil {
			p.fail(asFault(err, it.written, p.example("tmpfs")))
		}
	}
	o.Mounts = set.mounts
	p.checkSources()
	o.ChrootDirs = p.list("chrootdirs")
	switch o.ImageVolume = p.text("image-volume", ""); o.ImageVolume {
	case "", "bind", "anonymous":
		o.ImageVolume = "anonymous"
	case "tmpfs", "ignore":
	default:
		p.bad("image-volume", "it is not one of anonymous, bind, tmpfs and ignore")
	}
	p.timezone()
	if o.ShmSize = p.size("shm-size"); o.ShmSize < 0 {
		e := badOption(p.written("shm-size"), "it is more than a file system can have", p.example("shm-size"))
		e.Attrs = map[string]any{exitAttr: ExitDenied} // podman notices when it mounts
		p.fail(e)
	}
	o.ShmSizeSystemd = p.size("shm-size-systemd")
}

// size reads a size with an optional unit; 0 when the option is absent.
func (p *runParser) size(name string) int64 {
	use, ok := p.last(name)
	if !ok || use.value == "" {
		return 0
	}
	n, err := parseSize(use.value)
	if err != nil {
		p.bad(name, err.Error())
	}
	return n
}

// sizePattern is podman's: newer libraries also take .5m and 1e3.
var sizePattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\d+(\.\d+)* ?[kKmMgGtTpP]?[iI]?[bB]?$`)
})

// parseSize reads a number of bytes with an optional binary unit.
func parseSize(text string) (int64, error) {
	if !sizePattern().MatchString(text) {
		return 0, fmt.Errorf("%s is not a size", quote(text))
	}
	// The library that podman was built with takes i and b without one another, and
	// without a unit, too; they say nothing.
	n, err := units.RAMInBytes(strings.TrimRight(text, "iIbB"))
	if err != nil {
		return 0, fmt.Errorf("%s is not a size", quote(text))
	}
	return n, nil
}

// timezone checks that the node has the zone's file.
func (p *runParser) timezone() {
	zone := p.text("tz", "")
	p.o.Timezone = zone
	if zone == "" || p.caller.Host == nil {
		return
	}
	file := zonePath(zone)
	info, err := p.caller.Host.Stat(file)
	switch {
	case err != nil:
		e := badOption(p.written("tz"), "the node has no "+file, "")
		e.Err, e.Remedy = err, "Put tzdata into the ramdisk, or set the variable with -e TZ=..."
		p.fail(e)
	case info.IsDir():
		p.bad("tz", "it is a directory of zones, not a zone")
	case zone[0] == '/' || zone[0] == '\\' || strings.HasSuffix(zone, "/") || strings.Contains(zone, ".."):
		e := badOption(p.written("tz"), "it is not the name of a zone", p.example("tz"))
		e.Attrs = map[string]any{exitAttr: ExitDenied} // podman notices when it looks for the file again
		p.fail(e)
	}
}

// zonePath returns the file of a time zone on the node.
func zonePath(zone string) string {
	if zone == "local" {
		return "/etc/localtime"
	}
	return filepath.Join("/usr/share/zoneinfo", zone)
}

// mountSet collects mounts and refuses two at one destination.
type mountSet struct {
	mounts []Mount
}

// add adds m. The same mount given twice is one mount if repeat allows it, and a
// --tmpfs over a tmpfs of --mount gives way.
func (s *mountSet) add(m Mount, repeat bool) error {
	for _, other := range s.mounts {
		if path.Clean(other.Destination) != path.Clean(m.Destination) {
			continue
		}
		switch {
		case repeat && m.Kind == MountVolume && other.Kind == MountVolume && m.Source == other.Source:
			return nil
		case repeat && other.Destination == m.Destination && sameMount(other, m):
			return nil
		case m.Kind == MountTmpfs && other.Kind == MountTmpfs && repeat && strings.HasPrefix(other.Written, "--mount"):
			return nil
		}
		return fmt.Errorf("%s is the destination of %s already", quote(m.Destination), other.Written)
	}
	s.mounts = append(s.mounts, m)
	return nil
}

func sameMount(a, b Mount) bool {
	return a.Kind == b.Kind && a.raw == b.raw && a.Source == b.Source && strings.Join(a.Options, ",") == strings.Join(b.Options, ",")
}

// checkSources makes sure that what is bound exists on the node.
func (p *runParser) checkSources() {
	if p.caller.Host == nil {
		return
	}
	for _, m := range p.o.Mounts {
		if m.Kind != MountBind && m.Kind != MountOverlay {
			continue
		}
		if _, err := p.caller.Host.Stat(m.Source); err != nil {
			e := badOption(m.Written, fmt.Sprintf("the source %s cannot be used: %v", quote(m.Source), err), "")
			e.Err, e.Remedy = err, "Create it on the node, or give a name without slashes for a scratch volume"
			p.fail(e)
		} else if contains(m.Options, "U") && p.keepsOwner(m.Source) {
			e := badOption(m.Written, "U would give all of the node's "+m.Source+" to another user", "")
			e.Remedy = "Leave U out, or bind a directory that holds nothing but the container's data"
			e.Attrs = map[string]any{exitAttr: ExitDenied} // podman checks this when it starts the container
			p.fail(e)
		}
	}
}

// ownedPaths are paths whose owner podman never changes, even with U. Paths below them
// are not protected.
var ownedPaths = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64", "/media", "/opt",
	"/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log",
}

// keepsOwner reports whether a path leads to one of ownedPaths or to the caller's home.
func (p *runParser) keepsOwner(source string) bool {
	resolved, err := p.caller.Host.EvalSymlinks(source)
	if err != nil {
		return true
	}
	return contains(ownedPaths, resolved) || resolved == p.caller.Environ["HOME"]
}

// checkDestination checks an absolute path inside the container.
func checkDestination(dest string) error {
	switch {
	case dest == "":
		return fmt.Errorf("the path in the container is empty")
	case !path.IsAbs(dest):
		return fmt.Errorf("the path in the container %s is not absolute", quote(dest))
	}
	return nil
}

// parseVolume reads one --volume.
func (p *runParser) parseVolume(it item) (Mount, error) {
	parts := strings.Split(it.value, ":")
	if len(parts) > 3 {
		return Mount{}, fmt.Errorf("it has more than three parts")
	}
	m := Mount{Kind: MountVolume, Written: it.written}
	if strings.HasPrefix(parts[0], "./") {
		resolved, err := p.resolveRelative(parts[0])
		if err != nil {
			return m, err
		}
		parts[0] = resolved
	}
	if len(parts) == 1 {
		m.Destination = parts[0]
		return m, checkDestination(m.Destination)
	}
	m.Source, m.Destination = parts[0], parts[1]
	if len(parts) == 3 {
		options, err := checkVolumeOptions(strings.Split(parts[2], ","))
		if err != nil {
			return m, err
		}
		m.Options = options
	}
	if m.Source == "" {
		return m, fmt.Errorf("the source is empty")
	}
	if err := checkDestination(m.Destination); err != nil {
		return m, err
	}
	if m.Source[0] != '/' && m.Source[0] != '.' {
		return m, checkVolumeName(m.Source)
	}
	m.Kind = MountBind
	m.Source = filepath.Clean(p.path(m.Source))
	if contains(m.Options, "O") {
		m.Kind = MountOverlay
		return m, checkOverlay(m.Options)
	}
	return m, nil
}

// resolveRelative follows the links of ./PATH, which podman does for no other path.
func (p *runParser) resolveRelative(source string) (string, error) {
	source = p.path(source)
	if p.caller.Host == nil {
		return source, nil
	}
	resolved, err := p.caller.Host.EvalSymlinks(source)
	if err != nil {
		return "", fmt.Errorf("the source cannot be used: %w", err)
	}
	return resolved, nil
}

func checkVolumeName(name string) error {
	if validName(name) {
		return nil
	}
	return fmt.Errorf("the volume's name %s is not letters, digits, _, . and -; a path must begin with / or ./", quote(name))
}

func checkOverlay(options []string) error {
	upper, work, err := overlayDirs(options)
	if err != nil {
		return err
	}
	extra := 0
	for _, option := range options {
		if option != "O" && option != "U" && !strings.Contains(option, "upperdir") && !strings.Contains(option, "workdir") {
			extra++
		}
	}
	if extra > 0 || (contains(options, "U") && upper+work != "") {
		return fmt.Errorf("O can only be given with U, or with upperdir= and workdir=") //nolint:staticcheck // O is the option's name
	}
	return nil
}

// overlayDirs returns upperdir= and workdir= of a volume's options.
func overlayDirs(options []string) (upper, work string, err error) {
	for _, option := range options {
		name, value, ok := strings.Cut(option, "=")
		isUpper, isWork := strings.HasPrefix(name, "upperdir"), strings.HasPrefix(name, "workdir")
		switch {
		case !isUpper && !isWork:
		case !ok || value == "" || !path.IsAbs(value):
			return "", "", fmt.Errorf("%s needs an absolute path", quote(option))
		case isUpper:
			upper = value
		default:
			work = value
		}
	}
	if (upper == "") != (work == "") {
		return "", "", fmt.Errorf("upperdir= and workdir= have to be given together")
	}
	return upper, work, nil
}

// volumeOptionSets are options of --volume of which one may be given.
var volumeOptionSets = [][]string{
	{"noexec", "exec"}, {"nodev", "dev"}, {"nosuid", "suid"}, {"rw", "ro"}, {"z", "Z", "O"}, {"U"},
	{"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"},
	{"bind", "rbind"}, {"copy", "nocopy"},
}

// checkVolumeOptions checks the options of a bind or volume and drops docker's for
// macOS, cached and delegated.
func checkVolumeOptions(options []string) ([]string, error) {
	var kept []string
	seen := make(map[string]string)
	for _, option := range options {
		set := volumeOptionSet(option)
		switch {
		case option == "cached" || option == "delegated":
			continue
		case set == "":
			return nil, fmt.Errorf("the volume option %s is unknown", quote(option))
		case (set == "upperdir" || set == "workdir") && !contains(options, "O"):
			return nil, fmt.Errorf("%s is for O only", set)
		case set == "idmap":
		case seen[set] != "":
			return nil, fmt.Errorf("%s and %s cannot be given together", seen[set], option)
		}
		seen[set] = option
		kept = append(kept, option)
	}
	return kept, nil
}

// volumeOptionSet returns what option excludes, "" for an unknown one.
func volumeOptionSet(option string) string {
	for _, set := range []string{"upperdir", "workdir"} {
		if strings.HasPrefix(option, set+"=") || option == set {
			return set
		}
	}
	if option == "idmap" || strings.HasPrefix(option, "idmap=") {
		return "idmap"
	}
	for _, set := range volumeOptionSets {
		if contains(set, option) {
			return set[0]
		}
	}
	return ""
}

// parseTmpfs reads one --tmpfs.
func parseTmpfs(it item) (Mount, error) {
	parts := strings.Split(it.value, ":")
	m := Mount{Kind: MountTmpfs, Source: "tmpfs", Destination: path.Clean(parts[0]), Written: it.written, raw: parts[0]}
	if err := checkDestination(parts[0]); err != nil {
		return m, err
	}
	if len(parts) > 1 {
		m.Options = strings.Split(parts[1], ",")
	}
	_, err := m.memoryOptions()
	return m, err
}
