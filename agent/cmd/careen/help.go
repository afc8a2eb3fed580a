package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/explain"
)

// helpWidth is how wide help may be, in columns.
const helpWidth = 80

// podmanOptions are the commands whose options are podman's, read by package oci.
var podmanOptions = map[string]oci.Command{"run": oci.OnRun, "spec": oci.OnRun, "explain": oci.OnRun, "pull": oci.OnPull}

// ownOptions are careen's own options of such commands, which come before podman's.
var ownOptions = map[string][]oci.OptionInfo{"spec": specOptions, "explain": specOptions}

var specOptions = []oci.OptionInfo{
	{Name: "image-config", Kind: oci.String, Arg: "FILE", Help: "OCI image configuration, as JSON"},
	{Name: "rootfs", Kind: oci.String, Arg: "DIR", Help: "files of the image, for names of users and groups"},
	{Name: "cgroup", Kind: oci.String, Arg: "v1|v2", Help: "cgroup version of the node [this node's]"},
}

// commandHelp is the help of a command of careen, for one that reads its own options.
func commandHelp(name string) string {
	a := &app{console: cli.NewConsole()}
	for _, cmd := range a.rootCommand().Commands() {
		if cmd.Name() == name {
			return helpText(cmd)
		}
	}
	return ""
}

// helpText is what --help shows of a command: what it does, how to write it, examples,
// its commands and options.
func helpText(cmd *cobra.Command) string {
	var b strings.Builder
	section := func(title, body string) {
		if body = strings.TrimRight(body, "\n"); body != "" {
			b.WriteString("\n" + title + ":\n" + body + "\n")
		}
	}
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	b.WriteString(fill(about) + "\n")
	command, podman := podmanOptions[cmd.Name()]
	podman = podman && cmd.DisableFlagParsing // "step run" is another command
	usage := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		usage = cmd.CommandPath() + " COMMAND"
	}
	section("Usage", hang(usage))
	section("Examples", cmd.Example)
	for _, group := range cmd.Groups() {
		section(strings.TrimSuffix(group.Title, ":"), commandList(cmd, group.ID))
	}
	section("Commands", commandList(cmd, ""))
	if podman {
		section("Before the command", flagList(cmd.InheritedFlags()))
		section("Before podman's options", explain.List(ownOptions[cmd.Name()]))
		b.WriteString("\n" + explain.Help(command))
		return b.String()
	}
	section("Flags", flagList(cmd.LocalFlags()))
	section("Global flags", flagList(cmd.InheritedFlags()))
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nUse \"" + cmd.CommandPath() + " COMMAND --help\" for the details of a command.\n")
	}
	return b.String()
}

// argument is the annotation of a flag with the placeholder of its value.
const argument = "argument"

// nameArguments takes the placeholder of a flag's value, such as DIR, from the front of
// the flag's usage: "`DIR` directory of the store".
func nameArguments(cmd *cobra.Command) {
	name := func(f *pflag.Flag) {
		if words := strings.SplitN(f.Usage, "`", 3); len(words) == 3 {
			f.Usage = strings.TrimSpace(words[2])
			f.Annotations = map[string][]string{argument: {words[1]}}
		}
	}
	cmd.Flags().VisitAll(name)
	cmd.PersistentFlags().VisitAll(name)
	for _, sub := range cmd.Commands() {
		nameArguments(sub)
	}
}

// flagList lists flags as package explain lists podman's options.
func flagList(flags *pflag.FlagSet) string {
	var options []oci.OptionInfo
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		o := oci.OptionInfo{Name: f.Name, Short: f.Shorthand, Help: f.Usage, Default: f.DefValue}
		if o.Default == "[]" || o.Default == "0" {
			o.Default = ""
		}
		if words := f.Annotations[argument]; len(words) > 0 {
			o.Arg = words[0]
		}
		options = append(options, o)
	})
	return explain.List(options)
}

// fill wraps the paragraphs of a text that are too wide.
func fill(text string) string {
	paragraphs := strings.Split(strings.TrimSpace(text), "\n\n")
	for i, p := range paragraphs {
		for line := range strings.SplitSeq(p, "\n") {
			if len(line) > helpWidth {
				paragraphs[i] = cli.Wrap(p, "", helpWidth)
				break
			}
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// hang breaks a usage that is too wide, its further lines deeper than the first.
func hang(usage string) string {
	first, rest, broken := strings.Cut(cli.Wrap(usage, "  ", helpWidth), "\n")
	if !broken {
		return first
	}
	return first + "\n" + cli.Wrap(rest, "      ", helpWidth)
}

// commandList names the commands of a group below cmd.
func commandList(cmd *cobra.Command, group string) string {
	var b strings.Builder
	for _, c := range cmd.Commands() {
		if c.GroupID == group && (c.IsAvailableCommand() || c.Name() == "help") {
			b.WriteString("  " + c.Name() + strings.Repeat(" ", max(1, 12-len(c.Name()))) + c.Short + "\n")
		}
	}
	return b.String()
}
