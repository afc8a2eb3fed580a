package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/node"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/rootfs/ramdisk"
)

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Show the versions of careen and of what is built in", Args: cobra.NoArgs,
		Example: "  careen version -o json",
		RunE: func(*cobra.Command, []string) error {
			return show(a, version.Get(), (*cli.Console).Version)
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) doctorCommand() *cobra.Command {
	var opts doctor.Options
	var config string
	cmd := &cobra.Command{
		Use: "doctor [REGISTRY...]", Short: "Check whether containers can run on this node",
		Long: `Check everything that a container step depends on. Each finding has an explanation
and a remedy. Nothing on the node is changed. The exit code is 1 if a
container could not run.`,
		Example: "  careen doctor\n  careen doctor registry.example:5000 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Registries = args
			if err := node.Absolute(&opts.Prepare.StoreDir, &opts.Prepare.RunDir, &config); err != nil {
				return err
			}
			checks := node.Doctor(cmd.Context(), opts, config)
			if err := show(a, checks, (*cli.Console).Checks); err != nil {
				return err
			}
			for _, check := range checks {
				if check.Status == doctor.StatusError {
					return cli.ExitCode(cli.ExitFailed)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&opts.Prepare.StoreDir, "root", "", "`DIR` the agent's --root [/var/lib/careen]")
	cmd.Flags().StringVar(&opts.Prepare.RunDir, "run-dir", "", "`DIR` the agent's --run-dir [/run/careen]")
	cmd.Flags().StringVar(&config, "config", "", "`FILE` the agent's --config [/etc/careen/careen.toml, if it exists]")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show the settings in force and where each comes from", Args: cobra.NoArgs,
		Example: "  careen config\n  careen config -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.client().Config(cmd.Context())
			if err != nil {
				return err
			}
			return show(a, cfg, (*cli.Console).Config)
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) stepCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "step", Short: "List and run Ironic's steps"}
	cmd.AddCommand(a.stepListCommand(), a.stepRunCommand())
	return cmd
}

var phases = []string{"clean", "deploy", "service"}

func (a *app) stepListCommand() *cobra.Command {
	var phase string
	cmd := &cobra.Command{
		Use: "list [--phase PHASE]", Short: "List the steps of a phase", Args: cobra.NoArgs,
		Example: "  careen step list --phase clean",
		RunE: func(cmd *cobra.Command, _ []string) error {
			steps, err := a.client().Steps(cmd.Context(), phase)
			if err != nil {
				return err
			}
			return show(a, steps, (*cli.Console).Steps)
		},
	}
	cmd.Flags().StringVar(&phase, "phase", "clean", "`clean|deploy|service` phase of the steps")
	completeFlag(cmd, "phase", phases...)
	a.outputFlag(cmd)
	return cmd
}

func (a *app) stepRunCommand() *cobra.Command {
	var (
		req  api.RunRequest
		args string
	)
	cmd := &cobra.Command{
		Use: "run NAME [--args JSON]", Short: "Run a step as Ironic would, under the same policy", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeSteps,
		Example:           `  careen step run generic_container_step --args '{"container_url": "registry.example/diag:1"}'`,
		RunE: func(cmd *cobra.Command, names []string) error {
			req.Step, req.Route = names[0], "cli"
			if args != "" {
				if err := json.Unmarshal([]byte(args), &req.Args); err != nil {
					return &fault.Error{Code: fault.BadOption, Op: "read", Subject: "--args", Err: err,
						Remedy: `Give a JSON object, for example: --args '{"container_url": "registry.example/diag:1"}'`}
				}
			}
			return a.withAgent(cmd.Context(), func(c *client.Client) error {
				return a.console.Attach(cmd.Context(), c, req, cli.Attachment{})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&args, "args", "", "`JSON` arguments of the step, a JSON object")
	f.StringVar(&req.Phase, "phase", "clean", "`clean|deploy|service` phase of the steps")
	completeFlag(cmd, "phase", phases...)
	f.StringVar(&req.ID, "id", "", "`ID` id of the run; a repeated command with the same id returns the same run")
	f.StringVar(&req.Timeout, "timeout", "", "`DURATION` time limit of the whole step, including the pull (e.g. 30m)")
	f.StringVar(&req.SilenceTimeout, "silence-timeout", "", "`DURATION` time limit without output (e.g. 5m)")
	return cmd
}

func (a *app) ramdiskCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ramdisk", Short: "Put careen into a ramdisk"}
	cmd.AddCommand(a.ramdiskAppendCommand())
	return cmd
}

func (a *app) ramdiskAppendCommand() *cobra.Command {
	var (
		opts  ramdisk.AppendOptions
		files map[string]string
	)
	cmd := &cobra.Command{
		Use: "append --output-file FILE [flags]", Short: "Append careen to an initramfs as a second archive", Args: cobra.NoArgs,
		Long: `Append careen to an existing ramdisk. The base is copied as it is: the kernel
unpacks one archive after the other, so nothing has to be rebuilt. Without --base
the result holds careen alone.`,
		Example: `  careen ramdisk append --base ipa.initramfs --output-file ipa-careen.initramfs --link podman
  careen ramdisk append --output-file careen.initramfs --unit init`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Files = files
			res, err := ramdisk.Append(cmd.Context(), opts)
			if err != nil {
				return err
			}
			return show(a, res, func(c *cli.Console, res ramdisk.Result) {
				fmt.Fprintf(c.Out, "%s: %s and %s of careen\n", opts.Output, cli.Size(res.Base), cli.Size(res.Added))
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Base, "base", "", "`FILE` the initramfs to append to")
	f.StringVar(&opts.Output, "output-file", "", "`FILE` the initramfs to write")
	f.StringVar(&opts.Binary, "binary", "", "`FILE` the careen binary to add [this one]")
	f.StringVar((*string)(&opts.Compression), "compression", "", "`gzip|zstd|none` compression of what is appended [gzip]")
	f.StringVar((*string)(&opts.Unit), "unit", "", "`systemd|openrc|init|none` what starts the agent [systemd]")
	completeFlag(cmd, "compression", "gzip", "zstd", "none")
	completeFlag(cmd, "unit", "systemd", "openrc", "init", "none")
	f.StringSliceVar(&opts.Links, "link", nil, "`NAME` additional name of careen in /usr/bin (e.g. podman)")
	f.StringToStringVar(&files, "file", nil, "`PATH=FILE` additional file: its path in the ramdisk, and the file to copy")
	a.outputFlag(cmd)
	return cmd
}

// initMain is careen as the first process of a ramdisk.
func initMain() int {
	if err := rootfs.Init(rootfs.InitOptions{Args: []string{"agent"}, Log: os.Stderr}); err != nil {
		cli.NewConsole().Fail(err)
		return cli.ExitFailed
	}
	return cli.ExitOK
}
