package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/node"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/explain"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime"
)

// maxImageConfig bounds --image-config in bytes.
const maxImageConfig = 8 << 20

// specFlags are the flags of careen spec and explain that come before podman's.
type specFlags struct{ imageConfig, rootfs, cgroup string }

func (a *app) specCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "spec [--image-config FILE] [--rootfs DIR] [--cgroup v1|v2] [podman run options] IMAGE [COMMAND [ARG...]]",
		Short: "Print the runtime-spec that options make, and touch nothing",
		Long: `Print the runtime-spec as JSON. There is no agent and no pull: the image's
configuration is given with --image-config (an OCI image configuration, as JSON),
its files with --rootfs (for names in /etc/passwd and /etc/group), and the cgroup
version of the node that the spec is for with --cgroup.`,
		Example:            "  careen spec --cgroup v2 --read-only --memory=1g registry.example/diag:1 /bin/diag",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			run, plan, _, err := a.plans("spec", args, nil)
			if err != nil || run == nil {
				return err
			}
			for _, warning := range plan.Warnings {
				a.console.Warn(warning)
			}
			return a.console.JSON(plan.Spec)
		},
	}
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [--image-config FILE] [--rootfs DIR] [--cgroup v1|v2] [podman run options] IMAGE [COMMAND [ARG...]]",
		Short: "Say in plain words what options do, and what they weaken",
		Long: `Say what a set of options is for, what it changes against careen's default for
the same image, and where it weakens isolation: to review a runbook before it runs.
Nothing is pulled or touched. What the options name and this machine has not, or the
image without --rootfs, is taken to be there; the end of the text says what.`,
		Example:            "  careen explain --privileged --pid=host -v /:/host registry.example/fw:1",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			review := explain.NewAssumedHost(rootfs.Host())
			run, plan, base, err := a.plans("explain", args, review)
			if err != nil || run == nil {
				return err
			}
			explained := explain.Compare(run, plan, base)
			explained.Assumed, explained.Requires = review.Notes(), requiredBy(plan.Labels)
			_, err = fmt.Fprint(a.console.Out, cli.Clean(explained.String()))
			return err
		},
	}
}

// requiredBy says what an image's label asks of a node, or what is wrong with it.
func requiredBy(labels map[string]string) (lines []string) {
	list, err := doctor.ParseRequirements(labels[doctor.RequiresLabel])
	if err != nil {
		return []string{fmt.Sprintf("the label %s is invalid: %v; the agent refuses to run the image", doctor.RequiresLabel, err)}
	}
	for _, r := range list {
		lines = append(lines, r.Meaning())
	}
	return lines
}

// plans reads the words of the command and makes the plan they mean and that of the
// bare image. review, if it is not nil, stands for the node. run is nil when help was
// asked for and shown.
func (a *app) plans(name string, words []string, review *explain.AssumedHost) (run *oci.Run, plan, base *oci.Plan, err error) {
	flags, words, err := cutSpecFlags(words)
	caller := cli.Caller()
	if review != nil {
		caller.Host = review
	}
	if err == nil {
		run, err = oci.ParseRun(words, caller)
	}
	if err == nil && run.Options.Help {
		fmt.Fprint(a.console.Out, commandHelp(name))
		return nil, nil, nil, nil
	}
	var in oci.BuildInput
	if err == nil {
		in, err = flags.input(run)
	}
	if err == nil && review != nil {
		in.Host = review
		if flags.rootfs == "" {
			in.Image.Files = review.Files(run, in.Image.Config.Config.User)
		}
	}
	if err == nil {
		plan, err = run.Build(in)
	}
	if err == nil {
		base, err = run.Baseline().Build(in)
	}
	if err != nil {
		return nil, nil, nil, a.console.Shown(err, oci.ExitCode(err))
	}
	return run, plan, base, nil
}

// cutSpecFlags takes careen's own flags from the front of the words.
func cutSpecFlags(words []string) (f specFlags, rest []string, err error) {
	known := map[string]*string{"--image-config": &f.imageConfig, "--rootfs": &f.rootfs, "--cgroup": &f.cgroup}
	for len(words) > 0 {
		name, value, glued := strings.Cut(words[0], "=")
		target := known[name]
		// podman's --rootfs is a switch of another meaning, which careen refuses:
		// the flag here always has a value and comes first.
		if target == nil {
			break
		}
		words = words[1:]
		if !glued {
			if len(words) == 0 {
				return f, nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: name, Reason: "its value is missing",
					Remedy: "For example: " + name + "=VALUE"}
			}
			value, words = words[0], words[1:]
		}
		*target = value
	}
	if f.cgroup != "" && f.cgroup != "v1" && f.cgroup != "v2" {
		return f, nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--cgroup=" + f.cgroup,
			Reason: "it is neither v1 nor v2", Remedy: "For example: --cgroup=v2"}
	}
	return f, words, node.Absolute(&f.imageConfig, &f.rootfs)
}

func (f specFlags) input(run *oci.Run) (oci.BuildInput, error) {
	node, err := rootfs.GatherNode()
	if err != nil {
		return oci.BuildInput{}, err
	}
	if f.cgroup != "" {
		node.CgroupV2 = f.cgroup == "v2"
	}
	self, err := os.Executable()
	if err != nil {
		self = "/usr/bin/careen"
	}
	const id = "0000000000000000000000000000000000000000000000000000000000000000"
	in := oci.BuildInput{
		ID: id, Node: node, Host: rootfs.Host(), Environ: cli.Caller().Environ, InitPath: self,
		Dir: rootfs.DefaultRunDir + "/runs/RUN", ControlDir: rootfs.DefaultRunDir + "/runs/RUN/control", RootFS: "rootfs",
		VolumeDir: rootfs.DefaultStoreDir + "/volumes",
		Image:     oci.Image{Reference: run.Image.Original, Digest: run.Image.Digest, Files: noFiles{}},
	}
	in.Image.Config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if f.rootfs != "" {
		in.Image.Files = runtime.ImageFiles(f.rootfs)
	}
	if f.imageConfig != "" {
		if in.Image.Config, err = readImageConfig(f.imageConfig); err != nil {
			return oci.BuildInput{}, err
		}
		if err := checkPlatform(run.Pull(), in.Image.Config.Platform); err != nil {
			return oci.BuildInput{}, err
		}
	} else if len(run.Command) == 0 && run.Options.Entrypoint == nil {
		in.Image.Config.Config.Cmd = []string{"/bin/sh"}
	}
	return in, nil
}

func readImageConfig(path string) (cfg ocispec.Image, err error) {
	data, err := rootfs.Host().ReadFile(path, maxImageConfig)
	if err == nil {
		err = json.Unmarshal(data, &cfg)
	}
	if err != nil {
		return cfg, &fault.Error{Code: fault.BadOption, Op: "read", Subject: "--image-config=" + path, Err: err,
			Remedy: "Give an OCI image configuration, such as skopeo inspect --config prints"}
	}
	return cfg, nil
}

// checkPlatform refuses an image that a pull with these options would not choose. An
// image that does not say what it is for fits.
func checkPlatform(pull *oci.Pull, has ocispec.Platform) error {
	want := platforms.Normalize(ocispec.Platform{OS: pull.Platform.OS, Architecture: pull.Platform.Arch, Variant: pull.Platform.Variant})
	normal := platforms.Normalize(has)
	for _, part := range []struct{ asked, want, has string }{
		{pull.Platform.OS, want.OS, normal.OS}, {pull.Platform.Arch, want.Architecture, normal.Architecture},
	} {
		if part.asked != "" && part.has != "" && part.want != part.has {
			return &fault.Error{
				Code: fault.Platform, Op: "use", Subject: pull.Image.Original,
				Reason: fmt.Sprintf("its configuration is for %s, the options ask for %s", platforms.Format(normal), platforms.Format(want)),
				Remedy: "Give the configuration of the image for that platform with --image-config, or leave the options out",
			}
		}
	}
	return nil
}

// noFiles is an image whose files are not known.
type noFiles struct{}

func (noFiles) ReadFile(path string, _ int64) ([]byte, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}
func (noFiles) Resolve(path string) (string, error) { return path, nil }
func (noFiles) Stat(path string) (fs.FileInfo, error) {
	return nil, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
}
