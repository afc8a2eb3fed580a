package doctor

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/procfs"
)

// mounts lists what the agent will mount. A mount is impossible only where the kernel lacks
// the file system.
func (d *examination) mounts() {
	var missing, impossible []string
	proc := rootfs.ProcMounted()
	for _, m := range rootfs.MissingMounts() {
		if proc && !procfs.HasFilesystem(m.Type) {
			impossible = append(impossible, fmt.Sprintf("%s (%s)", m.Dir, m.Type))
			if m.Required {
				d.fail("mounts", "Use a kernel that has it", "%s cannot be mounted: no %s in the kernel", m.Dir, m.Type)
				return
			}
			continue
		}
		missing = append(missing, m.Dir)
	}
	switch {
	case len(impossible) > 0:
		d.warn("mounts", "Containers that use them fail; use a kernel that has them", "cannot be mounted: %s", strings.Join(impossible, ", "))
	case len(missing) > 0:
		d.ok("mounts", "careen agent will mount %s", strings.Join(missing, " "))
	default:
		d.ok("mounts", "all present")
	}
}

func (d *examination) cgroups() {
	mode := rootfs.DetectCgroups()
	var have []string
	switch {
	case mode != rootfs.CgroupNone:
		have = rootfs.AvailableControllers(mode)
	case procfs.HasFilesystem("cgroup2"):
		d.ok("cgroups", "careen agent will mount cgroup2")
		return
	default:
		d.fail("cgroups", "Use a kernel with CONFIG_CGROUPS", "no control groups, and no cgroup2 in the kernel")
		return
	}
	var missing []string
	for _, name := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(have, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		d.warn("cgroups", "Limits of that kind are refused; boot without cgroup_disable=, or use a kernel that has them",
			"%s without the controllers %s", mode, strings.Join(missing, ", "))
		return
	}
	d.ok("cgroups", "%s with %s", mode, strings.Join(have, " "))
}

func (d *examination) overlay() {
	const name = "overlay"
	if !procfs.HasFilesystem("overlay") {
		if err := rootfs.ModuleLoadable("overlay", d.opts.Prepare.ModulesDir); err != nil {
			d.warn(name, "Add overlay.ko and modules.dep to the ramdisk, or use a kernel with CONFIG_OVERLAY_FS=y",
				"not in the kernel, and no module (%s): every layer is stored with a full copy of those below", oneLine(err))
			return
		}
		d.ok(name, "careen agent will load the module")
		return
	}
	where, err := d.tryStore()
	if err != nil {
		d.warn(name, "Give the store a file system that overlays work on, with --root",
			"does not work on %s (%s): every layer is stored with a full copy of those below", where, oneLine(err))
		return
	}
	d.ok(name, "works on %s", where)
}

// tryStore tries an overlay at the place of the store.
func (d *examination) tryStore() (where string, err error) {
	l, err := rootfs.InspectStore(d.opts.Prepare.StoreDir)
	if err != nil {
		return d.opts.Prepare.StoreDir, err
	}
	if l.Overlay || d.opts.Prepare.Store == rootfs.StoreDirectory {
		if !l.Overlay {
			err = fmt.Errorf("%s", l.OverlayError)
		}
		return l.StoreFS, err
	}
	return "the store's tmpfs", rootfs.TryOverlayOnTmpfs()
}

// store compares the room in the store with the memory that it can use.
func (d *examination) store() {
	const name = "store"
	l, err := rootfs.InspectStore(d.opts.Prepare.StoreDir)
	if err != nil {
		d.fail(name, "Give a directory that careen can write to with --root", "%s", oneLine(err))
		return
	}
	free, what := l.StoreFree, fmt.Sprintf("%s on %s", l.StoreDir, l.StoreFS)
	available := availableMemory()
	mounted := rootfs.IsMounted(l.StoreDir)
	if !mounted && d.opts.Prepare.Store != rootfs.StoreDirectory && (d.opts.Prepare.Store == rootfs.StoreTmpfs || l.StoreFS == "tmpfs" || l.StoreFS == "ramfs" || !l.Overlay) {
		size, err := d.opts.Prepare.TmpfsSize()
		if err != nil {
			d.fail(name, "Give the node more memory, or the store a disk with --root", "%s", oneLine(err))
			return
		}
		free, what = size, "a new tmpfs"
		l.StoreTmpfs = true
	}
	const small, tiny = 256 << 20, 16 << 20
	switch {
	case free < tiny:
		d.fail(name, "Remove images with careen rmi, or give a larger store with --root or --store-size", "%s has %d MiB free", what, free>>20)
	case free < small:
		d.warn(name, "Few images fit; give a larger store with --root or --store-size", "%s has %d MiB free", what, free>>20)
	case l.StoreTmpfs && free > available:
		d.warn(name, "Give a smaller store with --store-size, or the node more memory",
			"%s may still grow by %d MiB, but only %d MiB of memory are available", what, free>>20, available>>20)
	case mounted && l.StoreInodes > 0 && l.StoreInodesFree < 10000:
		d.warn(name, "Remove images with careen rmi", "%s has room for %d files only", what, l.StoreInodesFree)
	default:
		d.ok(name, "%s with %d MiB free", what, free>>20)
	}
}

// availableMemory is in bytes; 0 if unknown.
func availableMemory() int64 {
	m, err := procfs.MemInfo()
	if err != nil {
		return 0
	}
	return m.Available
}

func (d *examination) memory() {
	m, err := procfs.MemInfo()
	total, available := m.Total, m.Available
	if err != nil {
		d.warn("memory", "Mount /proc", "cannot read /proc/meminfo")
		return
	}
	if available < 128<<20 {
		d.warn("memory", "Give the node more memory, or remove images that lie in it", "%d of %d MiB are available", available>>20, total>>20)
		return
	}
	d.ok("memory", "%d of %d MiB are available", available>>20, total>>20)
}

// withDefaults returns the options with what empty fields stand for.
func (o Options) withDefaults() Options {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.CertDirs == nil {
		o.CertDirs = []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	}
	if o.BuildTime.IsZero() {
		o.BuildTime = rootfs.BuildTime()
	}
	return o
}

// clock checks the clock. A node with an empty battery starts with a clock at which no
// certificate is valid yet.
func (d *examination) clock() {
	const remedy = "Set the clock before pulling, for example with chronyd -q or from the BMC"
	behind := remedy + ", or let careen set it from the registry's clock: [clock] repair = true in careen.toml"
	if d.opts.ClockRepair {
		behind = "careen sets it from the registry's clock when it pulls: [clock] repair in careen.toml"
	}
	now := time.Now()
	if now.Before(d.opts.BuildTime) {
		d.warn("clock", behind, "it is %s, but careen was built on %s: certificates will not be valid yet",
			now.UTC().Format(time.RFC3339), d.opts.BuildTime.UTC().Format(time.DateOnly))
		return
	}
	if now.Year() > d.opts.BuildTime.Year()+10 {
		d.warn("clock", remedy, "it is %s, ten years after careen was built: certificates will have expired", now.UTC().Format(time.RFC3339))
		return
	}
	if epoch, err := strconv.ParseInt(file.ReadWord("/sys/class/rtc/rtc0/since_epoch"), 10, 64); err == nil {
		if off := time.Duration(math.Abs(float64(now.Sub(time.Unix(epoch, 0))))); off > 24*time.Hour {
			d.warn("clock", "Write the right time to the hardware clock, or it is wrong again after a reboot",
				"it is %s, but %s on the hardware clock", now.UTC().Format(time.RFC3339), time.Unix(epoch, 0).UTC().Format(time.RFC3339))
			return
		}
	}
	d.ok("clock", "%s", now.UTC().Format(time.RFC3339))
}
