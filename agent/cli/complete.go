package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/oci"
)

// Candidate is a word that the shell may complete.
type Candidate struct{ Word, About string }

// Matching returns the candidates that start with begin, as cobra expects them: the word,
// and its description behind a tab. A word that would change when it is escaped is left
// out: the shell would insert it into the command line.
func Matching(begin string, all []Candidate) (found []string) {
	for _, c := range all {
		switch {
		case c.Word == "" || !strings.HasPrefix(c.Word, begin) || Line(c.Word) != c.Word:
		case c.About == "":
			found = append(found, c.Word)
		default:
			found = append(found, c.Word+"\t"+Line(c.About))
		}
	}
	return found
}

// Runs returns ids and names of the runs; none if the agent does not answer.
func Runs(ctx context.Context, agent *client.Client) (all []Candidate) {
	runs, _ := agent.Runs(ctx)
	for _, run := range runs {
		about := string(run.State) + ", " + stepOrImage(run)
		all = append(all, Candidate{run.ID, about}, Candidate{run.Name, about})
	}
	return all
}

// Images returns the names of the stored images; none if the agent does not answer.
func Images(ctx context.Context, agent *client.Client) (all []Candidate) {
	images, _ := agent.Images(ctx)
	for _, image := range images {
		all = append(all, Candidate{Word: image.Name})
	}
	return all
}

// Steps returns the steps of a phase; none if the agent does not answer.
func Steps(ctx context.Context, agent *client.Client, phase string) (all []Candidate) {
	steps, _ := agent.Steps(ctx, phase)
	for _, step := range steps {
		all = append(all, Candidate{Word: step.Step})
	}
	return all
}

// Options returns candidates for a word of a command with podman's options: an option, a
// value of one, or where an image has to come, images. own are options of careen's that
// come before podman's, args the words before. With files, the shell may offer files too.
func Options(command oci.Command, own []oci.OptionInfo, args []string, begin string, images func() []Candidate) (all []Candidate, files bool) {
	options := slices.Clone(own)
	for _, o := range oci.Options() {
		if o.On&command != 0 && o.Verdict == oci.Implement {
			options = append(options, o)
		}
	}
	option, behindImage := position(options, args)
	name, _, hasValue := strings.Cut(begin, "=")
	switch {
	case behindImage:
	case option != nil:
		all = values(*option, "")
	case !strings.HasPrefix(begin, "-"):
		all = images()
	case hasValue:
		for _, o := range options {
			if "--"+o.Name == name {
				all = values(o, name+"=")
			}
		}
	default:
		for _, o := range options {
			all = append(all, Candidate{"--" + o.Name, o.Help})
		}
		return all, false
	}
	return all, true
}

// values returns the fixed words among the values of an option that its help lists, such
// as host and none in "host|none|ns:PATH", each behind prefix.
func values(o oci.OptionInfo, prefix string) (all []Candidate) {
	listed := strings.Split(o.Arg, "|")
	if o.Kind == oci.Bool {
		listed = []string{"true", "false"}
	}
	for _, value := range listed {
		fixed := !strings.ContainsFunc(value, func(r rune) bool { return r < 'a' || r > 'z' })
		if len(listed) > 1 && fixed {
			all = append(all, Candidate{Word: prefix + value})
		}
	}
	return all
}

// position returns what comes next on a command line: the value of option, something
// behind the image, or else an option or the image.
func position(options []oci.OptionInfo, args []string) (option *oci.OptionInfo, behindImage bool) {
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
