package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
)

func (a *app) pullCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "pull [podman pull options] IMAGE",
		Short:              "Pull an image",
		Long:               "Pull an image with podman's options and print its id.",
		Example:            "  careen pull registry.example/diag:1\n  careen pull --creds user:password --retry 5 docker://registry.example/diag:1",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pull(cmd.Context(), args, false)
		},
	}
}

// pull is careen pull and podman pull.
func (a *app) pull(ctx context.Context, words []string, plainOutput bool) error {
	caller := cli.Caller()
	parsed, err := oci.ParsePull(words, caller)
	if err != nil {
		return a.console.Shown(err, oci.ExitCode(err))
	}
	if parsed.Help {
		fmt.Fprint(a.console.Out, commandHelp("pull"))
		return nil
	}
	return a.withAgent(ctx, func(c *client.Client) error {
		progress := a.console.Progress(parsed.Quiet || plainOutput)
		pulled, err := c.Pull(ctx, api.PullRequest{
			Image: parsed.Image.Original, PullOptions: parsed.Words(), ExactOptions: true, WorkDir: caller.WorkDir,
		}, func(p api.PullProgress) { progress.Show(&p) })
		progress.Clear()
		if err != nil {
			return a.console.Shown(err, cli.ExitUsage)
		}
		for _, warning := range pulled.Warnings {
			a.console.Warn(warning)
		}
		_, err = fmt.Fprintln(a.console.Out, strings.TrimPrefix(pulled.ImageID, "sha256:")) // as podman does
		return err
	})
}

func (a *app) imagesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "images", Short: "List the stored images", Args: cobra.NoArgs,
		Example: "  careen images\n  careen images -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := a.client().Images(cmd.Context())
			if err != nil {
				return err
			}
			return show(a, images, (*cli.Console).Images)
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) rmiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rmi IMAGE...", Short: "Remove images by name, digest or id", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.complete(cli.Images),
		Example: "  careen rmi registry.example/diag:1",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, ref := range args {
				err := a.client().RemoveImage(cmd.Context(), ref)
				if fault.CodeOf(err) == fault.NotFound {
					// The user may give the short name that was pulled.
					if parsed, perr := oci.ParseReference(ref); perr == nil && parsed.Name != "" {
						err = a.client().RemoveImage(cmd.Context(), parsed.Name)
					}
				}
				if err != nil {
					return err
				}
				fmt.Fprintln(a.console.Out, ref)
			}
			return nil
		},
	}
}
