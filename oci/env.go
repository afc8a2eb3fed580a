package oci

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLine is the longest line of an env file that podman reads.
const maxLine = 64 << 10

const blanks = " \t"

// envLines calls take for every line of an env or label file that is neither empty
// nor a comment, without its leading blanks and its line end (LF or CR LF).
func envLines(content []byte, take func(line string) error) error {
	for n := 1; len(content) > 0; n++ {
		line, rest, _ := bytes.Cut(content, []byte("\n"))
		content = rest
		if len(line) >= maxLine {
			return fmt.Errorf("line %d is longer than %d bytes", n, maxLine)
		}
		text := strings.TrimLeft(strings.TrimSuffix(string(line), "\r"), blanks)
		if text == "" || text[0] == '#' {
			continue
		}
		if err := take(text); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}

// parseEnvFile adds the variables of an --env-file to env.
func parseEnvFile(env map[string]string, content []byte, environ map[string]string) error {
	return envLines(content, func(line string) error { return parseEnv(env, line, environ) })
}

// parseEnv adds NAME=VALUE, NAME or PREFIX* to env, the latter two from environ;
// names that environ lacks vanish.
func parseEnv(env map[string]string, text string, environ map[string]string) error {
	name, value, hasValue := strings.Cut(text, "=")
	if name == "" {
		return fmt.Errorf("the variable has no name")
	}
	name = strings.TrimLeft(name, blanks)
	switch {
	case name == "":
		// Blanks alone before the = set nothing, which is no error for podman.
	case hasValue:
		env[name] = value
	case strings.HasSuffix(name, "*"):
		copyPrefixed(env, strings.TrimSuffix(name, "*"), environ)
	default:
		if value, ok := environ[name]; ok {
			env[name] = value
		}
	}
	return nil
}

func copyPrefixed(env map[string]string, prefix string, environ map[string]string) {
	for name, value := range environ {
		if strings.HasPrefix(name, prefix) {
			env[name] = value
		}
	}
}

// parseLabelFile adds the labels of a --label-file. It differs from an env file in
// that a name must not hold blanks, and that a line with a name alone adds nothing.
func parseLabelFile(labels map[string]string, content []byte, environ map[string]string) error {
	return envLines(content, func(line string) error {
		name, value, hasValue := strings.Cut(line, "=")
		name = strings.TrimLeft(name, blanks)
		switch {
		case name == "":
			return fmt.Errorf("the label has no name")
		case strings.ContainsAny(name, blanks):
			return fmt.Errorf("the name %s contains white space", quote(name))
		case hasValue:
			labels[name] = value
		case strings.HasSuffix(name, "*"):
			copyPrefixed(labels, strings.TrimSuffix(name, "*"), environ)
		}
		return nil
	})
}

// expandWord expands variables in one --env-merge as a Dockerfile does: single
// quotes keep their content, double quotes allow $, a backslash escapes. lookup
// may be nil, which expands nothing and only checks the syntax.
func expandWord(text string, lookup func(name string) (string, bool)) (string, error) {
	e := expander{rest: text, lookup: lookup}
	if err := e.until("", 0); err != nil {
		return "", err
	}
	return e.out.String(), nil
}

// expander is the state of one expandWord.
type expander struct {
	rest   string
	out    strings.Builder
	lookup func(string) (string, bool)
}

// maxNesting bounds ${A:-${B:-...}}.
const maxNesting = 16

// until copies and expands up to one of the characters of stop, which it leaves.
func (e *expander) until(stop string, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("the expansion is nested too deeply")
	}
	for e.rest != "" {
		c := e.rest[0]
		if strings.IndexByte(stop, c) >= 0 {
			return nil
		}
		e.rest = e.rest[1:]
		var err error
		switch c {
		case '\'':
			err = e.single()
		case '"':
			err = e.double(depth)
		case '\\':
			if e.rest != "" {
				e.out.WriteByte(e.rest[0])
				e.rest = e.rest[1:]
			}
		case '$':
			err = e.variable(depth)
		default:
			e.out.WriteByte(c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *expander) single() error {
	text, rest, ok := strings.Cut(e.rest, "'")
	if !ok {
		return fmt.Errorf("a single quote is not closed")
	}
	e.out.WriteString(text)
	e.rest = rest
	return nil
}

func (e *expander) double(depth int) error {
	for e.rest != "" {
		c := e.rest[0]
		e.rest = e.rest[1:]
		switch c {
		case '"':
			return nil
		case '$':
			if err := e.variable(depth); err != nil {
				return err
			}
		case '\\':
			if e.rest == "" {
				return fmt.Errorf("a double quote is not closed")
			}
			if !strings.ContainsRune(`"$\`, rune(e.rest[0])) {
				e.out.WriteByte('\\')
			}
			e.out.WriteByte(e.rest[0])
			e.rest = e.rest[1:]
		default:
			e.out.WriteByte(c)
		}
	}
	return fmt.Errorf("a double quote is not closed")
}

// variable expands what follows a $.
func (e *expander) variable(depth int) error {
	if !strings.HasPrefix(e.rest, "{") {
		name := e.name()
		if name == "" {
			e.out.WriteByte('$')
			return nil
		}
		value, _ := e.get(name)
		e.out.WriteString(value)
		return nil
	}
	e.rest = e.rest[1:]
	name := e.name() // none is a variable that is not set
	if e.rest == "" {
		return fmt.Errorf("${ is not followed by a name and }")
	}
	value := ""
	if name != "" {
		value, _ = e.get(name)
	}
	if e.rest[0] == '}' {
		e.rest = e.rest[1:]
		e.out.WriteString(value)
		return nil
	}
	if len(e.rest) < 2 || e.rest[0] != ':' || (e.rest[1] != '-' && e.rest[1] != '+') {
		return fmt.Errorf("${%s is followed by neither }, :- nor :+", name)
	}
	whenEmpty := e.rest[1] == '-'
	e.rest = e.rest[2:]
	word := expander{rest: e.rest, lookup: e.lookup}
	if err := word.until("}", depth+1); err != nil {
		return err
	}
	if word.rest == "" {
		return fmt.Errorf("${%s is not closed", name)
	}
	e.rest = word.rest[1:]
	switch {
	case (value == "") == whenEmpty:
		e.out.WriteString(word.out.String())
	case whenEmpty:
		e.out.WriteString(value)
	}
	return nil
}

// name takes a variable's name from the front: one digit, or letters, digits and _.
func (e *expander) name() string {
	end := 0
	for i, r := range e.rest {
		if i == 0 && unicode.IsDigit(r) {
			end = utf8.RuneLen(r)
			break
		}
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			break
		}
		end = i + utf8.RuneLen(r)
	}
	name := e.rest[:end]
	e.rest = e.rest[end:]
	return name
}

func (e *expander) get(name string) (string, bool) {
	if e.lookup == nil {
		return "", false
	}
	return e.lookup(name)
}
