package main

import (
	"strings"

	"github.com/spf13/cobra"

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
	{Name: "image-config", Kind: oci.String, Arg: "FILE", Help: "the image's configuration, as JSON"},
	{Name: "rootfs", Kind: oci.String, Arg: "DIR", Help: "the image's files, for names of users and groups"},
	{Name: "cgroup", Kind: oci.String, Arg: "v1|v2", Help: "the cgroup version of the node that it is for"},
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
		section("Before the command", cmd.InheritedFlags().FlagUsagesWrapped(helpWidth))
		b.WriteString("\n" + explain.Help(command))
		return b.String()
	}
	section("Flags", cmd.LocalFlags().FlagUsagesWrapped(helpWidth))
	section("Global flags", cmd.InheritedFlags().FlagUsagesWrapped(helpWidth))
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nUse \"" + cmd.CommandPath() + " COMMAND --help\" for the details of a command.\n")
	}
	return b.String()
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
