package main

import (
	"strings"
)

// wrap fills text into lines of at most width characters behind indent.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line) > len(indent) && len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	b.WriteString(line)
	return b.String()
}

// optionsHelp is the help of a command that takes podman's options.
func optionsHelp(usage, options string) string {
	return "Usage:\n  careen " + usage + "\n\n" + options
}
