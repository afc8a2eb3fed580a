package ipa

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// maxDepth is the deepest nesting of a YAML file, far from where Python's recursion ends.
const maxDepth = 32

// Value is one value of a YAML file; its Line is its own or that of its key. The zero
// Value is null.
type Value yaml.Node

// Entry is one key of a mapping with its value.
type Entry struct {
	Key string
	Value
}

// ReadYAML reads a file that holds one document, or none. It refuses what PyYAML, which
// follows YAML 1.1, and readers of YAML 1.2 do not read alike, wherever it stands: see
// docs/steps.md. An alias stands for the anchored value. The error is an *[Error] with
// the line, if that is known. It has no fault code.
func ReadYAML(data []byte) (Value, error) {
	if err := checkLines(data); err != nil {
		return Value{}, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return Value{}, nil
	}
	if err == nil {
		if err = decoder.Decode(&more); err == nil {
			return Value{}, lineError(more.Line, "the file must hold one YAML document")
		}
	}
	if !errors.Is(err, io.EOF) {
		return Value{}, syntaxError(err)
	}
	if err := (checker{}).check(doc.Content[0], 0); err != nil {
		return Value{}, err
	}
	return newValue(doc.Content[0]), nil
}

// reLoneTag is the tag "!", which makes text of any value and does not show in the tree.
var reLoneTag = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?:^|[\s,\[{])!(?:\s|$)`) })

// checkLines refuses what can only be seen in the text.
func checkLines(data []byte) error {
	for i, line := range bytes.Split(data, []byte{'\n'}) {
		comment := bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte{'#'})
		switch {
		case bytes.IndexByte(line, 0) >= 0:
			return lineError(i+1, "a NUL byte")
		case comment:
		case bytes.HasPrefix(line, []byte{'%'}):
			return lineError(i+1, "a directive: the file needs none, and none is supported")
		case bytes.IndexByte(line, '\t') >= 0:
			return lineError(i+1, `a tab: indent and separate with blanks, and write \t in double quotes`)
		case reLoneTag().Match(line):
			return lineError(i+1, "the tag ! is not supported: put text in quotes")
		}
	}
	return nil
}

var reYAMLLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^yaml: line (\d+): `) })

// syntaxError finds the line in an error of the decoder.
func syntaxError(err error) error {
	text := err.Error()
	m := reYAMLLine().FindStringSubmatch(text)
	if m == nil {
		return lineError(0, "not valid YAML: %s", strings.TrimPrefix(text, "yaml: "))
	}
	line, _ := strconv.Atoi(m[1])
	return lineError(line, "not valid YAML: %s", text[len(m[0]):])
}

// checker has the anchors that it has met; true are those whose value has ended.
type checker map[string]bool

// check refuses what is read differently in n and below. It visits each node once:
// aliases are not followed.
func (c checker) check(n *yaml.Node, depth int) error {
	if _, twice := c[n.Anchor]; twice && n.Anchor != "" {
		return lineError(n.Line, "the anchor &%s is there twice", n.Anchor)
	}
	switch {
	case depth > maxDepth:
		return lineError(n.Line, "the file is nested deeper than %d levels", maxDepth)
	case n.Style&yaml.TaggedStyle != 0:
		return lineError(n.Line, "the tag %s is not supported: write the value without it, and text in quotes", n.Tag)
	case n.Kind == yaml.AliasNode && !c[n.Value]:
		return lineError(n.Line, "the alias *%s stands for a value that holds it", n.Value)
	case n.Kind == yaml.ScalarNode && n.Style == 0:
		if err := checkPlain(n); err != nil {
			return err
		}
	}
	c[n.Anchor] = false
	for _, child := range n.Content {
		if err := c.check(child, depth+1); err != nil {
			return err
		}
	}
	c[n.Anchor] = true
	if n.Kind == yaml.MappingNode {
		return checkKeys(n)
	}
	return nil
}

// checkKeys refuses keys that are not text, and a key that is there twice: PyYAML takes
// the last one, other readers refuse it.
func checkKeys(n *yaml.Node) error {
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := newValue(n.Content[i]).Plain()
		name, ok := key.(string)
		if !ok {
			return lineError(n.Content[i].Line, "a key must be a string, got %s: put it in quotes", Type(key))
		}
		if first, twice := lines[name]; twice {
			return lineError(n.Content[i].Line, "the key %q is there twice, first on line %d", name, first)
		}
		lines[name] = n.Content[i].Line
	}
	return nil
}

var (
	reDecimal = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^-?(?:0|[1-9][0-9]{0,17})$`) })
	// reAmbiguous is what YAML 1.1 or 1.2, by its text or by its readers, takes for a
	// number, a time or a boolean, and a bit more: https://yaml.org/type/ and section
	// 10.3 of YAML 1.2.2.
	reAmbiguous = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)^(?:[-+]?\.?[0-9][0-9_]*(?::[0-9_]*)*\.?[0-9_]*(?:e[-+]?[0-9]*)?|[-+]?0[box][0-9a-f_]*` +
			`|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[t\s].*)?|y|n|yes|no|on|off|=)$`)
	})
)

// checkPlain refuses a scalar without quotes unless each version of YAML reads it alike:
// as text, true, false, null or a decimal number.
func checkPlain(n *yaml.Node) error {
	v := n.Value
	switch n.ShortTag() {
	case "!!null", "!!bool":
		return nil
	case "!!int":
		if reDecimal().MatchString(v) {
			return nil
		}
	case "!!merge":
		return lineError(n.Line, "merge keys (<<) are not in every version of YAML: write the keys out")
	case "!!str":
		if strings.HasSuffix(v, ":") { // in [a:] PyYAML sees a mapping
			return lineError(n.Line, "%q ends in a colon: put it in quotes", v)
		}
		if !reAmbiguous().MatchString(v) {
			return nil
		}
	}
	return lineError(n.Line, "%q is not the same in every version of YAML: "+
		"put it in quotes if it is text, else write true, false or a decimal number", v)
}

// newValue follows an alias.
func newValue(n *yaml.Node) Value {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return Value(*n)
}

// Plain returns nil, bool, int, string, []any or map[string]any. What is below the items
// of a list or the keys of a mapping is left out, so that a file of aliases does not
// expand; Items and Entries lead there.
func (v Value) Plain() any {
	switch v.Kind {
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range v.Items() {
			item.Content = nil
			list = append(list, item.Plain())
		}
		return list
	case yaml.MappingNode:
		m := map[string]any{}
		for _, e := range v.Entries() {
			m[e.Key] = nil
		}
		return m
	}
	var scalar any
	_ = (*yaml.Node)(&v).Decode(&scalar) // checkPlain has let it in
	return scalar
}

// Items returns the items of a list; none for any other value.
func (v Value) Items() []Value {
	if v.Kind != yaml.SequenceNode {
		return nil
	}
	items := make([]Value, len(v.Content))
	for i, n := range v.Content {
		items[i] = newValue(n)
	}
	return items
}

// Entries returns the keys and values of a mapping in their order; none for any other
// value.
func (v Value) Entries() []Entry {
	if v.Kind != yaml.MappingNode {
		return nil
	}
	var entries []Entry
	for i := 0; i+1 < len(v.Content); i += 2 {
		e := Entry{newValue(v.Content[i]).Value, newValue(v.Content[i+1])}
		e.Line = v.Content[i].Line
		entries = append(entries, e)
	}
	return entries
}

// Get returns the value of a key of a mapping.
func (v Value) Get(key string) (Value, bool) {
	for _, e := range v.Entries() {
		if e.Key == key {
			return e.Value, true
		}
	}
	return Value{}, false
}

// Boolean returns a boolean. The error names the type and has no fault code.
func (v Value) Boolean() (bool, error) {
	b, ok := v.Plain().(bool)
	if !ok {
		return false, fmt.Errorf("must be true or false, got %s", Type(v.Plain()))
	}
	return b, nil
}
