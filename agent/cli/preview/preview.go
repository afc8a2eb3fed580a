package preview

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/careen-project/careen/agent/cli"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/explain"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime"
)

// maxImageConfig limits Inputs.ImageConfig in bytes.
const maxImageConfig = 8 << 20

// Inputs replace what a run would find on its node and in its image.
type Inputs struct {
	// ImageConfig is a file with the image's OCI configuration, as JSON; "" is none.
	ImageConfig string
	// RootFS is a directory with the image's files; "" is none.
	RootFS string
	// Cgroup is v1 or v2; "" is the version of this node.
	Cgroup string
	// Assumed assumes that files and devices of the node and the image exist where
	// they are not known.
	Assumed bool

	assumed *explain.AssumedHost
}

// Preview is a run that was planned and not made.
type Preview struct {
	Run *oci.Run
	// Plan has the run's options, Base is the same image without options.
	Plan, Base *oci.Plan

	assumed *explain.AssumedHost
}

// Parse parses the words of a run. Errors are those of [oci.ParseRun].
func (f *Inputs) Parse(words []string) (*oci.Run, error) {
	caller := cli.Caller()
	if f.Assumed {
		f.assumed = explain.NewAssumedHost(rootfs.Host())
		caller.Host = f.assumed
	}
	return oci.ParseRun(words, caller)
}

// Preview plans a run of [Inputs.Parse]. Errors are those of [oci.Run.Build], bad_option if
// the image's configuration cannot be read, platform if it is for another platform than
// the options, and node.
func (f *Inputs) Preview(run *oci.Run) (*Preview, error) {
	in, err := f.buildInput(run)
	if err != nil {
		return nil, err
	}
	if f.assumed != nil {
		in.Host = f.assumed
		if f.RootFS == "" {
			in.Image.Files = f.assumed.Files(run, in.Image.Config.Config.User)
		}
	}
	p := &Preview{Run: run, assumed: f.assumed}
	if p.Plan, err = run.Build(in); err == nil {
		p.Base, err = run.Baseline().Build(in)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Explain describes the run for people; see [explain.Compare].
func (p *Preview) Explain() string {
	explained := explain.Compare(p.Run, p.Plan, p.Base)
	explained.Requires = requiredBy(p.Plan.Labels)
	if p.assumed != nil {
		explained.Assumed = p.assumed.Notes()
	}
	return explained.String()
}

// requiredBy lists the requirements in the labels of an image, or the fault in them.
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

// buildInput is what the plans are built from.
func (f *Inputs) buildInput(run *oci.Run) (oci.BuildInput, error) {
	node, err := rootfs.GatherNode()
	if err != nil {
		return oci.BuildInput{}, err
	}
	if f.Cgroup != "" {
		node.CgroupV2 = f.Cgroup == "v2"
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
	if f.RootFS != "" {
		in.Image.Files = runtime.ImageFiles(f.RootFS)
	}
	if f.ImageConfig != "" {
		if in.Image.Config, err = readImageConfig(f.ImageConfig); err != nil {
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

// checkPlatform refuses an image that a pull with these options would not choose. It
// accepts an image without a platform.
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

// noFiles is an image with unknown files.
type noFiles struct{}

func (noFiles) ReadFile(path string, _ int64) ([]byte, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}
func (noFiles) Resolve(path string) (string, error) { return path, nil }
func (noFiles) Stat(path string) (fs.FileInfo, error) {
	return nil, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
}
