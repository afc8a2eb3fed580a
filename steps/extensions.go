package steps

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/careen-project/careen/steps/ipa"
)

var limitKeys = []string{"timeout", "silence_timeout", "reboot_exit_codes", "critical", "inputs"}

// limits reads the mapping careen of a step.
func (r *stepReader) limits() Limits {
	var l Limits
	careen, _ := r.m.Get("careen")
	if careen.Plain() != nil && !isType[map[string]any](careen) {
		r.fail(careen, "'careen' must be a mapping, got %s", pyType(careen))
	}
	for _, e := range careen.Entries() {
		var err error
		switch e.Key {
		case "timeout":
			l.Timeout, err = yamlDuration(e.Value)
		case "silence_timeout":
			l.SilenceTimeout, err = yamlDuration(e.Value)
		case "reboot_exit_codes":
			l.RebootExitCodes, err = yamlExitCodes(e.Value)
		case "critical":
			l.Critical, err = e.Boolean()
		case "inputs":
			l.Inputs, err = yamlInputs(e.Value)
		default:
			err = fmt.Errorf("is not one of %s", strings.Join(limitKeys, ", "))
		}
		if err != nil {
			r.fail(e.Value, "'careen.%s': %s", e.Key, err)
		}
	}
	return l
}

func yamlDuration(v ipa.Value) (time.Duration, error) {
	s, ok := v.Plain().(string)
	if !ok {
		return 0, fmt.Errorf(`must be a time such as "90s" or "30m", got %s`, pyType(v))
	}
	return parseDuration(s)
}

func yamlExitCodes(v ipa.Value) ([]int, error) {
	if !isType[[]any](v) {
		return nil, fmt.Errorf("must be a list of numbers, got %s", pyType(v))
	}
	var codes []int
	for _, item := range v.Items() {
		n, ok := item.Plain().(int)
		if !ok {
			return nil, fmt.Errorf("must be a list of numbers, got an item of type %s", pyType(item))
		}
		codes = append(codes, n)
	}
	return codes, checkExitCodes(codes)
}

// maxInputs bounds the inputs of one step.
const maxInputs = 16

func yamlInputs(v ipa.Value) ([]string, error) {
	if !isType[[]any](v) || len(v.Items()) > maxInputs {
		return nil, fmt.Errorf("must be a list of at most %d steps of this file", maxInputs)
	}
	var names []string
	for _, item := range v.Items() {
		name, ok := item.Plain().(string)
		if !ok || slices.Contains(names, name) {
			return nil, fmt.Errorf("must be a list of different steps of this file, got %v", item.Plain())
		}
		names = append(names, name)
	}
	return names, nil
}

// checkInputs refuses inputs that are not steps of the file. A built-in step runs the
// image that a request names, so its result cannot be trusted.
func (p *stepsParser) checkInputs() error {
	for _, step := range p.cat.steps {
		for _, name := range step.limits.Inputs {
			if _, ok := p.cat.lookup(name); !ok {
				return errorAt(ipa.Value{Line: step.line}, "step '%s': 'careen.inputs': %q is not a step of this file", step.name, name)
			}
		}
	}
	return nil
}

// maxAliases bounds the aliases of one file.
const maxAliases = 64

var reAlias = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]{0,62}$`)
})

// extensions reads the top-level key careen: aliases of the generic step and the
// switch for sequences.
func (p *stepsParser) extensions(careen ipa.Value) error {
	if careen.Plain() != nil && !isType[map[string]any](careen) {
		return errorAt(careen, "'careen' must be a mapping, got %s", pyType(careen))
	}
	for _, e := range careen.Entries() {
		var err error
		switch e.Key {
		case "aliases":
			err = p.addAliases(e.Value)
		case "sequence":
			p.cat.sequence, err = e.Boolean()
		default:
			err = errors.New("is not one of aliases, sequence")
		}
		if err != nil {
			return errorAt(e.Value, "'careen.%s' %w", e.Key, err)
		}
	}
	if _, taken := p.cat.lookup(SequenceStep); taken && p.cat.sequence {
		return errorAt(careen, "a step of the file has the name %s", SequenceStep)
	}
	return nil
}

func (p *stepsParser) addAliases(v ipa.Value) error {
	if !isType[[]any](v) || len(v.Items()) > maxAliases {
		return fmt.Errorf("must be a list of at most %d names", maxAliases)
	}
	for _, item := range v.Items() {
		name, ok := item.Plain().(string)
		if !ok || !reAlias().MatchString(name) {
			return fmt.Errorf("must be names of letters, digits and underscores, got %v", item.Plain())
		}
		_, taken := p.cat.lookup(name)
		switch {
		case taken || name == SequenceStep || slices.Contains(p.cat.aliases, name):
			return fmt.Errorf("has the name %s, which is there twice", name)
		case ipa.Reserved(name) || p.reserved[name] || contains(conductorNames, name):
			return fmt.Errorf("has the name %s, which is reserved", name)
		}
		p.cat.aliases = append(p.cat.aliases, name)
	}
	return nil
}
