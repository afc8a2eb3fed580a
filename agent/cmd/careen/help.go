package main

import (
	"fmt"
	"strings"

	"github.com/careen-project/careen/oci"
)

// optionsHelp is the help of a command with podman's options, by heading.
func optionsHelp(usage string, command oci.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  careen %s\n", usage)
	for _, group := range oci.HelpGroups(command) {
		if group.Group == oci.GroupReject || group.Group == oci.GroupNoOp {
			var names []string
			for _, option := range group.Options {
				names = append(names, "--"+option.Name)
			}
			fmt.Fprintf(&b, "\n%s:\n%s\n", group.Group, wrap(strings.Join(names, " "), "  ", 78))
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", group.Group)
		for _, option := range group.Options {
			b.WriteString(optionLine(option))
		}
	}
	b.WriteString("\nEvery option, with what differs from podman: docs/options.md\n")
	return b.String()
}

func optionLine(o oci.OptionInfo) string {
	name := "      --" + o.Name
	if o.Short != "" {
		name = "  -" + o.Short + ", --" + o.Name
	}
	if o.Arg != "" {
		name += " " + o.Arg
	}
	help := o.Help
	if o.Default != "" {
		help += " (default " + o.Default + ")"
	}
	const column = 30
	if len(name) > column-2 {
		return name + "\n" + wrap(help, strings.Repeat(" ", column), 78) + "\n"
	}
	text := wrap(help, strings.Repeat(" ", column), 78)
	return name + text[len(name):] + "\n"
}

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
