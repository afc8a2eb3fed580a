package gendoc

import (
	"fmt"
	"strings"

	"github.com/careen-project/careen/oci"
)

// Markdown returns docs/options.md, which is made from the option table and the
// list of differences.
func Markdown() string {
	var b strings.Builder
	b.WriteString(strings.NewReplacer("All of GNU's", "All of GNU's", "careen's", "careen's", "'", "`").Replace(markdownHead))
	for _, command := range []struct {
		on    oci.Command
		title string
	}{{oci.OnRun, "careen run"}, {oci.OnPull, "careen pull"}} {
		fmt.Fprintf(&b, "\n## %s\n", command.title)
		for _, group := range oci.HelpGroups(command.on) {
			fmt.Fprintf(&b, "\n### %s\n\n", group.Group)
			b.WriteString(tableHead(group.Group))
			for _, option := range group.Options {
				b.WriteString(tableRow(option))
			}
		}
	}
	b.WriteString(dockerSection())
	b.WriteString(differenceSection())
	return b.String()
}

// markdownHead has ' where the document has a backquote.
const markdownHead = `# Options of run and pull

<!-- Made from the tables in package oci by "go generate ./oci/gendoc"; a test fails when it is stale. -->

Options have the meaning that they have in podman 4.3.1 as Debian 12 configures it. All GNU spellings work:
'--name=value', '--name value', '-n value', '-nvalue', '-n=value' and clusters such as '-it'; a boolean takes
'=true' and '=false'. If an option is given several times, the last one counts, unless the table says *repeatable*; the
values of a *list* option can also be joined with commas. Options of run stop at the image; options of pull may also
follow it.

Every option is implemented, accepted without effect, or refused by name before the pull. All problems are reported
together, each with the reason and a valid example. "Since" is careen's version.

Ironic's agent splits options at white space and does not interpret quotes, so a value with a space, such as
'--device-cgroup-rule=c 1:3 rwm', cannot be passed through it. careen's command line has no such limit.
`

func tableHead(group oci.Group) string {
	if group == oci.GroupReject {
		return "| option | reason | instead | since |\n|---|---|---|---|\n"
	}
	return "| option | effect | default | difference from podman 4.3.1 | since |\n|---|---|---|---|---|\n"
}

func tableRow(option oci.OptionInfo) string {
	if option.Group == oci.GroupReject {
		instead := option.Instead
		if len(option.Harmless) > 0 {
			instead += fmt.Sprintf(" (%s is accepted)", harmlessText(option.Harmless))
		}
		return row(optionCell(option), option.Help, instead, option.Since)
	}
	difference := option.Difference
	if option.Podman == "newer" {
		note := "only in newer podman"
		if difference != "" {
			note += "; " + difference
		}
		difference = note
	}
	return row(optionCell(option), option.Help, option.Default, difference, option.Since)
}

func harmlessText(values []string) string {
	var texts []string
	for _, value := range values {
		if value != "" {
			texts = append(texts, "`"+value+"`")
		}
	}
	if len(texts) == 0 {
		return "an empty value"
	}
	return strings.Join(texts, ", ")
}

// optionCell shows names, value and how often the option may be given.
func optionCell(option oci.OptionInfo) string {
	cell := "`--" + option.Name
	if option.Arg != "" {
		cell += "=" + option.Arg
	}
	cell += "`"
	if option.Short != "" {
		cell += ", `-" + option.Short + "`"
	}
	for _, alias := range option.Aliases {
		cell += ", `--" + alias + "`"
	}
	switch option.Kind {
	case oci.List:
		cell += " *list*"
	case oci.Array:
		cell += " *repeatable*"
	}
	return cell
}

func row(cells ...string) string {
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(cell, "|", `\|`)
	}
	return "| " + strings.Join(cells, " | ") + " |\n"
}

const dockerMeanings = "\nWhere docker and podman differ in the meaning of an option, careen follows podman: a bind whose" +
	"\nsource is missing is an error, `--mount` needs `type=`, a tmpfs is executable, `--read-only` leaves /run, /tmp" +
	"\nand /var/tmp writable, `--entrypoint` may be a JSON list, `-e 'PREFIX*'` copies all variables with that prefix," +
	"\nthe default limit of processes is 2048, and AUDIT_WRITE, MKNOD and NET_RAW are not among the default" +
	"\ncapabilities.\n"

// dockerSection lists docker's options that podman does not have.
func dockerSection() string {
	var b strings.Builder
	b.WriteString("\n## Options of docker that podman does not have\n\n| option | careen | why | instead |\n|---|---|---|---|\n")
	for _, option := range oci.Options() {
		if option.Podman == "docker" {
			b.WriteString(row(optionCell(option), string(option.Verdict), option.Help, option.Instead))
		}
	}
	b.WriteString(dockerMeanings)
	return b.String()
}

func differenceSection() string {
	var b strings.Builder
	b.WriteString("\n## All differences from podman 4.3.1\n\n" +
		"Tests compare careen with podman's results for 292 option sets (`oci/testdata/conformance`) and for random option sets\n" +
		"(`integration/podmandiff`). Every difference has to be in this table.\n\n" +
		"| difference | reason | seen in case |\n|---|---|---|\n")
	for _, difference := range differences {
		where := "any"
		if difference.Case != "" {
			where = "`" + difference.Case + "`"
		}
		b.WriteString(row(difference.What, difference.Reason, where))
	}
	return b.String()
}
