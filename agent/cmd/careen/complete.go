package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/oci"
)

// completeFlag offers the values that a flag takes.
func completeFlag(cmd *cobra.Command, name string, values ...string) {
	// It fails only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// complete offers what list returns.
func (a *app) complete(list func(context.Context, *client.Client) []cli.Candidate) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
		return cli.Matching(begin, list(cmd.Context(), a.client())), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeSteps offers the steps of --phase.
func (a *app) completeSteps(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
	phase, _ := cmd.Flags().GetString("phase")
	return cli.Matching(begin, cli.Steps(cmd.Context(), a.client(), phase)), cobra.ShellCompDirectiveNoFileComp
}

// completePodman offers podman's options, and own: careen's options before them.
func (a *app) completePodman(command oci.Command, own ...oci.OptionInfo) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		all, files := cli.Options(command, own, args, begin, func() []cli.Candidate { return cli.Images(cmd.Context(), a.client()) })
		directive := cobra.ShellCompDirectiveNoFileComp
		if files {
			directive = cobra.ShellCompDirectiveDefault
		}
		return cli.Matching(begin, all), directive
	}
}
