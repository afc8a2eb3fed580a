package conformance

import (
	"strings"

	"github.com/moby/sys/capability"
)

// Words splits a test's option line at blanks. Single and double quotes keep blanks, and
// nothing else is special.
func Words(line string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	started := false
	for _, r := range line + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, started = r, true
		case quote == 0 && r == ' ':
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteRune(r)
			started = true
		}
	}
	return words
}

// AllCapabilities returns every capability of Linux, as CAP_X in the kernel's order.
func AllCapabilities() []string {
	var names []string
	for _, c := range capability.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}
