package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/api"
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
	caller := localCaller()
	parsed, err := oci.ParsePull(words, caller)
	if err != nil {
		a.console.fail(err)
		return exitCode(oci.ExitCode(err))
	}
	if parsed.Help {
		fmt.Fprint(a.console.out, commandHelp("pull"))
		return nil
	}
	return a.withAgent(ctx, func(c *client.Client) error {
		show := &progress{c: a.console, quiet: parsed.Quiet || plainOutput}
		pulled, err := c.Pull(ctx, api.PullRequest{
			Image: parsed.Image.Original, PullOptions: parsed.Words(), ExactOptions: true, WorkDir: caller.WorkDir,
		}, func(p api.PullProgress) { show.show(&p) })
		show.clear()
		if err != nil {
			a.console.fail(err)
			return exitCode(exitUsage)
		}
		for _, warning := range pulled.Warnings {
			a.console.warn(warning)
		}
		_, err = fmt.Fprintln(a.console.out, trimAlgorithm(pulled.ImageID))
		return err
	})
}

// trimAlgorithm is how podman prints an image's id.
func trimAlgorithm(digest string) string {
	const prefix = "sha256:"
	if len(digest) > len(prefix) && digest[:len(prefix)] == prefix {
		return digest[len(prefix):]
	}
	return digest
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
			if a.output == "json" {
				return a.console.json(images)
			}
			var rows [][]string
			for _, i := range images {
				rows = append(rows, []string{short(i.ID), short(i.Digest), bytesText(i.Size), ago(i.PulledAt), i.Name})
			}
			table(a.console.out, a.console.width(), []string{"ID", "DIGEST", "SIZE", "PULLED", "NAME"}, rows)
			return nil
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) rmiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rmi IMAGE...", Short: "Remove images by name, digest or id", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeImages,
		Example: "  careen rmi registry.example/diag:1",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, ref := range args {
				err := a.client().RemoveImage(cmd.Context(), ref)
				if fault.CodeOf(err) == fault.NotFound {
					// As it was typed to pull it: with the parts that a short name lacks.
					if parsed, perr := oci.ParseReference(ref); perr == nil && parsed.Name != "" {
						err = a.client().RemoveImage(cmd.Context(), parsed.Name)
					}
				}
				if err != nil {
					return err
				}
				fmt.Fprintln(a.console.out, ref)
			}
			return nil
		},
	}
}
