package oci

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// specVersion is the oldest runtime-spec with every field that Build uses.
const specVersion = "1.1.0"

// Names inside the container.
const (
	initDestination    = "/run/careen-init"
	controlDestination = "/run/careen"
	// previousDestination lies in it.
	previousDestination = "/run/careen/previous.json"
	markerDestination   = "/run/.containerenv"
)

// Build makes the runtime-spec and the list of what has to exist before it can run. It
// is pure: the same input gives the same plan. Errors have the codes [fault.BadOption],
// [fault.Unsupported], [fault.BadRequest] (no command), [fault.BadImage], [fault.Node]
// (the kernel lacks something) or [fault.Internal]; [ExitCode] returns podman's exit code
// for them.
func (r *Run) Build(in BuildInput) (*Plan, error) {
	if in.Host == nil {
		in.Host = r.caller.Host
	}
	if in.Environ == nil {
		in.Environ = r.caller.Environ
	}
	b := &builder{
		run: r, o: &r.Options, in: in, plan: &Plan{}, image: in.Image.Config.Config,
		resources: r.Options.Resources.clone(),
	}
	for _, step := range []func() error{
		b.checkNode, b.base, b.labels, b.command, b.namespaces, b.userMounts, b.stopping, b.limits, b.devices,
		b.paths, b.capabilities, b.filter, b.sysctls, b.environment, b.lookupUser, b.namedVolumes, b.engineMounts,
		b.accounts, b.overlays, b.user, b.systemdMounts, b.special, b.finishMounts, b.workDir, b.warn,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return b.plan, nil
}

// builder is the state of one Build. Each step reads the options and what earlier
// steps made, and adds to the plan; the order is podman's where that matters.
type builder struct {
	run   *Run
	o     *RunOptions
	in    BuildInput
	plan  *Plan
	spec  *specs.Spec
	image ocispec.ImageConfig
	// resources is the builder's own copy, which checks may change.
	resources Resources
	// allLabels are the image's and the operator's.
	allLabels map[string]string
	// env is the environment by name until it is complete.
	env map[string]string
	// mounts are those of the engine and the user, volumes join them once the user
	// who may own them is known.
	mounts  []specs.Mount
	volumes []Mount
	// marked says that the user mounts where the engine's marker file would be.
	marked bool
	// account is the user that runs, as far as it has been looked up.
	account  execUser
	systemd  bool
	hostname string
}

func (b *builder) warnf(format string, args ...any) {
	b.plan.Warnings = append(b.plan.Warnings, fmt.Sprintf(format, args...))
}

// base sets the fields that do not depend on options.
func (b *builder) base() error {
	b.spec = &specs.Spec{
		Version:     specVersion,
		Root:        &specs.Root{Path: b.in.RootFS, Readonly: b.o.ReadOnly},
		Process:     &specs.Process{Terminal: b.o.TTY, NoNewPrivileges: b.o.Security.NoNewPrivileges},
		Annotations: make(map[string]string),
		Linux:       &specs.Linux{Resources: &specs.LinuxResources{}, Sysctl: make(map[string]string)},
	}
	b.plan.Spec = b.spec
	if b.o.Personality != "" {
		b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.LinuxPersonalityDomain(b.o.Personality)}
	}
	for name, value := range b.in.Image.Annotations {
		if !reservedAnnotation(name) {
			b.spec.Annotations[name] = value
		}
	}
	for name, value := range b.o.Annotations {
		b.spec.Annotations[name] = value
	}
	return nil
}

// reservedAnnotation is true for names that an image must not set.
func reservedAnnotation(name string) bool {
	return strings.HasPrefix(name, "io.podman.annotations.") || strings.HasPrefix(name, "careen.")
}

func (b *builder) labels() error {
	b.allLabels = make(map[string]string)
	for name, value := range b.image.Labels {
		b.allLabels[name] = value
	}
	for name, value := range b.o.Labels {
		b.allLabels[name] = value
	}
	b.plan.Labels = b.allLabels
	return nil
}

// command joins entry point and command as podman does: with --entrypoint the image's CMD
// is ignored, and an empty entry point counts as none.
func (b *builder) command() error {
	entrypoint := b.image.Entrypoint
	if b.o.Entrypoint != nil {
		entrypoint = *b.o.Entrypoint
	}
	var words []string
	if len(entrypoint) != 1 || entrypoint[0] != "" {
		words = append(words, entrypoint...)
	}
	command := b.run.Command
	if len(command) == 0 && (b.o.Entrypoint == nil || len(*b.o.Entrypoint) == 0) {
		command = b.image.Cmd
	}
	words = append(words, command...)
	if len(words) == 0 {
		return &fault.Error{
			Code: fault.BadRequest, Op: "run image", Subject: b.in.Image.Reference,
			Reason: "neither the image nor the request has a command",
			Remedy: "Add a command, or use an image with an ENTRYPOINT or a CMD",
		}
	}
	if b.o.Init {
		words = append([]string{initDestination, "--"}, words...)
	}
	b.spec.Process.Args = words
	b.systemd = b.o.Systemd == "always" || (b.o.Systemd == "true" && runsSystemd(words))
	return nil
}

// runsSystemd recognises an init system by the name of the command, also after sh -c.
func runsSystemd(words []string) bool {
	if len(words) > 2 && words[0] == "/bin/sh" && words[1] == "-c" {
		words = words[2:]
	}
	switch words[0] {
	case "/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init":
		return true
	}
	return filepath.Base(words[0]) == "systemd"
}

func (b *builder) stopping() error {
	b.plan.StopTimeout, b.plan.Timeout = b.o.StopTimeout, b.o.Timeout
	signal := b.o.StopSignal
	if signal == 0 && b.image.StopSignal != "" {
		var err error
		if signal, err = parseSignal(b.image.StopSignal); err != nil {
			return &fault.Error{
				Code: fault.BadImage, Op: "run image", Subject: b.in.Image.Reference, Err: err,
				Reason: "its STOPSIGNAL: " + err.Error(), Remedy: "Give --stop-signal",
			}
		}
	}
	if signal == 0 && b.systemd {
		signal = sigSystemd
	}
	if signal == 0 {
		signal = 15
	}
	b.plan.StopSignal = signal
	return nil
}

// shortID is the short id of podman, which is also the default host name.
func (b *builder) shortID() string {
	if len(b.in.ID) > 12 {
		return b.in.ID[:12]
	}
	return b.in.ID
}

// file adds a generated file and returns its path on the node.
func (b *builder) file(name string, content []byte, mode fs.FileMode) string {
	file := filepath.Join(b.in.Dir, name)
	b.plan.Files = append(b.plan.Files, PlanFile{Path: file, Content: content, Mode: mode})
	return file
}

// hasMount reports whether something is mounted at exactly that path.
func (b *builder) hasMount(destination string) bool {
	for _, m := range b.mounts {
		if m.Destination == destination {
			return true
		}
	}
	return false
}

// below reports whether file is dir or inside it.
func below(file, dir string) bool {
	return file == dir || dir == "/" || strings.HasPrefix(file, path.Clean(dir)+"/")
}
