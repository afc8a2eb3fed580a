package steps

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxOsloFile bounds one configuration file of IPA.
const maxOsloFile = 1 << 20

// assignment is one "key = value" of a section of an oslo.config file.
type assignment struct {
	key, value string
	line       int
}

// osloError is a defect of an oslo.config file. IPA does not start on one.
type osloError struct {
	line int
	msg  string
}

func (e *osloError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.msg) }

// parseOslo reads the assignments of one section (in any letter case, except
// for DEFAULT) from a file in oslo.config's format: sections in brackets,
// "key = value" or "key: value", continuation lines that start with a blank,
// comments with # or ; at the start of a line, one pair of outer quotes
// removed. A section may come back; a later assignment wins over an earlier.
// The whole file is checked, other sections too, since IPA does the same.
func parseOslo(data []byte, section string) ([]assignment, error) {
	if len(data) > maxOsloFile {
		return nil, &osloError{1, fmt.Sprintf("the file is larger than %d bytes", maxOsloFile)}
	}
	if !utf8.Valid(data) {
		return nil, &osloError{badUTF8Line(data), "the file is not valid UTF-8"}
	}
	p := osloParser{want: section}
	for i, line := range universalLines(string(data)) {
		if err := p.line(i+1, pyRstrip(line)); err != nil {
			return nil, err
		}
	}
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.found, nil
}

// universalLines splits as Python's text mode does: LF, CR LF and CR.
func universalLines(s string) []string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Split(strings.ReplaceAll(s, "\r", "\n"), "\n")
}

func badUTF8Line(data []byte) int {
	line := 1
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if r == utf8.RuneError && n == 1 {
			break
		}
		line += bytes.Count(data[:n], []byte{'\n'})
		data = data[n:]
	}
	return line
}

// osloParser keeps the assignment that continuation lines may still extend.
type osloParser struct {
	want     string
	section  string
	key      string
	value    []string
	keyLine  int
	found    []assignment
	sections int
}

func (p *osloParser) line(n int, line string) error {
	switch {
	case line == "":
		return p.flush()
	case line[0] == ' ' || line[0] == '\t':
		if p.key == "" {
			return &osloError{n, "a continuation line with nothing to continue"}
		}
		p.value = append(p.value, pyLstrip(line))
		return nil
	}
	if err := p.flush(); err != nil {
		return err
	}
	switch line[0] {
	case '[':
		if !strings.HasSuffix(line, "]") {
			return &osloError{n, "a section must end with ]"}
		}
		if len(line) <= 2 {
			return &osloError{n, "a section needs a name"}
		}
		p.section = line[1 : len(line)-1]
		p.sections++
		return nil
	case '#', ';':
		return nil
	}
	return p.split(n, line)
}

// split takes a line apart at the first = or :, whichever comes first.
func (p *osloParser) split(n int, line string) error {
	at := strings.IndexAny(line, "=:")
	if at < 0 {
		return &osloError{n, "neither a section nor an assignment: there is no = or : in it"}
	}
	key, value := pyStrip(line[:at]), pyStrip(line[at+1:])
	if key == "" {
		return &osloError{n, "an assignment needs a key"}
	}
	// One quote alone is both the first and the last character: it goes, too.
	if value != "" && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		value = value[1:max(1, len(value)-1)]
	}
	p.key, p.value, p.keyLine = key, []string{value}, n
	return nil
}

func (p *osloParser) flush() error {
	if p.key == "" {
		return nil
	}
	if p.sections == 0 {
		return &osloError{p.keyLine, "a section must start before the first assignment"}
	}
	if sameSection(p.section, p.want) {
		p.found = append(p.found, assignment{p.key, strings.Join(p.value, "\n"), p.keyLine})
	}
	p.key, p.value = "", nil
	return nil
}

// sameSection compares as oslo.config does: in lower case, except for DEFAULT.
func sameSection(have, want string) bool {
	if have == "DEFAULT" {
		return want == have
	}
	return strings.ToLower(have) == want
}

// unescapeOslo undoes the escapes of oslo.config's templates: $$ and \$ mean a
// dollar sign. A reference such as $host or ${section.key} is returned as err,
// for careen does not know IPA's other options and must not guess.
func unescapeOslo(value string) (string, error) {
	s := strings.ReplaceAll(value, `\$`, "$$")
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' {
			b.WriteByte(s[i])
			continue
		}
		rest := s[i+1:]
		if strings.HasPrefix(rest, "$") {
			b.WriteByte('$')
			i++
			continue
		}
		if name := templateName(rest); name != "" {
			return "", fmt.Errorf("the reference $%s to another option is not supported; write its value", name)
		}
		b.WriteByte('$')
	}
	return b.String(), nil
}

// templateName returns the name that a $ before s refers to, or "".
func templateName(s string) string {
	inner, braced := strings.CutPrefix(s, "{")
	end := 0
	for i, r := range inner {
		if !templateRune(r, i == 0) {
			break
		}
		end = i + utf8.RuneLen(r)
	}
	if end == 0 {
		return ""
	}
	if braced {
		if !strings.HasPrefix(inner[end:], "}") {
			return ""
		}
		return "{" + inner[:end] + "}"
	}
	return inner[:end]
}

// templateRune follows the pattern [_a-z][\._a-z0-9]* of oslo.config, which is
// matched without regard to case: four letters outside of ASCII fold into it.
func templateRune(r rune, first bool) bool {
	switch {
	case r == '_', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		return true
	case r == 'ı', r == 'İ', r == 'ſ', r == '\u212a':
		return true
	}
	return !first && (r == '.' || r >= '0' && r <= '9')
}

// osloList is oslo.config's ListOpt: split on commas, each item stripped, commas
// at the end dropped, empty items in the middle kept.
func osloList(value string) []string {
	s := strings.TrimRight(pyStrip(value), ",")
	if s == "" {
		return []string{}
	}
	items := strings.Split(s, ",")
	for i := range items {
		items[i] = pyStrip(items[i])
	}
	return items
}

// osloBool is oslo.config's BoolOpt.
func osloBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "1", "on", "yes":
		return true, nil
	case "false", "0", "off", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is not a boolean: true, false, 1, 0, on, off, yes or no", value)
}
