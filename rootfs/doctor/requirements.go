package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/file"
)

// RequiresLabel is the label by which an image says what it needs of the node: see
// [ParseRequirements]. It means something to careen only.
const RequiresLabel = "io.careen.requires"

// maxRequires bounds the label in bytes, and maxRequirements its entries.
const (
	maxRequires     = 4096
	maxRequirements = 64
)

// Requirement is one entry of the label [RequiresLabel].
type Requirement struct {
	// Text is the entry as it is written.
	Text  string
	kind  *requirementKind
	value string
	// n is the value of an entry that counts something.
	n int64
}

// Meaning says in words what is required.
func (r Requirement) Meaning() string { return strings.ReplaceAll(r.kind.meaning, "VALUE", r.value) }

// requirementKind is one kind of entry.
type requirementKind struct {
	// form is how it is written; without "=" or ">=" it has no value.
	form, meaning string
	valid         func(value string) (n int64, ok bool)
	// check adds one finding, most by the very check of [Doctor].
	check func(d *examination, r Requirement)
	// comes says that loading a module can bring it, module that it is one.
	comes, module bool
}

// requirementKinds are all kinds, by the name before the sign.
var requirementKinds = sync.OnceValue(func() map[string]*requirementKind {
	doctors := func(check func(*examination)) func(*examination, Requirement) {
		return func(d *examination, _ Requirement) { check(d) }
	}
	return map[string]*requirementKind{
		"dev-mem":   {form: "dev-mem", meaning: "/dev/mem", check: doctors((*examination).devMem)},
		"ipmi":      {form: "ipmi", meaning: "an IPMI device", check: doctors((*examination).ipmi), comes: true},
		"modules":   {form: "modules", meaning: "the modules of the running kernel", check: doctors((*examination).modulesDir)},
		"lockdown":  {form: "lockdown=none", meaning: "a kernel that is not locked down", valid: isNone, check: doctors((*examination).lockdown)},
		"module":    {form: "module=NAME", meaning: "the kernel module VALUE", valid: isModule, check: (*examination).hasModule, comes: true, module: true},
		"device":    {form: "device=/dev/PATH", meaning: "the device VALUE", valid: isDevicePath, check: (*examination).hasDevice, comes: true},
		"file":      {form: "file=/PATH", meaning: "VALUE on the node", valid: isPath, check: (*examination).hasFile},
		"hugepages": {form: "hugepages=N", meaning: "VALUE free huge pages of 2 MiB", valid: isCount, check: (*examination).hasHugepages},
		"memory":    {form: "memory=SIZE", meaning: "VALUE of available memory", valid: isSize, check: (*examination).hasMemory},
		"kernel":    {form: "kernel>=X.Y", meaning: "Linux VALUE or later", valid: isVersion, check: (*examination).hasKernel},
	}
})

// ParseRequirements reads the label: entries with commas between, white space around
// them does not count. It is strict, since an entry that is passed over would let a
// tool run where its vendor says that it must not.
func ParseRequirements(label string) ([]Requirement, error) {
	if strings.TrimSpace(label) == "" {
		return nil, nil
	}
	if len(label) > maxRequires {
		return nil, fmt.Errorf("it is longer than %d bytes", maxRequires)
	}
	var list []Requirement
	for entry := range strings.SplitSeq(label, ",") {
		r, err := parseRequirement(strings.TrimSpace(entry))
		if err != nil {
			return nil, err
		}
		if list = append(list, r); len(list) > maxRequirements {
			return nil, fmt.Errorf("it has more than %d entries", maxRequirements)
		}
	}
	return list, nil
}

func parseRequirement(entry string) (r Requirement, err error) {
	if entry == "" {
		return r, errors.New("it has an empty entry")
	}
	sign := "="
	if i := strings.IndexAny(entry, "<>="); i >= 0 && entry[i] != '=' {
		sign = ">="
	}
	name, value, valued := strings.Cut(entry, sign)
	kind := requirementKinds()[name]
	if kind == nil {
		return r, fmt.Errorf("it asks for %q, which this careen does not know", entry)
	}
	if valued != (kind.valid != nil) || valued && !strings.HasPrefix(kind.form, name+sign) {
		return r, fmt.Errorf("%q is not written like %s", entry, kind.form)
	}
	r = Requirement{Text: entry, kind: kind, value: value}
	if kind.valid != nil {
		var ok bool
		if r.n, ok = kind.valid(value); !ok {
			return r, fmt.Errorf("%q is not written like %s", entry, kind.form)
		}
	}
	return r, nil
}

func isNone(v string) (int64, bool) { return 0, v == "none" }

var reModule = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`) })

func isModule(v string) (int64, bool) { return 0, reModule().MatchString(v) }

// isPath takes an absolute path without detours, of characters that can be printed.
func isPath(v string) (int64, bool) {
	odd := strings.ContainsFunc(v, func(c rune) bool { return c == ' ' || c == utf8.RuneError || !strconv.IsPrint(c) })
	return 0, path.IsAbs(v) && path.Clean(v) == v && v != "/" && !odd
}

func isDevicePath(v string) (int64, bool) {
	_, ok := isPath(v)
	return 0, ok && strings.HasPrefix(v, "/dev/")
}

func isCount(v string) (int64, bool) {
	n, err := strconv.ParseUint(v, 10, 31)
	return int64(n), err == nil && n > 0
}

func isSize(v string) (int64, bool) {
	n, err := units.RAMInBytes(v)
	return n, err == nil && n > 0
}

var reVersion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\d{1,3}\.\d{1,4}(\.\d{1,4})?$`) })

func isVersion(v string) (int64, bool) { return 0, reVersion().MatchString(v) }

// kernelVersion reads the numbers at the beginning of a release; those that are not
// there are 0.
func kernelVersion(release string) (numbers [3]int, ok bool) {
	n, _ := fmt.Sscanf(release, "%d.%d.%d", &numbers[0], &numbers[1], &numbers[2])
	return numbers, n >= 2
}

func (d *examination) hasKernel(r Requirement) {
	release := rootfs.KernelRelease()
	want, _ := kernelVersion(r.value)
	if have, ok := kernelVersion(release); !ok || slices.Compare(have[:], want[:]) < 0 {
		d.warn("kernel", "Use a ramdisk with a newer kernel", "Linux %s", release)
		return
	}
	d.ok("kernel", "Linux %s", release)
}

func (d *examination) hasMemory(r Requirement) {
	if available := availableMemory(); available < r.n {
		d.warn("memory", "Remove images that lie in memory, or take a node with more", "%d MiB are available", available>>20)
		return
	}
	d.ok("memory", "enough")
}

func (d *examination) hasHugepages(r Requirement) {
	free, err := strconv.ParseInt(file.ReadWord("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"), 10, 64)
	if err != nil || free < r.n {
		d.warn("hugepages", "Reserve huge pages with the kernel parameters hugepagesz=2M hugepages=N", "%d are free", free)
		return
	}
	d.ok("hugepages", "%d are free", free)
}

func (d *examination) hasDevice(r Requirement) {
	_, err := rootfs.Host().Device(r.value)
	if errors.Is(err, fs.ErrInvalid) {
		err = errors.New("it is no device")
	}
	if err != nil {
		d.warn("device", "See that the node has the hardware, and that its driver is loaded", "%s", reason(err))
		return
	}
	d.ok("device", "%s", r.value)
}

func (d *examination) hasFile(r Requirement) {
	if _, err := rootfs.Host().Stat(r.value); err != nil {
		d.warn("file", "Put the file into the ramdisk", "%s", reason(err))
		return
	}
	d.ok("file", "%s", r.value)
}

func (d *examination) hasModule(r Requirement) {
	if rootfs.ModulePresent(r.value, d.opts.Prepare.ModulesDir) {
		d.ok("module", "%s", r.value)
		return
	}
	if d.loadable(r) {
		d.warn("module", "Load it before the step, or run the step with --privileged: careen loads it then", "it is not loaded")
		return
	}
	d.warn("module", "Put the module and modules.dep into the ramdisk, or use a kernel that has it built in", "there is none for the running kernel")
}

// loadable reports whether r is a module that has a file.
func (d *examination) loadable(r Requirement) bool {
	return r.kind.module && rootfs.ModuleLoadable(r.value, d.opts.Prepare.ModulesDir) == nil
}

// reason is an error's text without the path that it is about.
func reason(err error) string {
	var inner error
	for inner = errors.Unwrap(err); inner != nil && errors.Unwrap(inner) != nil; {
		inner = errors.Unwrap(inner)
	}
	if inner == nil {
		inner = err
	}
	return oneLine(inner)
}

// RequireOptions are the options of [Require].
type RequireOptions struct {
	// Image is the reference of the image, for messages.
	Image string
	// Label is the value of [RequiresLabel] that holds for the container.
	Label string
	// Load has kernel modules that are required, and that are not loaded, be loaded.
	Load bool
	// ModulesDir is as in [rootfs.PrepareOptions].
	ModulesDir string
}

// deviceTime is how long a device may take to appear once its driver is loaded.
const deviceTime = 3 * time.Second

// Require holds a node against what an image says that it needs. The error has the
// code [fault.Requirement], names all that is missing, and says so also of a label
// that cannot be read. Modules are loaded only where nothing else is in the way; what
// was loaded is returned, one line each.
func Require(ctx context.Context, opts RequireOptions) (loaded []string, err error) {
	list, err := ParseRequirements(opts.Label)
	if err != nil {
		return nil, &fault.Error{Code: fault.Requirement, Op: "run", Subject: opts.Image, Err: err,
			Reason: fmt.Sprintf("its label %s cannot be followed: %v", RequiresLabel, err),
			Remedy: "Correct the label, take a careen that knows it, or replace it with --label " + RequiresLabel + "=..."}
	}
	d := &examination{opts: Options{Prepare: rootfs.PrepareOptions{ModulesDir: opts.ModulesDir}}}
	missing := d.unmet(list)
	if opts.Load && len(missing) > 0 && d.mayCome(missing) {
		if loaded, err = d.load(missing); err != nil {
			return loaded, &fault.Error{Code: fault.Requirement, Op: "run", Subject: opts.Image, Err: err,
				Reason: "it requires a module that does not load: " + oneLine(err), Remedy: fault.RemedyOf(err)}
		}
		for end := time.Now().Add(deviceTime); ; {
			missing = d.unmet(list)
			if len(missing) == 0 || len(loaded) == 0 || time.Now().After(end) || ctx.Err() != nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	if len(missing) == 0 {
		return loaded, ctx.Err()
	}
	return loaded, missing.fault(opts.Image)
}

// unmetRequirement is one with what was found in its place.
type unmetRequirement struct {
	Requirement
	found, remedy string
}

type unmetList []unmetRequirement

// unmet asks for each requirement anew.
func (d *examination) unmet(list []Requirement) (missing unmetList) {
	for _, r := range list {
		d.checks = d.checks[:0]
		r.kind.check(d, r)
		if c := d.checks[0]; c.Status != StatusOK {
			missing = append(missing, unmetRequirement{r, c.Detail, c.Remedy})
		}
	}
	return missing
}

// mayCome reports whether all that is missing can come by loading modules.
func (d *examination) mayCome(missing unmetList) bool {
	return !slices.ContainsFunc(missing, func(u unmetRequirement) bool {
		return !u.kind.comes || u.kind.module && !d.loadable(u.Requirement)
	})
}

// load loads the modules that are missing.
func (d *examination) load(missing unmetList) (loaded []string, err error) {
	for _, u := range missing {
		if !d.loadable(u.Requirement) {
			continue
		}
		var done []rootfs.Action
		if err := rootfs.LoadModule(u.value, d.opts.Prepare.ModulesDir, &done); err != nil {
			return loaded, err
		}
		for _, action := range done {
			loaded = append(loaded, "the image requires kernel modules: "+action.String())
		}
	}
	return loaded, nil
}

// fault names all of the list on one line.
func (list unmetList) fault(image string) error {
	var texts, names, remedies []string
	for _, u := range list {
		texts, names = append(texts, fmt.Sprintf("%s (%s)", u.Text, u.found)), append(names, u.Text)
		if !slices.Contains(remedies, u.remedy) {
			remedies = append(remedies, u.remedy)
		}
	}
	return &fault.Error{Code: fault.Requirement, Op: "run", Subject: image,
		Reason: "the node lacks what the image requires: " + strings.Join(texts, ", "), Remedy: strings.Join(remedies, ". "),
		Attrs: map[string]any{"unmet": names}}
}
