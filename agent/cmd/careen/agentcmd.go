package main

import (
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/node"
	"github.com/careen-project/careen/rootfs"
)

func (a *app) agentCommand() *cobra.Command {
	opts := node.Defaults()
	opts.Version = version.Get()
	var storeSize, logLimit, logLevel, logFormat string
	var uids []uint
	cmd := &cobra.Command{
		Use:   "agent [flags]",
		Short: "Run the agent: containerd, the socket and the steps",
		Long: `Run the agent until SIGTERM, SIGINT, or SIGPWR (the node shuts down).

On a bare ramdisk it first mounts the file systems that containers need, loads the
overlay module, and mounts a tmpfs with a size limit for the store. It listens on a
unix socket that only root may use. Containers keep running when the agent stops,
unless --stop-on-exit is given or the node shuts down. The next agent adopts them.`,
		Example: `  careen agent
  careen agent --state /var/lib/careen-state --store-size 8g
  careen agent --containerd-address /run/containerd/containerd.sock`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Socket = a.socket
			if !cmd.Flags().Changed("socket") && os.Getenv("CAREEN_SOCKET") == "" {
				opts.Socket = opts.RunDir + "/careen.sock"
			}
			if err := opts.Absolute(); err != nil {
				return err
			}
			for _, uid := range uids {
				opts.AllowedUIDs = append(opts.AllowedUIDs, uint32(uid))
			}
			if opts.Critical < 0 {
				return &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--critical-limit=" + opts.Critical.String(),
					Reason: "it is negative", Remedy: "For example: --critical-limit=30m"}
			}
			var err error
			if opts.StoreSize, err = sizeFlag("--store-size", storeSize); err != nil {
				return err
			}
			if opts.LogLimit, err = sizeFlag("--log-limit", logLimit); err != nil {
				return err
			}
			log, err := newLogger(logLevel, logFormat)
			if err != nil {
				return err
			}
			return node.Serve(cmd.Context(), opts, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Root, "root", opts.Root, "`DIR` directory of the store: images and writable layers")
	f.StringVar(&opts.RunDir, "run-dir", opts.RunDir, "`DIR` directory for the state of this boot")
	f.StringVar(&opts.State, "state", "", "`DIR` directory for journal, audit record and logs; put it on a disk to keep them over a reboot [RUN-DIR/state]")
	f.StringVar(&opts.Config, "config", "", "`FILE` careen's configuration file [/etc/careen/careen.toml, if it exists]")
	f.StringVar(&opts.Containerd, "containerd-address", "", "`SOCKET` socket of an external containerd, 1.7 or newer [the embedded containerd]")
	f.StringVar(&opts.Snapshotter, "snapshotter", "", "`NAME` containerd's snapshotter [overlayfs, or native if the node has no overlayfs]")
	f.StringVar(&storeSize, "store-size", "", "`SIZE` size limit of the tmpfs that holds the store (e.g. 8g) [three quarters of the free memory]")
	f.BoolVar(&opts.NoStore, "no-store-tmpfs", false, "do not mount a tmpfs on --root")
	f.StringVar(&logLimit, "log-limit", "", "`SIZE` newest bytes of output kept per run [16m]")
	f.DurationVar(&opts.Grace, "grace", opts.Grace, "`DURATION` time between stop signal and SIGKILL, for steps that set none")
	f.DurationVar(&opts.Critical, "critical-limit", opts.Critical, "`DURATION` maximum delay of an abort or timeout by a critical section (0: none)")
	f.IntVar(&opts.Queue, "queue", opts.Queue, "`N` maximum number of waiting runs (-1: none)")
	f.BoolVar(&opts.StopOnExit, "stop-on-exit", false, "end containers when the agent stops")
	f.BoolVar(&opts.AllowReboot, "allow-reboot", false, "reboot the node after a run whose container requests it")
	f.StringVar(&opts.Marker, "reboot-marker", "", "`PLACE` where to keep a reboot marker if there is no --state: file:/PATH, efivar or pstore")
	f.StringVar(&opts.Marker, "beacon", "", "the former name of --reboot-marker")
	_ = f.MarkHidden("beacon")
	f.UintSliceVar(&uids, "allow-uid", nil, "`UID` additional user id that may use the socket; it gives the user the rights of root")
	f.StringVar(&logLevel, "log-level", "info", "`error|warning|info|debug` least severe messages to log")
	f.StringVar(&logFormat, "log-format", "text", "`text|json` format of the log")
	completeFlag(cmd, "log-level", "error", "warning", "info", "debug")
	completeFlag(cmd, "log-format", "text", "json")
	return cmd
}

func newLogger(level, format string) (*logrus.Logger, error) {
	log := logrus.StandardLogger()
	parsed, err := logrus.ParseLevel(level)
	if err != nil {
		return nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--log-level=" + level, Err: err,
			Remedy: "For example: --log-level=debug"}
	}
	log.SetLevel(parsed)
	switch format {
	case "json":
		log.SetFormatter(&logrus.JSONFormatter{})
	case "text":
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, DisableColors: !cli.IsTerminal(os.Stderr)})
	default:
		return nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--log-format=" + format,
			Reason: "it is neither text nor json", Remedy: "For example: --log-format=json"}
	}
	return log, nil
}

// sizeFlag reads a size in bytes, with the suffixes of podman's --memory.
func sizeFlag(name, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(strings.TrimSpace(text))
	if err != nil || n <= 0 {
		return 0, &fault.Error{Code: fault.BadOption, Op: "use", Subject: name + "=" + text,
			Reason: "it is not a size", Remedy: "For example: " + name + "=8g"}
	}
	return n, nil
}

// enterNode moves the process to where containers can be started, before anything
// else: see rootfs.Enter. args are those of the command.
func enterNode(args []string) error {
	opts := rootfs.EnterOptions{}
	set := pflag.NewFlagSet("enter", pflag.ContinueOnError)
	set.ParseErrorsAllowlist.UnknownFlags = true
	set.Usage = func() {}
	set.StringVar(&opts.RunDir, "run-dir", "", "`DIR` ")
	// The command itself reports wrong arguments.
	_ = set.Parse(args)
	if err := node.Absolute(&opts.RunDir); err != nil {
		return err
	}
	return rootfs.Enter(opts)
}
