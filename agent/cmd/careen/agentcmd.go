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
		Long: `Run the agent until SIGTERM or SIGINT, or SIGPWR, which says that the node goes down.

On a bare ramdisk it first mounts what containers need and is missing, loads the
overlay module and gives the store a tmpfs of its own with a limit. It answers on
a unix socket that only root may use. Containers go on when it ends, unless
--stop-on-exit is given or the node goes down; the next agent finds them again.`,
		Example: `  careen agent
  careen agent --state /var/lib/careen-state --store-size 8g
  careen agent --containerd-address /run/containerd/containerd.sock`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.socket, opts.stays = a.socket, true
			if !cmd.Flags().Changed("socket") && os.Getenv("CAREEN_SOCKET") == "" {
				opts.socket = opts.runDir + "/careen.sock"
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
	f.StringVar(&opts.state, "state", "", "directory for journal, audit record and logs that survive a reboot (default RUN-DIR/state)")
	f.StringVar(&opts.config, "config", "", "careen's configuration (default /etc/careen/careen.toml, if there)")
	f.StringVar(&opts.containerd, "containerd-address", "", "socket of a containerd that runs already, 1.7 or newer; default: the embedded one")
	f.StringVar(&opts.snapshotter, "snapshotter", "", "containerd's snapshotter (default overlayfs, native where the node lacks it)")
	f.StringVar(&storeSize, "store-size", "", "limit of the store's own tmpfs, as in 8g (default three quarters of the free memory)")
	f.BoolVar(&opts.noStore, "no-store-tmpfs", false, "use --root as it is, even where it lies in the ramdisk's root")
	f.StringVar(&logLimit, "log-limit", "", "output kept of one run, the newest, as in 16m")
	f.DurationVar(&opts.grace, "grace", opts.grace, "time between stop signal and SIGKILL where a step has none")
	f.DurationVar(&opts.critical, "critical-limit", opts.critical, "longest that a critical section may hold off an abort or a time limit; 0 for not at all")
	f.IntVar(&opts.queue, "queue", opts.queue, "runs that may wait for their turn; -1 for none")
	f.BoolVar(&opts.stopOnExit, "stop-on-exit", false, "end containers when the agent is told to end")
	f.BoolVar(&opts.allowReboot, "allow-reboot", false, "reboot the node when a container asks for it, after its run has ended")
	f.StringVar(&opts.beacon, "beacon", "", "small record over a reboot where there is no --state: file:/PATH, efivar or pstore")
	f.UintSliceVar(&uids, "allow-uid", nil, "users that may use the socket beside root; they can become root by it")
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
	// Whatever is wrong with the arguments is said by the command itself.
	_ = set.Parse(args)
	return rootfs.Enter(opts)
}
