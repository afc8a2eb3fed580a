package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/cli/preview"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/node"
	"github.com/careen-project/careen/oci"
)

func (a *app) specCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "spec [--image-config FILE] [--rootfs DIR] [--cgroup v1|v2] [podman run options] IMAGE [COMMAND [ARG...]]",
		Short: "Print the runtime-spec of a run without running it",
		Long: `Print the runtime-spec of a run as JSON. The command uses no agent, pulls nothing and
changes nothing. Without --image-config the image has no configuration but a default
PATH. Without --rootfs names of users and groups cannot be found.`,
		Example:            "  careen spec --cgroup v2 --read-only --memory=1g registry.example/diag:1 /bin/diag",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := a.preview("spec", args, false)
			if p == nil {
				return err
			}
			for _, warning := range p.Plan.Warnings {
				a.console.Warn(warning)
			}
			return a.console.JSON(p.Plan.Spec)
		},
	}
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [--image-config FILE] [--rootfs DIR] [--cgroup v1|v2] [podman run options] IMAGE [COMMAND [ARG...]]",
		Short: "Explain the options of a run: what they do, and the risks",
		Long: `Explain a set of options, to review a runbook before it runs: what they do, what they
change compared with careen's defaults, and where they weaken isolation. The command
uses no agent, pulls nothing and changes nothing. It assumes that files and devices
that this machine does not have exist on the node; the output ends with a list of them.`,
		Example:            "  careen explain --privileged --pid=host -v /:/host registry.example/fw:1",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := a.preview("explain", args, true)
			if p == nil {
				return err
			}
			_, err = fmt.Fprint(a.console.Out, cli.Clean(p.Explain()))
			return err
		},
	}
}

// preview makes the preview of a command line. It is nil after --help, which is printed,
// and with an error.
func (a *app) preview(name string, words []string, assumed bool) (*preview.Preview, error) {
	inputs, words, err := cutSpecFlags(words)
	var run *oci.Run
	if err == nil {
		inputs.Assumed = assumed
		run, err = inputs.Parse(words)
	}
	if err == nil && run.Options.Help {
		fmt.Fprint(a.console.Out, commandHelp(name))
		return nil, nil //nolint:nilnil // nothing is left to do
	}
	var p *preview.Preview
	if err == nil {
		p, err = inputs.Preview(run)
	}
	if err != nil {
		return nil, a.console.Shown(err, oci.ExitCode(err))
	}
	return p, nil
}

// cutSpecFlags takes careen's own flags from the front of the words.
func cutSpecFlags(words []string) (f preview.Inputs, rest []string, err error) {
	known := map[string]*string{"--image-config": &f.ImageConfig, "--rootfs": &f.RootFS, "--cgroup": &f.Cgroup}
	for len(words) > 0 {
		name, value, glued := strings.Cut(words[0], "=")
		target := known[name]
		// podman's --rootfs is a switch with another meaning, which careen refuses.
		// This flag has a value and comes first.
		if target == nil {
			break
		}
		words = words[1:]
		if !glued {
			if len(words) == 0 {
				return f, nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: name, Reason: "its value is missing",
					Remedy: "For example: " + name + "=VALUE"}
			}
			value, words = words[0], words[1:]
		}
		*target = value
	}
	if f.Cgroup != "" && f.Cgroup != "v1" && f.Cgroup != "v2" {
		return f, nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--cgroup=" + f.Cgroup,
			Reason: "it is neither v1 nor v2", Remedy: "For example: --cgroup=v2"}
	}
	return f, words, node.Absolute(&f.ImageConfig, &f.RootFS)
}
