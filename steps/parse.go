package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// maxSteps bounds the steps of one file.
const maxSteps = 1000

// parseSteps reads a steps file. See [LoadSteps].
func parseSteps(path string, data []byte, reserved []string) (*Catalogue, error) {
	p := stepsParser{cat: &Catalogue{Path: path}, reserved: map[string]bool{}}
	for _, name := range reserved {
		p.reserved[name] = true
	}
	root, err := p.document(data)
	if err != nil {
		return nil, p.fail(err)
	}
	if root == nil {
		return p.cat, nil
	}
	if err := p.root(root); err != nil {
		return nil, p.fail(err)
	}
	return p.cat, nil
}

// stepsParser carries the catalogue as it grows.
type stepsParser struct {
	cat      *Catalogue
	reserved map[string]bool
}

// fail makes the operator's error of one found while parsing.
func (p *stepsParser) fail(err error) error {
	var at *yamlError
	if errors.As(err, &at) {
		return stepsError(p.cat.Path, at.line, "%s", at.msg)
	}
	return stepsError(p.cat.Path, 0, "%s", err)
}

var reYAMLLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
})

// document returns the file's one value.
func (p *stepsParser) document(data []byte) (any, error) {
	if bytes.IndexByte(data, 0) >= 0 {
		return nil, errors.New("the file holds a NUL byte")
	}
	if err := checkLines(data); err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := decode(decoder, &doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := decode(decoder, &more); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, err
		}
		return nil, &yamlError{more.Line, "the file must hold one YAML document"}
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil, nil
	}
	if err := checkAnchors(doc.Content[0], map[string]int{}, 0); err != nil {
		return nil, err
	}
	var b builder
	return b.value(doc.Content[0], 0)
}

// checkLines refuses what the Go module and PyYAML do not read alike: tabs, which
// depending on their place PyYAML takes for an error, and directives.
func checkLines(data []byte) error {
	for i, line := range bytes.Split(data, []byte{'\n'}) {
		comment := bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte{'#'})
		switch {
		case bytes.HasPrefix(line, []byte{'%'}):
			return &yamlError{i + 1, "a directive: the file needs none, and none is supported"}
		case !comment && bytes.IndexByte(line, '\t') >= 0:
			return &yamlError{i + 1, `a tab: indent and separate with blanks, and write \t in double quotes`}
		}
	}
	return nil
}

// decode turns the decoder's own errors into ones with a line.
func decode(d *yaml.Decoder, n *yaml.Node) error {
	err := d.Decode(n)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if m := reYAMLLine().FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
		line, convErr := strconv.Atoi(m[1])
		if convErr == nil {
			return &yamlError{line, "not valid YAML: " + m[2]}
		}
	}
	return fmt.Errorf("not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
}

// root reads the top of the file: the keys steps and careen. IPA ignores any
// other key, and so the careen one.
func (p *stepsParser) root(v any) error {
	top, ok := v.(*mapping)
	if !ok {
		return &yamlError{1, fmt.Sprintf("the file must contain a mapping with a 'steps' key, got %s.", pyType(v))}
	}
	for _, e := range top.entries {
		if e.key != "steps" && e.key != "careen" {
			p.warn(e.key, e.line, "unknown key %q is ignored", e.key)
		}
	}
	if e, ok := top.get("steps"); ok && pyTruth(e.value) {
		list, ok := e.value.([]any)
		if !ok {
			return &yamlError{e.line, fmt.Sprintf("'steps' must be a list, got %s.", pyType(e.value))}
		}
		if len(list) > maxSteps {
			return &yamlError{e.line, fmt.Sprintf("more than %d steps", maxSteps)}
		}
		for i, item := range list {
			if err := p.step(i, e.line, item); err != nil {
				return err
			}
		}
		if err := p.checkInputs(); err != nil {
			return err
		}
	}
	if e, ok := top.get("careen"); ok {
		return p.extensions(e)
	}
	return nil
}

func (p *stepsParser) warn(key string, line int, format string, args ...any) {
	p.cat.Warnings = append(p.cat.Warnings, Warning{
		Key: key, From: p.cat.Path + ":" + strconv.Itoa(line), Message: fmt.Sprintf(format, args...),
	})
}

// stepReader reads the keys of one step.
type stepReader struct {
	m    *mapping
	name string
}

func (r *stepReader) err(line int, format string, args ...any) error {
	return &yamlError{line, fmt.Sprintf("step '%s': ", r.name) + fmt.Sprintf(format, args...)}
}

// required returns a key that IPA reads without a default.
func (r *stepReader) required(key string) (entry, error) {
	e, ok := r.m.get(key)
	if !ok {
		return e, r.err(r.m.line, "Missing required key '%s' in cleaning step: %s", key, r.name)
	}
	return e, nil
}

func (r *stepReader) boolean(key string) (bool, error) {
	e, err := r.required(key)
	if err != nil {
		return false, err
	}
	b, ok := e.value.(bool)
	if !ok {
		return false, r.err(e.line, "'%s' must be true or false, got %s", key, pyType(e.value))
	}
	return b, nil
}

func (r *stepReader) text(key string) (string, error) {
	e, err := r.required(key)
	if err != nil {
		return "", err
	}
	s, ok := e.value.(string)
	if !ok || s == "" {
		return "", r.err(e.line, "'%s' must be a non-empty string, got %s", key, pyType(e.value))
	}
	return s, nil
}

var stepKeys = []string{
	"name", "image", "interface", "priority", "reboot_requested", "abortable", "pull_options", "run_options", "careen",
}

// step reads one entry of the list.
func (p *stepsParser) step(i, listLine int, item any) error {
	m, ok := item.(*mapping)
	if !ok {
		return &yamlError{listLine, fmt.Sprintf("step %d: each container step must be a mapping, got %s.", i+1, pyType(item))}
	}
	r := &stepReader{m: m, name: "<unnamed>"}
	if e, ok := m.get("name"); ok {
		if name, isString := e.value.(string); isString && name != "" {
			r.name = name
		}
	}
	for _, key := range []string{"name", "image"} {
		if e, ok := m.get(key); !ok || !pyTruth(e.value) {
			return r.err(m.line, "Container step '%s' is missing the required '%s' key.", r.name, key)
		}
	}
	step := yamlStep{line: m.line}
	if err := r.fill(&step); err != nil {
		return err
	}
	if err := p.checkName(r, step.name); err != nil {
		return err
	}
	for _, e := range m.entries {
		if !contains(stepKeys, e.key) {
			p.warn(step.name, e.line, "step '%s': unknown key %q is ignored", step.name, e.key)
		}
	}
	p.cat.steps = append(p.cat.steps, step)
	return nil
}

// fill reads all keys of a step into it.
func (r *stepReader) fill(step *yamlStep) (err error) {
	if step.name, err = r.text("name"); err != nil {
		return err
	}
	if step.image, err = r.text("image"); err != nil {
		return err
	}
	priority, err := r.required("priority")
	if err != nil {
		return err
	}
	n, ok := priority.value.(*big.Int)
	if !ok || !n.IsInt64() || n.Int64() < -1<<31 || n.Int64() >= 1<<31 {
		return r.err(priority.line, "'priority' must be a whole number, got %s", pyType(priority.value))
	}
	step.priority = int(n.Int64())
	if step.iface, err = r.text("interface"); err != nil {
		return err
	}
	if step.reboot, err = r.boolean("reboot_requested"); err != nil {
		return err
	}
	if step.abortable, err = r.boolean("abortable"); err != nil {
		return err
	}
	if step.pullOpts, err = r.options("pull_options"); err != nil {
		return err
	}
	if step.runOp, err = r.options("run_options"); err != nil {
		return err
	}
	step.limits, err = r.limits()
	return err
}

// options returns an option list as it stands, once it is known to be readable.
func (r *stepReader) options(key string) (any, error) {
	e, ok := r.m.get(key)
	if !ok || !pyTruth(e.value) {
		return nil, nil
	}
	if _, err := asOptions(e.value); err != nil {
		return nil, r.err(e.line, "'%s': %s", key, err)
	}
	return e.value, nil
}

// checkName refuses names that would hide a method of a hardware manager, and
// warns of names that cannot work.
func (p *stepsParser) checkName(r *stepReader, name string) error {
	e, _ := r.m.get("name")
	if Reserved(name) || p.reserved[name] {
		return &yamlError{e.line, fmt.Sprintf("Container step '%s' collides with an existing hardware manager method "+
			"and would shadow it. Rename it in %s.", name, p.cat.Path)}
	}
	if contains(conductorNames, name) {
		p.warn(name, e.line, "step '%s': the conductor keeps this name for itself and will not run the step", name)
	}
	if strings.HasPrefix(name, "_") {
		p.warn(name, e.line, "step '%s': IPA never runs a step whose name starts with an underscore", name)
	}
	for _, other := range p.cat.steps {
		if other.name == name {
			p.warn(name, e.line, "step '%s' is there twice; the one on line %d runs", name, other.line)
			break
		}
	}
	return nil
}

// conductorNames are steps that Ironic's conductor carries out itself.
var conductorNames = []string{"power_on", "power_off", "reboot", "hold", "wait"}
