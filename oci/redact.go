package oci

import (
	"sort"
	"strings"
)

// secretNames are parts of variables' names whose values are hidden in logs.
var secretNames = []string{"PASS", "SECRET", "TOKEN", "KEY", "CRED", "AUTH", "PWD", "PRIVATE", "SESSION", "COOKIE"}

// masked stands for a secret.
const masked = "***"

// Redacted returns the command's words, options first, with secrets replaced by
// "***": passwords of --creds, the values of all variables, because which of them are
// secrets cannot be known, and labels that look like secrets. This form may be logged.
func (r *Run) Redacted() []string {
	words := r.scanned.redacted()
	if r.Image.Original != "" {
		words = append(words, r.Image.Original)
	}
	return append(words, r.Command...)
}

// Redacted is [Run.Redacted] for a pull.
func (p *Pull) Redacted() []string {
	words := p.scanned.redacted()
	if p.Image.Original != "" {
		words = append(words, p.Image.Original)
	}
	return words
}

// Given is one use of an option.
type Given struct {
	Option OptionInfo
	// Value is the value as it was written, "true" for a bare boolean. What looks like a
	// secret is "***".
	Value string
}

// Given returns the options of the command in the order of docs/options.md.
func (r *Run) Given() []Given {
	var uses []Given
	for _, option := range optionTable {
		if option.On&OnRun == 0 {
			continue
		}
		for _, use := range r.scanned.uses[option.Name] {
			uses = append(uses, Given{Option: option, Value: redactValue(option, use.value)})
		}
	}
	return uses
}

// words returns every option as one word: --name=value.
func (s *scanned) words() []string {
	return s.each(func(_ OptionInfo, value string) string { return value })
}

func (s *scanned) redacted() []string {
	return s.each(func(option OptionInfo, value string) string {
		name, _, ok := strings.Cut(value, "=")
		if ok && (option.Name == "env" || option.Name == "env-merge") {
			return name + "=" + masked
		}
		return redactValue(option, value)
	})
}

// each returns the uses of all options, by name, with their values changed.
func (s *scanned) each(change func(OptionInfo, string) string) []string {
	if s == nil {
		return nil
	}
	names := make([]string, 0, len(s.uses))
	for name := range s.uses {
		names = append(names, name)
	}
	sort.Strings(names)
	var words []string
	for _, name := range names {
		for _, use := range s.uses[name] {
			words = append(words, "--"+name+"="+change(use.option, use.value))
		}
	}
	return words
}

// redactValue masks values that look like secrets.
func redactValue(option OptionInfo, value string) string {
	switch option.Name {
	case "creds":
		user, _, ok := strings.Cut(value, ":")
		if !ok {
			return masked
		}
		return user + ":" + masked
	case "env", "env-merge", "label":
		return redactPair(value)
	case "annotation":
		// One word may hold several, and a secret stand behind any comma.
		fields, err := splitCSV(value)
		if err != nil {
			return redactPair(value)
		}
		for i := range fields {
			fields[i] = redactPair(fields[i])
		}
		return strings.Join(fields, ",")
	}
	return value
}

// redactPair masks the value of NAME=VALUE if it looks like a secret.
func redactPair(text string) string {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return text
	}
	return name + "=" + MaskVariable(name, value)
}

// MaskVariable returns the value of a variable or label, or "***" if it looks like a
// secret by its name or contains a password.
func MaskVariable(name, value string) string {
	if value != "" && secretVariable(name, value) {
		return masked
	}
	return value
}

// secretVariable guesses by its name, or by a password inside an address.
func secretVariable(name, value string) bool {
	upper := strings.ToUpper(name)
	for _, part := range secretNames {
		if strings.Contains(upper, part) {
			return true
		}
	}
	_, rest, ok := strings.Cut(value, "://")
	if !ok {
		return false
	}
	host, _, _ := strings.Cut(rest, "/")
	user, _, hasUser := strings.Cut(host, "@")
	return hasUser && strings.Contains(user, ":")
}
