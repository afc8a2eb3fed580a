package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
)

// ofRun returns the body of a command that takes one run: its id, name or id prefix.
func (a *app) ofRun(do func(ctx context.Context, id string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		id, err := a.client().ResolveID(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return do(cmd.Context(), id)
	}
}

// completeRuns offers ids and names of runs to the shell.
func (a *app) completeRuns(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
	runs, err := a.client().Runs(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, run := range runs {
		for _, word := range []string{run.ID, run.Name} {
			if word != "" && strings.HasPrefix(word, begin) {
				found = append(found, word+"\t"+string(run.State)+", "+what(run))
			}
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeImages offers the stored images.
func (a *app) completeImages(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
	images, err := a.client().Images(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, image := range images {
		if strings.HasPrefix(image.Name, begin) {
			found = append(found, image.Name)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeSteps offers the steps of the phase.
func (a *app) completeSteps(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
	phase, _ := cmd.Flags().GetString("phase")
	steps, err := a.client().Steps(cmd.Context(), phase)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, step := range steps {
		if strings.HasPrefix(step.Step, begin) {
			found = append(found, step.Step)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
