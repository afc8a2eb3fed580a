package steps

import (
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

var limitKeys = []string{"timeout", "silence_timeout", "reboot_exit_codes", "critical", "inputs"}

// limits reads the mapping careen of a step.
func (r *stepReader) limits() (Limits, error) {
	var l Limits
	e, ok := r.m.get("careen")
	if !ok || e.value == nil {
		return l, nil
	}
	m, ok := e.value.(*mapping)
	if !ok {
		return l, r.err(e.line, "'careen' must be a mapping, got %s", pyType(e.value))
	}
	for _, e := range m.entries {
		var err error
		switch e.key {
		case "timeout":
			l.Timeout, err = yamlDuration(e.value)
		case "silence_timeout":
			l.SilenceTimeout, err = yamlDuration(e.value)
		case "reboot_exit_codes":
			l.RebootExitCodes, err = yamlExitCodes(e.value)
		case "critical":
			if l.Critical, ok = e.value.(bool); !ok {
				err = fmt.Errorf("must be true or false, got %s", pyType(e.value))
			}
		case "inputs":
			l.Inputs, err = yamlInputs(e.value)
		default:
			err = fmt.Errorf("is not one of %s", strings.Join(limitKeys, ", "))
		}
		if err != nil {
			return l, r.err(e.line, "'careen.%s': %s", e.key, err)
		}
	}
	return l, nil
}

func yamlDuration(v any) (time.Duration, error) {
	s, ok := v.(string)
	if !ok {
		return 0, fmt.Errorf(`must be a time such as "90s" or "30m", got %s`, pyType(v))
	}
	return parseDuration(s)
}

func yamlExitCodes(v any) ([]int, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("must be a list of numbers, got %s", pyType(v))
	}
	codes := make([]int, 0, len(list))
	for _, item := range list {
		n, ok := item.(*big.Int)
		if !ok || !n.IsInt64() {
			return nil, fmt.Errorf("must be a list of numbers, got an item of type %s", pyType(item))
		}
		codes = append(codes, int(n.Int64()))
	}
	return codes, checkExitCodes(codes)
}

// maxInputs bounds the inputs of one step.
const maxInputs = 16

func yamlInputs(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok || len(list) > maxInputs {
		return nil, fmt.Errorf("must be a list of at most %d steps of this file", maxInputs)
	}
	names := make([]string, 0, len(list))
	for _, item := range list {
		name, ok := item.(string)
		if !ok || slices.Contains(names, name) {
			return nil, fmt.Errorf("must be a list of different steps of this file, got %v", item)
		}
		names = append(names, name)
	}
	return names, nil
}

// checkInputs refuses inputs that are no steps of the file: a step without an image of
// its own says whatever the image says that a request names.
func (p *stepsParser) checkInputs() error {
	for _, step := range p.cat.steps {
		for _, name := range step.limits.Inputs {
			if _, ok := p.cat.lookup(name); !ok {
				return &yamlError{step.line, fmt.Sprintf("step '%s': 'careen.inputs': %q is no step of this file", step.name, name)}
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
func (p *stepsParser) extensions(e entry) error {
	if e.value == nil {
		return nil
	}
	m, ok := e.value.(*mapping)
	if !ok {
		return &yamlError{e.line, fmt.Sprintf("'careen' must be a mapping, got %s", pyType(e.value))}
	}
	for _, e := range m.entries {
		switch e.key {
		case "aliases":
			if err := p.addAliases(e); err != nil {
				return err
			}
		case "sequence":
			b, ok := e.value.(bool)
			if !ok {
				return &yamlError{e.line, fmt.Sprintf("'careen.sequence' must be true or false, got %s", pyType(e.value))}
			}
			p.cat.sequence = b
		default:
			return &yamlError{e.line, fmt.Sprintf("'careen.%s' is not one of aliases, sequence", e.key)}
		}
	}
	if _, taken := p.cat.lookup(SequenceStep); taken && p.cat.sequence {
		return &yamlError{e.line, "a step of the file has the name " + SequenceStep}
	}
	return nil
}

func (p *stepsParser) addAliases(e entry) error {
	list, ok := e.value.([]any)
	if !ok || len(list) > maxAliases {
		return &yamlError{e.line, fmt.Sprintf("'careen.aliases' must be a list of at most %d names", maxAliases)}
	}
	for _, item := range list {
		name, ok := item.(string)
		if !ok || !reAlias().MatchString(name) {
			return &yamlError{e.line, fmt.Sprintf("'careen.aliases': %v is not a name of letters, digits and underscores", item)}
		}
		_, taken := p.cat.lookup(name)
		switch {
		case taken || name == SequenceStep || slices.Contains(p.cat.aliases, name):
			return &yamlError{e.line, fmt.Sprintf("'careen.aliases': the name %s is there twice", name)}
		case Reserved(name) || p.reserved[name] || contains(conductorNames, name):
			return &yamlError{e.line, fmt.Sprintf("'careen.aliases': the name %s is reserved", name)}
		}
		p.cat.aliases = append(p.cat.aliases, name)
	}
	return nil
}
