package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// which returns the id of the run that an operator means: its id, the name that
// --name gave it (the newest of several), or a beginning of one id alone.
func (a *app) which(ctx context.Context, given string) (string, error) {
	_, err := a.client().Run(ctx, given)
	if fault.CodeOf(err) != fault.NotFound {
		return given, err
	}
	runs, lerr := a.client().Runs(ctx)
	if lerr != nil {
		return "", lerr
	}
	var named *api.Run
	var begin []string
	for _, run := range runs {
		if run.Name == given {
			named = &run // the list is in the order of acceptance, whatever the clock did
		}
		if strings.HasPrefix(run.ID, given) {
			begin = append(begin, run.ID)
		}
	}
	switch {
	case named != nil:
		return named.ID, nil
	case len(begin) == 1:
		return begin[0], nil
	case len(begin) > 1:
		return "", &fault.Error{Code: fault.NotFound, Op: "find run", Subject: given,
			Reason: "several begin so: " + strings.Join(begin[:min(len(begin), 4)], ", "), Remedy: "Give more of the id"}
	}
	return "", err
}

// ofRun makes what a command does of a function of the one run that it names.
func (a *app) ofRun(do func(ctx context.Context, id string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		id, err := a.which(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return do(cmd.Context(), id)
	}
}

// completeRuns offers the runs there are, to a shell that completes a command.
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
