package explain

import (
	"strings"

	"github.com/careen-project/careen/oci"
)

// helpWidth and helpIndent lay out help for a terminal of 80 columns.
const (
	helpWidth  = 80
	helpIndent = 26
)

// Help returns the options of one command by group, as `careen run --help`
// shows them: name and value on the left, help and default on the
// right, no line longer than 80 columns. Refused options are named in one
// paragraph at the end, since docs/options.md says why.
func Help(command oci.Command) string {
	var b strings.Builder
	for _, group := range oci.HelpGroups(command) {
		if group.Group == oci.GroupReject {
			b.WriteString("Refused (see docs/options.md for the reasons):\n")
			var names []string
			for _, option := range group.Options {
				names = append(names, "--"+option.Name)
			}
			writeWrapped(&b, strings.Join(names, " "), 2, 2, 2)
			continue
		}
		b.WriteString(string(group.Group) + ":\n" + List(group.Options) + "\n")
	}
	return b.String()
}

// List returns options as [Help] lists them, without the name of a group.
func List(options []oci.OptionInfo) string {
	var b strings.Builder
	for _, option := range options {
		writeOption(&b, option)
	}
	return b.String()
}

// writeOption writes one option, its text on the next line if the names are long.
func writeOption(b *strings.Builder, option oci.OptionInfo) {
	left := "      --" + option.Name
	if option.Short != "" {
		left = "  -" + option.Short + ", --" + option.Name
	}
	if option.Arg != "" {
		left += "=" + option.Arg
	}
	text := option.Help
	if option.Default != "" && option.Default != "false" {
		text += " [" + option.Default + "]"
	}
	b.WriteString(left)
	column := len(left)
	if column+2 > helpIndent {
		b.WriteString("\n")
		column = 0
	}
	writeWrapped(b, text, helpIndent-column, helpIndent, helpIndent)
}

// writeWrapped writes words after blanks that lead to column, and further lines after
// indent.
func writeWrapped(b *strings.Builder, text string, blanks, column, indent int) {
	b.WriteString(strings.Repeat(" ", blanks))
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > helpWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteString("\n")
}
