package oci

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/careen-project/careen/agent/fault"
)

// given is one use of an option in the command.
type given struct {
	option OptionInfo
	// value is what follows the name, "true" for a bare boolean.
	value string
	// written is the option as the caller wrote it, with a secret value masked.
	written string
}

// scanned is a command whose options are known, well formed and typed. Combinations are
// not checked yet.
type scanned struct {
	command Command
	uses    map[string][]given
	// elements counts the values of each option, lists by their elements.
	elements map[string]int
	// rest are the words that are not options, from the first of them on.
	rest []string
	errs Errors
}

// scan reads words as GNU's getopt_long and podman's flag library do: options end
// at the first other word or at "--", except for pull, whose options may also follow the
// image; --name=value, --name value, -n value,
// -nvalue, -n=value and clusters of letters all mean the same. It goes on after an
// error, so that all of them can be reported.
func scan(command Command, words []string) *scanned {
	s := &scanned{command: command, uses: make(map[string][]given), elements: make(map[string]int)}
	if err := checkSize(words); err != nil {
		s.fail(err)
		return s
	}
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch {
		case word == "--":
			s.rest = append(s.rest, words...)
			return s
		case len(word) < 2 || word[0] != '-':
			if command == OnPull {
				s.rest = append(s.rest, word)
				continue
			}
			s.rest = append([]string{word}, words...)
			return s
		case strings.HasPrefix(word, "--"):
			words = s.long(word, words)
		default:
			words = s.cluster(word, words)
		}
	}
	return s
}

// Limits of one set of options. The kernel's limit on arguments is podman's; no runbook
// comes near either.
const (
	maxWords     = 4096
	maxWordBytes = 1 << 20
)

func checkSize(words []string) *fault.Error {
	e := &fault.Error{Code: fault.BadRequest, Op: "read options", Remedy: "Put the values into an --env-file"}
	total := 0
	for _, word := range words {
		total += len(word)
		// An argument of a process cannot contain a NUL, so podman never sees one.
		if strings.ContainsRune(word, 0) {
			e.Reason, e.Remedy = "a word contains a NUL byte", "Remove it"
			return e
		}
	}
	switch {
	case len(words) > maxWords:
		e.Reason = fmt.Sprintf("there are %d words, and the limit is %d", len(words), maxWords)
	case total > maxWordBytes:
		e.Reason = fmt.Sprintf("they have %d bytes, and the limit is %d", total, maxWordBytes)
	default:
		return nil
	}
	return e
}

// long reads one --name, and returns the words after it and its value.
func (s *scanned) long(word string, words []string) []string {
	name, value, hasValue := strings.Cut(word[2:], "=")
	if name == "" || name[0] == '-' {
		s.fail(badOption(word, "it is not written like an option", "--name=value"))
		return words
	}
	option, ok := findOption(s.command, name)
	if !ok {
		s.fail(unknownOption(s.command, word, name))
		return words
	}
	written := word
	switch {
	case hasValue:
	case option.Kind == Bool:
		value = "true"
	case len(words) > 0:
		value, words = words[0], words[1:]
		written += " " + value
	default:
		s.fail(badOption(word, "it needs a value", option.Example))
		return words
	}
	s.add(option, value, written)
	return words
}

// cluster reads -abc and returns the words after it and its last letter's value.
func (s *scanned) cluster(word string, words []string) []string {
	letters := word[1:]
	for letters != "" {
		letter := letters[:1]
		letters = letters[1:]
		option, ok := findShort(s.command, letter)
		if !ok {
			s.fail(unknownOption(s.command, word, letter))
			return words
		}
		written := "-" + letter
		switch {
		case len(letters) > 1 && letters[0] == '=':
			s.add(option, letters[1:], written+letters)
			return words
		case option.Kind == Bool:
			s.add(option, "true", written)
		case letters != "":
			s.add(option, letters, written+letters)
			return words
		case len(words) > 0:
			s.add(option, words[0], written+" "+words[0])
			return words[1:]
		default:
			s.fail(badOption(word, fmt.Sprintf("-%s needs a value", letter), option.Example))
			return words
		}
	}
	return words
}

// add records a use if its value fits the option's kind and the option is not refused.
func (s *scanned) add(option OptionInfo, value, written string) {
	if option.Secret {
		written = maskWritten(written, value)
	}
	if reason := checkKind(option.Kind, value); reason != "" {
		s.fail(badOption(written, reason, option.Example))
		return
	}
	if option.Verdict == Reject && !harmless(option, value) {
		s.fail(unsupported(written, option.Help, option.Instead))
		return
	}
	s.elements[option.Name]++
	if option.Kind == List {
		s.elements[option.Name] += strings.Count(value, ",")
	}
	// Some checks are quadratic in the number of values.
	if s.elements[option.Name] > maxWords {
		s.fail(badOption("--"+option.Name, fmt.Sprintf("it has more than %d values", maxWords), option.Example))
		return
	}
	s.uses[option.Name] = append(s.uses[option.Name], given{option: option, value: value, written: written})
}

func (s *scanned) fail(err *fault.Error) { s.errs = append(s.errs, err) }

// checkKind returns why value is not of kind, or "".
func checkKind(kind Kind, value string) string {
	var err error
	switch kind {
	case Bool:
		if _, err = strconv.ParseBool(value); err != nil {
			return quote(value) + " is neither true nor false"
		}
	case Int:
		if _, err = strconv.ParseInt(value, 0, 64); err != nil {
			return quote(value) + " is not a whole number"
		}
	case Uint:
		if _, err = strconv.ParseUint(value, 0, 64); err != nil {
			return quote(value) + " is not a whole number from 0 up"
		}
	case Float:
		if _, err = strconv.ParseFloat(value, 64); err != nil {
			return quote(value) + " is not a number"
		}
	case List:
		if _, err = splitCSV(value); err != nil {
			return "the list is not valid CSV: " + err.Error()
		}
	}
	return ""
}

// harmless reports whether a refused option may pass with this value.
func harmless(option OptionInfo, value string) bool {
	for _, allowed := range option.Harmless {
		if value == allowed {
			return true
		}
		if option.Kind == Bool {
			given, err := strconv.ParseBool(value)
			if err == nil && strconv.FormatBool(given) == allowed {
				return true
			}
		}
		if option.Kind == Uint {
			given, err := strconv.ParseUint(value, 0, 64)
			if err == nil && strconv.FormatUint(given, 10) == allowed {
				return true
			}
		}
	}
	return false
}

// splitCSV splits one value of a List option.
func splitCSV(value string) ([]string, error) {
	if value == "" {
		return nil, nil
	}
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err == io.EOF {
		return nil, fmt.Errorf("it is empty")
	}
	return fields, err
}

// maskWritten hides the value of a secret option but keeps what helps to find it:
// the name of a variable, the user of credentials.
func maskWritten(written, value string) string {
	if value == "" || !strings.HasSuffix(written, value) {
		return written
	}
	return strings.TrimSuffix(written, value) + maskValue(value)
}

func maskValue(value string) string {
	if name, secret, ok := strings.Cut(value, "="); ok && secret != "" {
		return name + "=***"
	}
	if user, secret, ok := strings.Cut(value, ":"); ok && secret != "" {
		return user + ":***"
	}
	return value
}

// engineOptions are podman's own options, which it also takes after its command.
var engineOptions = []string{
	"cgroup-manager", "conmon", "connection", "events-backend", "hooks-dir", "identity", "imagestore", "log-level", "module",
	"namespace", "network-cmd-path", "network-config-dir", "noout", "out", "registries-conf", "remote", "root", "runroot",
	"runtime-flag", "ssh", "storage-driver", "syslog", "tmpdir", "transient-store", "url", "volumepath",
}

// unknownOption makes the error for an unknown option. It suggests a similar one.
func unknownOption(command Command, word, name string) *fault.Error {
	remedy := "See careen run --help"
	if command == OnPull {
		remedy = "See careen pull --help"
	}
	if len(name) > 1 {
		if near := nearest(command, name); near != "" {
			remedy = "Did you mean --" + near + "?"
		}
		word, _, _ = strings.Cut(word, "=")
		if contains(engineOptions, name) {
			return &fault.Error{
				Code: fault.Unsupported, Op: "accept option", Subject: shorten(word),
				Reason: "it configures podman itself: its store, log or runtime", Remedy: "Leave it out",
			}
		}
		return &fault.Error{
			Code: fault.BadOption, Op: "accept option", Subject: shorten(word), Reason: "the option does not exist",
			Remedy: remedy,
		}
	}
	return &fault.Error{
		Code: fault.BadOption, Op: "accept option", Subject: shorten(word),
		Reason: fmt.Sprintf("the option -%s does not exist", name), Remedy: remedy,
	}
}

// nearest returns the option whose name is at most two edits away from name.
func nearest(command Command, name string) string {
	best, bestDistance := "", 3
	if len(name) > 40 {
		return ""
	}
	for _, option := range optionTable {
		if option.On&command == 0 || option.Podman == "docker" {
			continue
		}
		if d := editDistance(name, option.Name); d < bestDistance {
			best, bestDistance = option.Name, d
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		previous := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := previous
			if a[i-1] != b[j-1] {
				cost++
			}
			previous = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
