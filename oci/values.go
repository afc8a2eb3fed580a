package oci

import "strconv"

// item is one value of a repeatable option, with its use.
type item struct {
	value   string
	written string
}

// changed reports whether the option was given at all.
func (s *scanned) changed(name string) bool { return len(s.uses[name]) > 0 }

// last returns the last use of an option.
func (s *scanned) last(name string) (given, bool) {
	uses := s.uses[name]
	if len(uses) == 0 {
		return given{}, false
	}
	return uses[len(uses)-1], true
}

// text returns the last value, or def.
func (s *scanned) text(name, def string) string {
	if use, ok := s.last(name); ok {
		return use.value
	}
	return def
}

// written returns the last use as the caller wrote it, or the bare option.
func (s *scanned) written(name string) string {
	if use, ok := s.last(name); ok {
		return use.written
	}
	return "--" + name
}

// bool returns the last value, or def. The kind has been checked by scan.
func (s *scanned) bool(name string, def bool) bool {
	use, ok := s.last(name)
	if !ok {
		return def
	}
	value, _ := strconv.ParseBool(use.value)
	return value
}

func (s *scanned) int(name string, def int64) int64 {
	use, ok := s.last(name)
	if !ok {
		return def
	}
	value, _ := strconv.ParseInt(use.value, 0, 64)
	return value
}

func (s *scanned) uint(name string, def uint64) uint64 {
	use, ok := s.last(name)
	if !ok {
		return def
	}
	value, _ := strconv.ParseUint(use.value, 0, 64)
	return value
}

func (s *scanned) float(name string, def float64) float64 {
	use, ok := s.last(name)
	if !ok {
		return def
	}
	value, _ := strconv.ParseFloat(use.value, 64)
	return value
}

// items returns all values of an option, lists split on their commas.
func (s *scanned) items(name string) []item {
	var items []item
	for _, use := range s.uses[name] {
		if use.option.Kind != List {
			items = append(items, item{value: use.value, written: use.written})
			continue
		}
		fields, _ := splitCSV(use.value)
		for _, field := range fields {
			items = append(items, item{value: field, written: use.written})
		}
	}
	return items
}

// list returns the bare values of items.
func (s *scanned) list(name string) []string {
	var values []string
	for _, item := range s.items(name) {
		values = append(values, item.value)
	}
	return values
}

// example returns the option's example for an error.
func (s *scanned) example(name string) string {
	option, _ := findOption(s.command, name)
	return option.Example
}

// bad records that the last use of an option has a wrong value.
func (s *scanned) bad(name, reason string) {
	s.fail(badOption(s.written(name), reason, s.example(name)))
}

// badItem records that one value of an option is wrong.
func (s *scanned) badItem(name string, it item, reason string) {
	s.fail(badOption(it.written, reason, s.example(name)))
}
