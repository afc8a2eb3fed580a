package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
)

func (a *app) agentCommand() *cobra.Command {
	opts := defaultNodeOptions("")
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
			opts.socket, opts.stays = a.socket, true
			if !cmd.Flags().Changed("socket") && os.Getenv("CAREEN_SOCKET") == "" {
				opts.socket = opts.runDir + "/careen.sock"
			}
			if err := opts.absolute(); err != nil {
				return err
			}
			for _, uid := range uids {
				opts.allowedUIDs = append(opts.allowedUIDs, uint32(uid))
			}
			if opts.critical < 0 {
				return &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--critical-limit=" + opts.critical.String(),
					Reason: "it is negative", Remedy: "For example: --critical-limit=30m"}
			}
			var err error
			if opts.storeSize, err = sizeFlag("--store-size", storeSize); err != nil {
				return err
			}
			if opts.logLimit, err = sizeFlag("--log-limit", logLimit); err != nil {
				return err
			}
			log, err := newLogger(logLevel, logFormat)
			if err != nil {
				return err
			}
			return a.serve(cmd.Context(), opts, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.root, "root", opts.root, "directory of the store: images and writable layers")
	f.StringVar(&opts.runDir, "run-dir", opts.runDir, "directory for the state of this boot")
	f.StringVar(&opts.state, "state", "", "directory for journal, audit record and logs; put it on a disk to keep them over a reboot (default RUN-DIR/state)")
	f.StringVar(&opts.config, "config", "", "careen's configuration file (default /etc/careen/careen.toml, if it exists)")
	f.StringVar(&opts.containerd, "containerd-address", "", "socket of an external containerd, 1.7 or newer (default: the embedded one)")
	f.StringVar(&opts.snapshotter, "snapshotter", "", "containerd's snapshotter (default overlayfs, or native if the node has no overlayfs)")
	f.StringVar(&storeSize, "store-size", "", "size limit of the tmpfs that holds the store (e.g. 8g; default three quarters of the free memory)")
	f.BoolVar(&opts.noStore, "no-store-tmpfs", false, "do not mount a tmpfs on --root")
	f.StringVar(&logLimit, "log-limit", "", "newest bytes of output kept per run (e.g. 16m)")
	f.DurationVar(&opts.grace, "grace", opts.grace, "time between stop signal and SIGKILL, for steps that set none")
	f.DurationVar(&opts.critical, "critical-limit", opts.critical, "maximum delay of an abort or timeout by a critical section (0: none)")
	f.IntVar(&opts.queue, "queue", opts.queue, "maximum number of waiting runs (-1: none)")
	f.BoolVar(&opts.stopOnExit, "stop-on-exit", false, "end containers when the agent stops")
	f.BoolVar(&opts.allowReboot, "allow-reboot", false, "reboot the node after a run whose container requests it")
	f.StringVar(&opts.beacon, "beacon", "", "where to keep a reboot marker if there is no --state: file:/PATH, efivar or pstore")
	f.UintSliceVar(&uids, "allow-uid", nil, "uid that may use the socket beside root; the user can become root through it")
	f.StringVar(&logLevel, "log-level", "info", "error, warning, info or debug")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	completeFlag(cmd, "log-level", "error", "warning", "info", "debug")
	completeFlag(cmd, "log-format", "text", "json")
	return cmd
}

// serve runs an agent until ctx ends.
func (a *app) serve(ctx context.Context, opts nodeOptions, log *logrus.Logger) error {
	if os.Geteuid() != 0 {
		return &fault.Error{Code: fault.Forbidden, Op: "start the agent", Reason: "it needs root", Remedy: "Run careen agent as root"}
	}
	// A step that exhausts the node's memory shall die before its agent. Without
	// CAP_SYS_RESOURCE this is refused, and nothing else depends on it.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0o644)
	ctx, stop := untilDown(ctx)
	defer stop()
	started := time.Now()
	n, err := startNode(ctx, opts, log)
	if err != nil {
		return err
	}
	log.Infof("ready on %s after %d ms: cgroup %s, store %s (%s, %s free), pivot_root %v", opts.socket,
		time.Since(started).Milliseconds(), n.layout.CgroupMode, n.layout.StoreDir, n.layout.StoreFS,
		bytesText(n.layout.StoreFree), n.layout.PivotRoot)
	reboot, err := n.awaitStop(ctx)
	if err != nil {
		return err
	}
	log.Info("stopping")
	if err := n.drain(ctx); err != nil && reboot == "" {
		return err
	}
	if reboot != "" {
		log.Warnf("rebooting the node: %s", reboot)
		return rebootNode()
	}
	return nil
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
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, DisableColors: !isTerminal(os.Stderr)})
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
	set.StringVar(&opts.RunDir, "run-dir", "", "")
	// The command itself reports wrong arguments.
	_ = set.Parse(args)
	if err := absolute(&opts.RunDir); err != nil {
		return err
	}
	return rootfs.Enter(opts)
}
