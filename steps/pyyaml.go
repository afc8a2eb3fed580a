package steps

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// The steps file is read by PyYAML in IPA, which follows YAML 1.1: "on" is true,
// 0600 is 384 and 1:30 is 90. The Go module resolves plain scalars otherwise, so
// only its syntax tree is used, and the values are made here by PyYAML's rules.

// date is a plain YYYY-MM-DD, which PyYAML makes a date with the same text.
type date string

// mapping is a YAML mapping with the place of each key.
type mapping struct {
	line    int
	entries []entry
	index   map[string]int
}

type entry struct {
	key   string
	value any
	line  int
}

// get returns the value of key.
func (m *mapping) get(key string) (entry, bool) {
	i, ok := m.index[key]
	if !ok {
		return entry{}, false
	}
	return m.entries[i], true
}

func (m *mapping) add(e entry) {
	m.index[e.key] = len(m.entries)
	m.entries = append(m.entries, e)
}

// Bounds on what a steps file may expand to. Aliases share nodes in the tree but
// are walked each time they are named, so a small file can stand for a huge one.
const (
	maxYAMLNodes = 100_000
	maxYAMLDepth = 32
)

// yamlError is a defect of a YAML document.
type yamlError struct {
	line int
	msg  string
}

func (e *yamlError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.msg) }

func yamlErr(n *yaml.Node, format string, args ...any) error {
	return &yamlError{n.Line, fmt.Sprintf(format, args...)}
}

// checkAnchors refuses an anchor that is set twice, as PyYAML does, and a tree that
// is too deep, before aliases are looked at.
func checkAnchors(n *yaml.Node, seen map[string]int, depth int) error {
	if depth > maxYAMLDepth {
		return yamlErr(n, "the file is nested deeper than %d levels", maxYAMLDepth)
	}
	if n.Anchor != "" {
		if line, twice := seen[n.Anchor]; twice {
			return yamlErr(n, "the anchor &%s is there twice, first on line %d", n.Anchor, line)
		}
		seen[n.Anchor] = n.Line
	}
	for _, child := range n.Content {
		if err := checkAnchors(child, seen, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// builder turns a tree into values and counts what it makes.
type builder struct{ nodes int }

// value returns nil, bool, *big.Int, pyFloat, string, date, []any or *mapping.
func (b *builder) value(n *yaml.Node, depth int) (any, error) {
	if b.nodes++; b.nodes > maxYAMLNodes {
		return nil, yamlErr(n, "the file has more than %d values, aliases counted each time", maxYAMLNodes)
	}
	if depth > maxYAMLDepth {
		return nil, yamlErr(n, "the file is nested deeper than %d levels", maxYAMLDepth)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return b.value(n.Alias, depth+1)
	case yaml.ScalarNode:
		return scalar(n)
	case yaml.SequenceNode:
		if err := checkTag(n, "!!seq"); err != nil {
			return nil, err
		}
		list := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			v, err := b.value(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.MappingNode:
		return b.mapping(n, depth)
	}
	return nil, yamlErr(n, "unexpected kind of node")
}

// checkTag refuses tags on collections: sets, ordered maps and custom types.
func checkTag(n *yaml.Node, plain string) error {
	if n.Style&yaml.TaggedStyle != 0 && n.ShortTag() != plain {
		return yamlErr(n, "the tag %s is not supported", n.Tag)
	}
	return nil
}

func (b *builder) mapping(n *yaml.Node, depth int) (any, error) {
	if err := checkTag(n, "!!map"); err != nil {
		return nil, err
	}
	m := &mapping{line: n.Line, index: map[string]int{}}
	var merged []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		keyNode, valueNode := n.Content[i], n.Content[i+1]
		if isMerge(keyNode) {
			more, err := b.merge(valueNode, depth)
			if err != nil {
				return nil, err
			}
			merged = append(merged, more...)
			continue
		}
		key, err := b.value(keyNode, depth+1)
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return nil, yamlErr(keyNode, "a key must be a string, got %s", pyType(key))
		}
		if first, ok := m.get(name); ok {
			return nil, yamlErr(keyNode, "the key %q is there twice, first on line %d", name, first.line)
		}
		v, err := b.value(valueNode, depth+1)
		if err != nil {
			return nil, err
		}
		m.add(entry{name, v, keyNode.Line})
	}
	for _, e := range merged {
		if _, ok := m.get(e.key); !ok { // own keys and earlier merges win
			m.add(e)
		}
	}
	return m, nil
}

func isMerge(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "<<" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|
		yaml.LiteralStyle|yaml.FoldedStyle) == 0 && (n.Style&yaml.TaggedStyle == 0 || n.ShortTag() == "!!merge")
}

// merge returns the entries that a "<<" key brings in.
func (b *builder) merge(n *yaml.Node, depth int) ([]entry, error) {
	v, err := b.value(n, depth+1)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *mapping:
		return v.entries, nil
	case []any:
		var all []entry
		for _, item := range v {
			m, ok := item.(*mapping)
			if !ok {
				return nil, yamlErr(n, "<< takes mappings, got %s", pyType(item))
			}
			all = append(all, m.entries...)
		}
		return all, nil
	}
	return nil, yamlErr(n, "<< takes a mapping, got %s", pyType(v))
}

var (
	reBool = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$`)
	})
	reFloat = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?` +
			`|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
	})
	reInt = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+` +
			`|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	})
	reDate = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])$`)
	})
	reStamp = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}.*)$`)
	})
)

// scalar resolves a scalar as PyYAML's SafeLoader does.
func scalar(n *yaml.Node) (any, error) {
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if n.Style&yaml.TaggedStyle != 0 {
		switch n.ShortTag() {
		case "!!str":
			return n.Value, nil
		case "!":
			return n.Value, nil
		}
		return nil, yamlErr(n, "the tag %s is not supported here; write the value without it", n.Tag)
	}
	if quoted {
		return n.Value, nil
	}
	v := n.Value
	switch {
	case v == "" || v == "~" || v == "null" || v == "Null" || v == "NULL":
		return nil, nil
	case reBool().MatchString(v):
		switch strings.ToLower(v) {
		case "yes", "true", "on":
			return true, nil
		}
		return false, nil
	case reFloat().MatchString(v):
		return yamlFloat(n)
	case reInt().MatchString(v):
		return yamlInt(n)
	case reDate().MatchString(v):
		return date(v), nil
	case reStamp().MatchString(v):
		return nil, yamlErr(n, "the time %q is not supported; put it in quotes", v)
	case strings.HasSuffix(v, ":"):
		return nil, yamlErr(n, "%q ends in a colon; put it in quotes", v) // in [a:] PyYAML sees a mapping
	case v == "=" || v == "<<":
		return nil, yamlErr(n, "%q has a meaning in YAML; put it in quotes", v)
	}
	return v, nil
}

// maxDigits bounds whole numbers, whose conversion is not linear in their length.
const maxDigits = 100

func yamlInt(n *yaml.Node) (any, error) {
	v := strings.ReplaceAll(n.Value, "_", "")
	if len(v) > maxDigits {
		return nil, yamlErr(n, "a number with more than %d digits", maxDigits)
	}
	digits := strings.TrimLeft(v, "+-")
	base := 10
	switch {
	case strings.HasPrefix(digits, "0b"):
		digits, base = digits[2:], 2
	case strings.HasPrefix(digits, "0x"):
		digits, base = digits[2:], 16
	case strings.Contains(digits, ":"):
		return sexagesimal(v, digits)
	case len(digits) > 1 && digits[0] == '0':
		base = 8
	}
	i, ok := new(big.Int).SetString(digits, base)
	if !ok {
		return nil, yamlErr(n, "%q is not a number", n.Value)
	}
	if v[0] == '-' {
		i.Neg(i)
	}
	return i, nil
}

// sexagesimal is base 60, as in 1:30 for 90.
func sexagesimal(v, digits string) (any, error) {
	sum := new(big.Int)
	for _, part := range strings.Split(digits, ":") {
		d, _ := new(big.Int).SetString(part, 10)
		sum.Add(sum.Mul(sum, big.NewInt(60)), d)
	}
	if v[0] == '-' {
		sum.Neg(sum)
	}
	return sum, nil
}

func yamlFloat(n *yaml.Node) (any, error) {
	v := strings.ToLower(strings.ReplaceAll(n.Value, "_", ""))
	sign := 1.0
	if v[0] == '-' {
		sign = -1
	}
	v = strings.TrimLeft(v, "+-")
	switch v {
	case ".inf":
		return pyFloat(math.Inf(int(sign))), nil
	case ".nan":
		return pyFloat(math.NaN()), nil
	}
	sum := 0.0
	for _, part := range strings.Split(v, ":") {
		f, err := strconv.ParseFloat(part, 64)
		if err != nil && !math.IsInf(f, 0) {
			return nil, yamlErr(n, "%q is not a number", n.Value)
		}
		sum = sum*60 + f
	}
	return pyFloat(sign * sum), nil
}
