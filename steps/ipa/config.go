package ipa

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/careen-project/careen/rootfs/file"
)

// maxConfigFile is the largest configuration file that is read, in bytes.
const maxConfigFile = 1 << 20

// Error is a defect of a file, or the reason why it cannot be read.
type Error struct {
	// File is the path; "" where the caller knows it.
	File string
	// Line counts from 1; 0 is the file as a whole.
	Line int
	// Err is the reason.
	Err error
}

// Error returns the reason with its line.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Err)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

func lineError(line int, format string, args ...any) error {
	return &Error{Line: line, Err: fmt.Errorf(format, args...)}
}

// Option is the text of one option of IPA's configuration.
type Option struct {
	// Value is the text as oslo.config stores it, before [Unescape].
	Value string
	// File is the file's path, or "environment NAME".
	File string
	// Line is the line in File, 0 for the environment.
	Line int
}

// From is the option's place: "FILE:LINE" or "environment NAME".
func (o Option) From() string {
	if o.Line == 0 {
		return o.File
	}
	return o.File + ":" + strconv.Itoa(o.Line)
}

// Load reads IPA's configuration: the files in paths (of a directory its *.conf in
// the order of their names; an absent path is none), then the environment by getenv,
// if that is not nil. It returns the options of the sections container and DEFAULT by
// "SECTION.NAME"; a later value wins. The options in known are those that are looked
// for in the environment, as OS_SECTION__NAME.
//
// The error is an *[Error] with file and line. It has no fault code. IPA does not
// start on such a file.
func Load(paths []string, getenv func(string) (string, bool), known []string) (map[string]Option, error) {
	found := map[string]Option{}
	for _, path := range paths {
		files, err := configFiles(path)
		if err != nil {
			return nil, &Error{File: path, Err: err}
		}
		for _, name := range files {
			if err := readConfig(found, name); err != nil {
				var bad *Error
				if !errors.As(err, &bad) {
					bad = &Error{Err: err}
				}
				bad.File = name
				return nil, bad
			}
		}
	}
	for _, key := range known {
		section, name, _ := strings.Cut(key, ".")
		variable := strings.ToUpper("OS_" + section + "__" + name)
		if getenv == nil {
			break
		}
		if value, ok := getenv(variable); ok {
			found[key] = Option{Value: value, File: "environment " + variable}
		}
	}
	return found, nil
}

// configFiles returns path itself, or the configuration files of a directory. Python's
// glob, which IPA uses, leaves out names that start with a dot.
func configFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.IsDir():
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	var files []string
	for _, entry := range entries {
		if name := entry.Name(); !strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".conf") {
			files = append(files, filepath.Join(path, name))
		}
	}
	return files, err
}

func readConfig(found map[string]Option, path string) error {
	data, err := file.ReadLimited(path, maxConfigFile)
	if err != nil {
		return err
	}
	return parseConfig(data, func(section, name string, o Option) {
		// oslo.config compares sections in lower case, except for DEFAULT.
		if strings.EqualFold(section, "container") {
			section = "container"
		} else if section != "DEFAULT" {
			return
		}
		o.File = path
		found[section+"."+name] = o
	})
}

// parseConfig reads oslo.config's format and calls add with each option: sections in
// brackets, "key = value" or "key: value", continuation lines that start with a blank,
// comments with # or ; at the start of a line, one pair of outer quotes removed. The
// whole file must be valid, as for IPA.
func parseConfig(data []byte, add func(section, name string, o Option)) error {
	// Python's text mode ends lines at LF, CR LF and CR.
	text := strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r", "\n")
	var (
		section, key string
		option       Option
	)
	flush := func() {
		if key != "" {
			add(section, key, option)
		}
		key = ""
	}
	for i, line := range strings.Split(text, "\n") {
		n, line := i+1, strings.TrimRightFunc(line, Space)
		switch {
		case !utf8.ValidString(line):
			return lineError(n, "the file is not valid UTF-8")
		case line == "":
			flush()
			continue
		case line[0] == ' ' || line[0] == '\t':
			if key == "" {
				return lineError(n, "a continuation line with nothing to continue")
			}
			option.Value += "\n" + Strip(line)
			continue
		}
		flush()
		name, value, found := cutAny(line, "=:")
		switch {
		case line[0] == '[' && (len(line) < 3 || line[len(line)-1] != ']'):
			return lineError(n, "a section must have the form [NAME]")
		case line[0] == '[':
			section = line[1 : len(line)-1]
		case line[0] == '#' || line[0] == ';':
		case !found:
			return lineError(n, "neither a section nor an assignment: the line has no = or :")
		case Strip(name) == "":
			return lineError(n, "an assignment needs a key")
		case section == "":
			return lineError(n, "a section must start before the first assignment")
		default:
			key, option = Strip(name), Option{Value: unquote(Strip(value)), Line: n}
		}
	}
	flush()
	return nil
}

// cutAny is strings.Cut at the first of the ASCII characters in chars.
func cutAny(s, chars string) (before, after string, found bool) {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// unquote removes one pair of quotes. A quote alone is its own pair.
func unquote(s string) string {
	if s != "" && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1:max(1, len(s)-1)]
	}
	return s
}

// Unescape replaces the escapes $$ and \$ by a dollar sign. Any other dollar sign is
// an error without a fault code: in oslo.config $name stands for another option, and
// careen does not know IPA's other options.
func Unescape(value string) (string, error) {
	parts := strings.Split(strings.ReplaceAll(value, `\$`, "$$"), "$$")
	for _, part := range parts {
		if strings.Contains(part, "$") {
			return "", fmt.Errorf("references to other options ($NAME) are not supported in %q: "+
				"write the value itself, and $$ for a dollar sign", value)
		}
	}
	return strings.Join(parts, "$"), nil
}

// List is oslo.config's ListOpt: the text is split at commas, and each item stripped.
// Commas at the end are dropped; empty items in the middle stay.
func List(value string) []string {
	s := strings.TrimRight(Strip(value), ",")
	if s == "" {
		return []string{}
	}
	items := strings.Split(s, ",")
	for i := range items {
		items[i] = Strip(items[i])
	}
	return items
}

// Bool is oslo.config's BoolOpt. The error has no fault code.
func Bool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "1", "on", "yes":
		return true, nil
	case "false", "0", "off", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is not a boolean: true, false, 1, 0, on, off, yes or no", value)
}
