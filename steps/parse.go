package steps

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/careen-project/careen/steps/ipa"
)

// maxSteps bounds the steps of one file.
const maxSteps = 1000

// conductorNames are steps that Ironic's conductor carries out itself.
var conductorNames = []string{"power_on", "power_off", "reboot", "hold", "wait"}

// parseSteps reads a steps file. See [LoadSteps].
func parseSteps(path string, data []byte, reserved []string) (*Catalogue, error) {
	p := stepsParser{cat: &Catalogue{Path: path}, reserved: map[string]bool{}}
	for _, name := range reserved {
		p.reserved[name] = true
	}
	root, err := ipa.ReadYAML(data)
	if err == nil && root.Plain() != nil {
		err = p.root(root)
	}
	if err == nil {
		return p.cat, nil
	}
	var at *ipa.Error
	if errors.As(err, &at) {
		return nil, stepsError(path, at.Line, "%s", at.Err)
	}
	return nil, stepsError(path, 0, "%s", err)
}

// stepsParser carries the catalogue as it grows.
type stepsParser struct {
	cat      *Catalogue
	reserved map[string]bool
}

// errorAt is an error with the line of a value.
func errorAt(v ipa.Value, format string, args ...any) error {
	return &ipa.Error{Line: v.Line, Err: fmt.Errorf(format, args...)}
}

// pyType is the name of the value's type in Python.
func pyType(v ipa.Value) string { return ipa.Type(v.Plain()) }

func isType[T any](v ipa.Value) bool { _, ok := v.Plain().(T); return ok }

// root reads the top of the file: the keys steps and careen. IPA ignores any
// other key, and so the careen one.
func (p *stepsParser) root(top ipa.Value) error {
	if !isType[map[string]any](top) {
		return errorAt(top, "the file must contain a mapping with a 'steps' key, got %s.", pyType(top))
	}
	for _, e := range top.Entries() {
		if e.Key != "steps" && e.Key != "careen" {
			p.warn(e.Key, e.Value, "unknown key %q is ignored", e.Key)
		}
	}
	if list, ok := top.Get("steps"); ok && !ipa.Empty(list.Plain()) {
		if !isType[[]any](list) {
			return errorAt(list, "'steps' must be a list, got %s.", pyType(list))
		}
		if len(list.Items()) > maxSteps {
			return errorAt(list, "more than %d steps", maxSteps)
		}
		for i, item := range list.Items() {
			if err := p.step(i, item); err != nil {
				return err
			}
		}
		if err := p.checkInputs(); err != nil {
			return err
		}
	}
	careen, _ := top.Get("careen")
	return p.extensions(careen)
}

func (p *stepsParser) warn(key string, at ipa.Value, format string, args ...any) {
	p.cat.Warnings = append(p.cat.Warnings, Warning{
		Key: key, From: p.cat.Path + ":" + strconv.Itoa(at.Line), Message: fmt.Sprintf(format, args...),
	})
}

// stepReader reads the keys of one step. The first error stays.
type stepReader struct {
	m    ipa.Value
	name string
	err  error
}

func (r *stepReader) fail(at ipa.Value, format string, args ...any) {
	if r.err == nil {
		r.err = errorAt(at, "step '%s': %s", r.name, fmt.Sprintf(format, args...))
	}
}

// required returns a key that IPA reads without a default.
func (r *stepReader) required(key string) ipa.Value {
	v, ok := r.m.Get(key)
	if !ok {
		r.fail(r.m, "Missing required key '%s' in cleaning step: %s", key, r.name)
	}
	return v
}

func (r *stepReader) boolean(key string) bool {
	v := r.required(key)
	b, err := v.Boolean()
	if err != nil {
		r.fail(v, "'%s' %s", key, err)
	}
	return b
}

func (r *stepReader) text(key string) string {
	v := r.required(key)
	s, _ := v.Plain().(string)
	if s == "" {
		r.fail(v, "'%s' must be a non-empty string, got %s", key, pyType(v))
	}
	return s
}

func (r *stepReader) number(key string) int {
	v := r.required(key)
	n, ok := v.Plain().(int)
	if !ok || n < math.MinInt32 || n > math.MaxInt32 {
		r.fail(v, "'%s' must be a whole number, got %s", key, pyType(v))
	}
	return n
}

// options returns an option list as it stands, once it is known to be readable.
func (r *stepReader) options(key string) any {
	v, _ := r.m.Get(key)
	plain := v.Plain()
	if ipa.Empty(plain) {
		return nil
	}
	if _, err := asOptions(plain); err != nil {
		r.fail(v, "'%s': %s", key, err)
	}
	return plain
}

var stepKeys = []string{
	"name", "image", "interface", "priority", "reboot_requested", "abortable", "pull_options", "run_options", "careen",
}

// step reads one entry of the list.
func (p *stepsParser) step(i int, m ipa.Value) error {
	if !isType[map[string]any](m) {
		return errorAt(m, "step %d: each container step must be a mapping, got %s.", i+1, pyType(m))
	}
	r := &stepReader{m: m, name: "<unnamed>"}
	name, _ := m.Get("name")
	if s, _ := name.Plain().(string); s != "" {
		r.name = s
	}
	for _, key := range []string{"name", "image"} {
		if v, _ := m.Get(key); ipa.Empty(v.Plain()) {
			r.fail(m, "Container step '%s' is missing the required '%s' key.", r.name, key)
		}
	}
	step := yamlStep{
		line: m.Line, name: r.text("name"), image: r.text("image"), priority: r.number("priority"), iface: r.text("interface"),
		reboot: r.boolean("reboot_requested"), abortable: r.boolean("abortable"),
		pullOpts: r.options("pull_options"), runOpts: r.options("run_options"), limits: r.limits(),
	}
	if r.err != nil {
		return r.err
	}
	if err := p.checkName(name, step.name); err != nil {
		return err
	}
	for _, e := range m.Entries() {
		if !contains(stepKeys, e.Key) {
			p.warn(step.name, e.Value, "step '%s': unknown key %q is ignored", step.name, e.Key)
		}
	}
	if critical, _ := careenKey(m, "critical"); step.limits.Critical && step.abortable {
		p.warn(step.name, critical, "step '%s': 'critical' has no effect on an abort by Ironic, which powers the node off at once "+
			"because of abortable: true. Write abortable: false: then Ironic waits for the end of the step", step.name)
	}
	p.cat.steps = append(p.cat.steps, step)
	return nil
}

// careenKey returns a key of the mapping careen of a step.
func careenKey(m ipa.Value, key string) (ipa.Value, bool) {
	careen, _ := m.Get("careen")
	return careen.Get(key)
}

// checkName refuses names that would hide a method of a hardware manager, and
// warns of names that cannot work.
func (p *stepsParser) checkName(at ipa.Value, name string) error {
	if ipa.Reserved(name) || p.reserved[name] {
		return errorAt(at, "Container step '%s' collides with an existing hardware manager method "+
			"and would shadow it. Rename it in %s.", name, p.cat.Path)
	}
	if contains(conductorNames, name) {
		p.warn(name, at, "step '%s': Ironic's conductor has a step of this name and will not run this one", name)
	}
	if strings.HasPrefix(name, "_") {
		p.warn(name, at, "step '%s': IPA never runs a step whose name starts with an underscore", name)
	}
	for _, other := range p.cat.steps {
		if other.name == name {
			p.warn(name, at, "step '%s' is there twice; the one on line %d runs", name, other.line)
			break
		}
	}
	return nil
}
