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

// RequiresLabel is the label with an image's requirements of the node: see
// [ParseRequirements]. Only careen reads it.
const RequiresLabel = "io.careen.requires"

// maxRequires limits the label in bytes, maxRequirements the number of its entries.
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
	// n is the number of an entry with a number.
	n int64
}

// Meaning returns the requirement in words.
func (r Requirement) Meaning() string { return strings.ReplaceAll(r.kind.meaning, "VALUE", r.value) }

// requirementKind is one kind of entry.
type requirementKind struct {
	// form is the syntax; without "=" or ">=" the entry has no value.
	form, meaning string
	valid         func(value string) (n int64, ok bool)
	// check adds one finding. Most use a check of [Run].
	check func(d *examination, r Requirement)
	// comes says that loading a module can provide it, module that it is a module.
	comes, module bool
}

// requirementKinds are all kinds by the name before the sign.
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

// ParseRequirements parses the label: entries separated by commas, with optional white
// space around them. An unknown or invalid entry is an error: ignoring it would run a tool
// where its vendor forbids it. The error has no fault code; [Require] adds one.
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
		return r, fmt.Errorf("unknown requirement %q", entry)
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

// isPath accepts an absolute, clean path of printable characters without spaces.
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

// kernelVersion parses the numbers at the beginning of a release; missing ones are 0.
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
		err = errors.New("it is not a device")
	}
	if err != nil {
		d.warn("device", "Check that the node has the hardware and that its driver is loaded", "%s", reason(err))
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
		d.warn("module", "Load it before the step, or run the step with --privileged, with which careen loads it", "it is not loaded")
		return
	}
	d.warn("module", "Put the module and modules.dep into the ramdisk, or use a kernel that has it built in", "the running kernel has no such module")
}

// loadable reports whether r is a module with a file.
func (d *examination) loadable(r Requirement) bool {
	return r.kind.module && rootfs.ModuleLoadable(r.value, d.opts.Prepare.ModulesDir) == nil
}

// reason returns an error's text without its path.
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
	// Label is the value of [RequiresLabel] that applies to the container.
	Label string
	// Load allows to load missing kernel modules that are required.
	Load bool
	// ModulesDir is as in [rootfs.PrepareOptions].
	ModulesDir string
}

// deviceTime is the time that a device may need to appear after its driver is loaded.
const deviceTime = 3 * time.Second

// Require compares the node with the requirements of an image. It loads modules only if
// nothing else is missing, and returns the loaded ones, one line each. The error has the
// code [fault.Requirement]: it names everything that is missing, or says what is wrong
// with the label. A canceled ctx gives its error.
func Require(ctx context.Context, opts RequireOptions) (loaded []string, err error) {
	list, err := ParseRequirements(opts.Label)
	if err != nil {
		return nil, &fault.Error{Code: fault.Requirement, Op: "run", Subject: opts.Image, Err: err,
			Reason: fmt.Sprintf("its label %s is invalid: %v", RequiresLabel, err),
			Remedy: "Correct the label, use a newer careen, or replace it with --label " + RequiresLabel + "=..."}
	}
	d := &examination{opts: Options{Prepare: rootfs.PrepareOptions{ModulesDir: opts.ModulesDir}}}
	missing := d.unmet(list)
	if opts.Load && len(missing) > 0 && d.mayCome(missing) {
		if loaded, err = d.load(missing); err != nil {
			return loaded, &fault.Error{Code: fault.Requirement, Op: "run", Subject: opts.Image, Err: err,
				Reason: "it requires a module that cannot be loaded: " + oneLine(err), Remedy: fault.RemedyOf(err)}
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

// unmetRequirement is a requirement with the finding.
type unmetRequirement struct {
	Requirement
	found, remedy string
}

type unmetList []unmetRequirement

// unmet checks all requirements and returns the unmet ones.
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

// mayCome reports whether loading modules can provide everything that is missing.
func (d *examination) mayCome(missing unmetList) bool {
	return !slices.ContainsFunc(missing, func(u unmetRequirement) bool {
		return !u.kind.comes || u.kind.module && !d.loadable(u.Requirement)
	})
}

// load loads the missing modules.
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

// fault returns the error with all unmet requirements on one line.
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
