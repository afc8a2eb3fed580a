package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/api"
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
			v := version.Get()
			if a.output == "json" {
				return a.console.json(v)
			}
			for _, line := range [][2]string{
				{"careen", v.Version}, {"commit", v.Commit}, {"api", v.APIVersion}, {"containerd", v.Containerd},
				{"libcontainer", v.Libcontainer}, {"runtime-spec", v.Spec}, {"go", v.Go}, {"platform", v.Platform},
			} {
				fmt.Fprintf(a.console.out, "%-13s %s\n", line[0]+":", line[1])
			}
			return nil
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
			if a.output == "json" {
				if err := a.console.json(checks); err != nil {
					return err
				}
			} else {
				a.showChecks(checks)
			}
			for _, check := range checks {
				if check.Status == doctor.StatusError {
					return exitCode(exitFailed)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&opts.Prepare.StoreDir, "root", "", "the agent's --root")
	cmd.Flags().StringVar(&opts.Prepare.RunDir, "run-dir", "", "the agent's --run-dir")
	cmd.Flags().StringVar(&config, "config", "", "the agent's --config")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) showChecks(checks []api.Check) {
	colors := map[string]string{doctor.StatusOK: green, doctor.StatusWarning: yellow, doctor.StatusError: red}
	for _, check := range checks {
		status := fmt.Sprintf("%-7s", check.Status)
		if isTerminal(a.console.out) && a.console.color {
			status = colors[check.Status] + status + reset
		}
		const indent = "                          "
		head := fmt.Sprintf("  %-16s ", clean(check.Name))
		if len(head) > len(indent)-len("warning") {
			head = strings.TrimRight(head, " ") + "\n" + indent // the name of a registry
		}
		detail := strings.TrimLeft(wrap(clean(check.Detail), indent, helpWidth), " ")
		fmt.Fprintf(a.console.out, "%s%s%s\n", status, head, detail)
		if check.Remedy != "" {
			fmt.Fprintln(a.console.out, wrap(clean(check.Remedy), indent, helpWidth))
		}
	}
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
			if a.output == "json" {
				return a.console.json(cfg)
			}
			for _, warning := range cfg.Warnings {
				a.console.warn(warning)
			}
			var rows [][]string
			for _, s := range cfg.Settings {
				rows = append(rows, []string{s.Key, s.From, s.Value})
			}
			// A value is what is asked for: it is never cut.
			table(a.console.out, math.MaxInt, []string{"KEY", "FROM", "VALUE"}, rows)
			return nil
		},
	}
	a.outputFlag(cmd)
	return cmd
}

func (a *app) stepCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "step", Short: "List and run the steps that Ironic sees"}
	cmd.AddCommand(a.stepListCommand(), a.stepRunCommand())
	return cmd
}

var phases = []string{"clean", "deploy", "service"}

func (a *app) stepListCommand() *cobra.Command {
	var phase string
	cmd := &cobra.Command{
		Use: "list --phase PHASE", Short: "List the steps of a phase", Args: cobra.NoArgs,
		Example: "  careen step list --phase clean",
		RunE: func(cmd *cobra.Command, _ []string) error {
			steps, err := a.client().Steps(cmd.Context(), phase)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.console.json(steps)
			}
			var rows [][]string
			for _, s := range steps {
				rows = append(rows, []string{fmt.Sprint(s.Priority), s.Interface, yes(s.Abortable), yes(s.RebootRequested), s.Step})
			}
			table(a.console.out, a.console.width(), []string{"PRIORITY", "INTERFACE", "ABORTABLE", "REBOOT", "STEP"}, rows)
			return nil
		},
	}
	cmd.Flags().StringVar(&phase, "phase", "clean", "clean, deploy or service")
	completeFlag(cmd, "phase", phases...)
	a.outputFlag(cmd)
	return cmd
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
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
				return a.attach(cmd.Context(), c, req, attachment{})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&args, "args", "", "arguments of the step, a JSON object")
	f.StringVar(&req.Phase, "phase", "clean", "clean, deploy or service")
	completeFlag(cmd, "phase", phases...)
	f.StringVar(&req.ID, "id", "", "id of the run; a repeated command with the same id returns the same run")
	f.StringVar(&req.Timeout, "timeout", "", "time limit of the whole step, including the pull (e.g. 30m)")
	f.StringVar(&req.SilenceTimeout, "silence-timeout", "", "longest time without output (e.g. 5m)")
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
			if a.output == "json" {
				return a.console.json(res)
			}
			fmt.Fprintf(a.console.out, "%s: %s and %s of careen\n", opts.Output, bytesText(res.Base), bytesText(res.Added))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Base, "base", "", "the initramfs to append to")
	f.StringVar(&opts.Output, "output-file", "", "the initramfs to write")
	f.StringVar(&opts.Binary, "binary", "", "the careen binary to add (default this one)")
	f.StringVar((*string)(&opts.Compression), "compression", "", "gzip, zstd or none (default gzip)")
	f.StringVar((*string)(&opts.Unit), "unit", "", "how the agent is started: systemd, openrc, init or none (default systemd)")
	completeFlag(cmd, "compression", "gzip", "zstd", "none")
	completeFlag(cmd, "unit", "systemd", "openrc", "init", "none")
	f.StringSliceVar(&opts.Links, "link", nil, "additional name of careen in /usr/bin (e.g. podman)")
	f.StringToStringVar(&files, "file", nil, "additional file, PATH-IN-RAMDISK=FILE")
	a.outputFlag(cmd)
	return cmd
}

// initMain is careen as the first process of a ramdisk.
func initMain() int {
	if err := rootfs.Init(rootfs.InitOptions{Args: []string{"agent"}, Log: os.Stderr}); err != nil {
		newConsole().fail(err)
		return exitFailed
	}
	return exitOK
}
