package oci

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultMounts are those of every container, before the user's take their place.
func (b *builder) defaultMounts() []specs.Mount {
	sys := specs.Mount{
		Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"},
	}
	if b.o.Privileged {
		sys.Options = []string{"rprivate", "nosuid", "noexec", "nodev", "rw"}
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{
			Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"},
		},
		{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		sys,
		{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"rprivate", "nosuid", "noexec", "nodev", "relatime", b.cgroupAccess()},
		},
	}
}

// userMounts collects the user's mounts and volumes, then the image's volumes, then the
// default mounts that they do not replace. A mount at /dev removes all default mounts below
// it.
func (b *builder) userMounts() error {
	taken := make(map[string]bool)
	for _, m := range b.o.Mounts {
		taken[path.Clean(m.Destination)] = true
	}
	b.imageVolumes(taken)
	if err := b.readOnlyTmpfs(taken); err != nil {
		return err
	}
	for _, m := range b.o.Mounts {
		if err := b.userMount(m); err != nil {
			return Errors{asFault(err, m.Written, "")}
		}
	}
	if err := b.initMount(taken); err != nil {
		return err
	}
	for _, m := range b.mounts {
		taken[path.Clean(m.Destination)] = true
	}
	for _, m := range b.volumes {
		// As in podman, a volume does not replace a default mount but covers it; only
		// binds and tmpfs remove the mounts below /dev.
		delete(taken, m.Destination)
	}
	for _, m := range b.defaultMounts() {
		if taken[m.Destination] || (taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/")) {
			continue
		}
		b.mounts = append(b.mounts, m)
	}
	if b.o.Security.ProcOpts != nil {
		for i := range b.mounts {
			if b.mounts[i].Destination == "/proc" {
				b.mounts[i].Options = b.o.Security.ProcOpts
				break
			}
		}
	}
	return b.setCwd()
}

func (b *builder) setCwd() error {
	cwd := b.o.WorkDir
	if cwd == "" {
		cwd = b.image.WorkingDir
		if !path.IsAbs(cwd) {
			// podman passes it on unchanged, and no runtime accepts it.
			cwd = path.Join("/", cwd)
		}
	}
	b.spec.Process.Cwd = cwd
	return nil
}

// imageVolumes adds the image's VOLUME paths where the user mounts nothing.
func (b *builder) imageVolumes(taken map[string]bool) {
	if b.o.ImageVolume == "ignore" {
		return
	}
	paths := make([]string, 0, len(b.image.Volumes))
	for destination := range b.image.Volumes {
		paths = append(paths, path.Clean("/"+destination))
	}
	sort.Strings(paths)
	options := []string{"rprivate", "rw", "nodev", "exec"}
	for _, destination := range paths {
		switch {
		case taken[destination]:
		case b.o.ImageVolume == "tmpfs":
			complete, _ := tmpfsOptions(options)
			b.mounts = append(b.mounts, specs.Mount{
				Destination: destination, Type: "tmpfs", Source: "tmpfs", Options: complete,
			})
		default:
			b.volumes = append(b.volumes, Mount{Kind: MountVolume, Destination: destination, Options: options})
		}
	}
}

// readOnlyTmpfs keeps /tmp, /var/tmp and /run writable under --read-only.
func (b *builder) readOnlyTmpfs(taken map[string]bool) error {
	if !b.o.ReadOnly || !b.o.ReadOnlyTmpfs {
		return nil
	}
	for _, destination := range readOnlyTargets {
		if !taken[destination] {
			// It replaces the image's VOLUME.
			b.volumes = slices.DeleteFunc(b.volumes, func(m Mount) bool { return m.Destination == destination })
			b.mounts = slices.DeleteFunc(b.mounts, func(m specs.Mount) bool { return m.Destination == destination })
			b.mounts = append(b.mounts, specs.Mount{
				Destination: destination, Type: "tmpfs", Source: "tmpfs",
				Options: []string{"rw", "rprivate", "nosuid", "nodev", "tmpcopyup"},
			})
		}
	}
	return nil
}

// userMount adds one --mount, --volume or --tmpfs. Volumes are added once the user is
// known.
func (b *builder) userMount(m Mount) error {
	out := specs.Mount{Destination: m.Destination, Type: string(m.Kind), Source: m.Source}
	switch m.Kind {
	case MountVolume, MountOverlay:
		b.volumes = append(b.volumes, m)
		return nil
	case MountBind:
		if b.in.Host == nil {
			return needHost(m.Written)
		}
		flags, err := b.in.Host.MountFlags(m.Source)
		if err != nil {
			return fmt.Errorf("the source %s cannot be used: %w", quote(m.Source), err)
		}
		out.Options = bindOptions(m.Options, flags)
	case MountTmpfs, MountRamfs:
		options, err := m.memoryOptions()
		if err != nil {
			return err
		}
		out.Options = options
	case MountDevpts:
		out.Options = append([]string{}, m.Options...)
	}
	b.mounts = append(b.mounts, out)
	return nil
}

func (b *builder) initMount(taken map[string]bool) error {
	if !b.o.Init {
		return nil
	}
	source := b.o.InitPath
	if source == "" {
		source = b.in.InitPath
	}
	if source == "" {
		return Errors{badOption("--init", "no binary to run as process 1 was given", "--init-path=/sbin/tini")}
	}
	if taken[initDestination] {
		return Errors{badOption("--init", "something else is mounted at "+initDestination, "")}
	}
	b.mounts = append(b.mounts, specs.Mount{
		Destination: initDestination, Type: "bind", Source: source, Options: []string{"bind", "ro", "rprivate"},
	})
	return nil
}

// namedVolumes adds volumes, also those with O. As in podman they come before the engine's
// mounts, which they replace, except the marker file.
func (b *builder) namedVolumes() error {
	b.marked = b.hasMount("/run") || b.hasMount(markerDestination)
	for i, m := range b.volumes {
		var err error
		switch {
		case m.Kind == MountOverlay:
		case contains(m.Options, "O"):
			err = b.overlay(i, m)
		default:
			b.volume(i, m)
		}
		if err != nil {
			return Errors{asFault(err, m.Written, "")}
		}
	}
	return nil
}

// overlays adds the -v SOURCE:DIR:O mounts.
func (b *builder) overlays() error {
	for i, m := range b.volumes {
		if m.Kind != MountOverlay {
			continue
		}
		if err := b.overlay(i, m); err != nil {
			return Errors{asFault(err, m.Written, "")}
		}
	}
	return nil
}

// special removes the options for careen from all mounts: U, z, Z, copy, idmap.
func (b *builder) special() error {
	for i := range b.mounts {
		if err := b.specialOptions(&b.mounts[i]); err != nil {
			return err
		}
	}
	return nil
}

// volumePath registers the volume's directory and returns it.
func (b *builder) volumePath(i int, m Mount) string {
	volume := PlanVolume{
		Name: m.Source, CopyFrom: path.Clean(m.Destination), UID: b.account.uid, GID: b.account.gid,
		Path: filepath.Join(b.in.Dir, "volumes", fmt.Sprint(i)),
	}
	if m.Source != "" && b.in.VolumeDir != "" {
		volume.Path = filepath.Join(b.in.VolumeDir, m.Source)
	} else if m.Source != "" {
		volume.Path = filepath.Join(b.in.Dir, "volumes", m.Source)
	}
	if contains(m.Options, "nocopy") {
		volume.CopyFrom = ""
	}
	for _, other := range b.plan.Volumes {
		if other.Path == volume.Path {
			return volume.Path
		}
	}
	b.plan.Volumes = append(b.plan.Volumes, volume)
	return volume.Path
}

func (b *builder) volume(i int, m Mount) {
	b.mounts = append(b.mounts, specs.Mount{
		Destination: m.Destination, Type: "bind", Source: b.volumePath(i, m),
		Options: bindOptions(m.Options, volumeDefaults),
	})
}

// overlay mounts a directory of the node, or a volume, and discards changes after the run.
func (b *builder) overlay(i int, m Mount) error {
	upper, work, err := overlayDirs(m.Options)
	if err != nil {
		return err
	}
	lower := m.Source
	if m.Kind == MountVolume {
		lower = b.volumePath(i, m)
	}
	dir := filepath.Join(b.in.Dir, "overlay", fmt.Sprint(i))
	if upper == "" {
		upper, work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	}
	b.plan.Overlays = append(b.plan.Overlays, PlanOverlay{Lower: lower, Upper: upper, Work: work})
	if contains(m.Options, "U") {
		b.chown(lower)
	}
	b.mounts = append(b.mounts, specs.Mount{
		Destination: m.Destination, Type: "overlay", Source: "overlay",
		Options: []string{"lowerdir=" + escapeOverlay(lower), "upperdir=" + upper, "workdir=" + work, "private"},
	})
	return nil
}

// escapeOverlay escapes the separators of overlay's directories.
func escapeOverlay(dir string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(dir)
}

func (b *builder) chown(dir string) {
	b.plan.Chowns = append(b.plan.Chowns, PlanChown{Path: dir, UID: b.account.uid, GID: b.account.gid})
}

// specialOptions acts on the options of one mount that are for careen.
func (b *builder) specialOptions(m *specs.Mount) error {
	if m.Type != "bind" && m.Type != "tmpfs" && m.Type != "ramfs" {
		return nil
	}
	options, special := splitVolumeOptions(m.Options)
	m.Options = options
	if special["U"] != "" && m.Type != "bind" {
		m.Options = append(m.Options, fmt.Sprintf("uid=%d", b.account.uid), fmt.Sprintf("gid=%d", b.account.gid))
	} else if special["U"] != "" {
		b.chown(m.Source)
	}
	if (special["z"] != "" || special["Z"] != "") && b.in.Node.SELinux {
		b.warnf("%s is not relabelled: careen does not set SELinux labels", m.Destination)
	}
	if special["idmap"] == "" {
		return nil
	}
	uids, gids, err := parseIDMap(special["idmap"])
	if err != nil {
		return Errors{badOption(special["idmap"], err.Error(), "idmap=uids=0-1000-1;gids=0-1000-1")}
	}
	if uids == nil {
		b.warnf("idmap on %s is ignored: it has no effect without a user namespace", m.Destination)
		return nil
	}
	m.UIDMappings, m.GIDMappings = uids, gids
	m.Options = append(m.Options, "idmap")
	return nil
}

// finishMounts puts mounts in an order in which none covers another, follows the
// image's links to a tmpfs's destination, and sets the root's propagation.
func (b *builder) finishMounts() error {
	sort.SliceStable(b.mounts, func(i, j int) bool { return depth(b.mounts[i]) < depth(b.mounts[j]) })
	for i := range b.mounts {
		m := &b.mounts[i]
		if m.Type == "tmpfs" && b.in.Image.Files != nil {
			resolved, err := b.in.Image.Files.Resolve(m.Destination)
			if err != nil {
				return exitFault(fault.BadOption, ExitDenied, b.in.Image.Reference,
					fmt.Sprintf("the links of the image that lead to %s cannot be followed: %v", quote(m.Destination), err),
					"Mount the tmpfs at another path", err)
			}
			m.Destination = resolved
		}
		b.propagate(m.Options)
	}
	b.spec.Mounts = b.mounts
	return nil
}

func depth(m specs.Mount) int { return strings.Count(path.Clean(m.Destination), "/") }

// propagate raises the root's propagation to what a mount needs: shared over slave.
func (b *builder) propagate(options []string) {
	root := &b.spec.Linux.RootfsPropagation
	for _, option := range options {
		switch option {
		case "shared", "rshared":
			*root = "shared"
		case "slave", "rslave":
			if *root != "shared" {
				*root = "rslave"
			}
		}
	}
}
