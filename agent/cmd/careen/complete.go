package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/oci"
)

// completeFlag offers the values that a flag takes.
func completeFlag(cmd *cobra.Command, name string, values ...string) {
	// It fails for a flag that is not there only.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// completePodman offers podman's options and careen's own ones that come before them,
// the stored images beside files where an image has to come, and files behind it.
func (a *app) completePodman(command oci.Command, own ...oci.OptionInfo) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		options := append(slices.Clone(own), offered(command)...)
		var found []string
		directive := cobra.ShellCompDirectiveDefault // files, where nothing is found
		option, image := position(options, args)
		name, _, glued := strings.Cut(begin, "=")
		switch {
		case image:
		case option != nil:
			found = choices(*option, "")
		case !strings.HasPrefix(begin, "-"):
			found, _ = a.completeImages(cmd, args, begin)
		case glued:
			for _, o := range options {
				if "--"+o.Name == name {
					found = choices(o, name+"=")
				}
			}
		default:
			for _, o := range options {
				found = append(found, "--"+o.Name+"\t"+o.Help)
			}
			directive = cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(found, func(f string) bool { return !strings.HasPrefix(f, begin) }), directive
	}
}

// offered are the options of a command that have an effect.
func offered(command oci.Command) []oci.OptionInfo {
	return slices.DeleteFunc(oci.Options(), func(o oci.OptionInfo) bool {
		return o.On&command == 0 || o.Verdict != oci.Implement
	})
}

// choices are the words among an option's values that its help names, as in
// "host|none|ns:PATH", each behind prefix.
func choices(o oci.OptionInfo, prefix string) (found []string) {
	values := strings.Split(o.Arg, "|")
	if o.Kind == oci.Bool {
		values = []string{"true", "false"}
	}
	for _, value := range values {
		word := !strings.ContainsFunc(value, func(r rune) bool { return r < 'a' || r > 'z' })
		if len(values) > 1 && word {
			found = append(found, prefix+value)
		}
	}
	return found
}

// position tells where in a command line its end is: at the value of an option, or
// behind the image.
func position(options []oci.OptionInfo, args []string) (option *oci.OptionInfo, image bool) {
	for _, word := range args {
		switch {
		case option != nil:
			option = nil
			continue
		case !strings.HasPrefix(word, "-"):
			return nil, true
		}
		for _, o := range options {
			if o.Kind != oci.Bool && (word == "--"+o.Name || o.Short != "" && word == "-"+o.Short) {
				option = &o
			}
		}
	}
	return option, false
}
