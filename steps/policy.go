package steps

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps/ipa"
)

// Request is what a caller wants to run. Either Step or Image is set.
type Request struct {
	// Step is a step's name, Args its arguments as the conductor sends them.
	Step string
	Args map[string]any
	// Phase is clean, deploy or service; "" if the caller gave none.
	Phase string

	// Image is the image of a direct request. Command replaces the image's own.
	Image   string
	Command []string
	// RunOptions and PullOptions go with Image: a string or a list of strings.
	RunOptions, PullOptions any
	// ExactOptions says that the options are lists of words, which are not split.
	ExactOptions bool
	// Local says that the caller is a process of root on this node. The policy applies
	// to a local direct request only if local_policy is "enforce".
	Local bool
}

// Decision is one container that may run, and how. Only [Config.Resolve] makes one.
type Decision struct {
	// Step and Phase are as requested.
	Step, Phase string
	// Image is the reference as requested, a transport prefix included.
	Image string
	// RunOptions and PullOptions are words.
	RunOptions, PullOptions []string
	// Command replaces the image's, nil for the image's own.
	Command []string
	// Trusted says that the steps file names the image.
	Trusted bool
	// Abortable is false if Ironic must wait for the end of the step before an abort.
	Abortable bool
	// RebootRequested says that the step's definition asks for a reboot after it.
	RebootRequested bool
	// Limits are timeouts, exit codes that ask for a reboot, and whether the whole
	// step is a critical section.
	Limits
	// Entry says what allowed it, for the audit record: "steps file FILE:LINE",
	// "allow_arbitrary_containers", "allowed_containers IMAGE", "allow FILE:LINE
	// NAME" or "local root".
	Entry string
	// Part counts from 1 in a sequence of Parts containers; both are 1 otherwise.
	Part, Parts int
	// Warnings say what was ignored, in one line each.
	Warnings []string

	seal [sha256.Size]byte
}

// Verify returns an error with code internal if d does not come from
// [Config.Resolve] or was changed since. The executor calls it before it starts a
// container.
func (d *Decision) Verify() error {
	if d == nil || d.seal == ([sha256.Size]byte{}) || d.seal != d.digest() {
		return &fault.Error{
			Code: fault.Internal, Op: "run a container", Reason: "the container policy has not decided on it",
		}
	}
	return nil
}

// digest covers all fields that say what runs.
func (d *Decision) digest() [sha256.Size]byte {
	fields := *d
	fields.seal = [sha256.Size]byte{}
	fields.Warnings = nil // the caller may add its own
	return sha256.Sum256(fmt.Appendf(nil, "careen decision %#v", fields))
}

// Held reports whether the policy applies to a request. It does not apply to a direct
// request of local root, unless local_policy is "enforce".
func (c *Config) Held(req Request) bool {
	return req.Step != "" || !req.Local || c.LocalPolicy != LocalRoot
}

// Resolve decides what a request runs: one Decision, or several for a sequence. If the
// policy refuses one part of a sequence, Resolve returns no Decision at all, so that
// no part runs. The error is a *[fault.Error] with code policy, bad_request, not_found
// or bad_config.
func (c *Config) Resolve(cat *Catalogue, req Request) ([]*Decision, error) {
	if req.Phase != "" && !contains(phases, req.Phase) {
		return nil, badRequest(req, "phase must be clean, deploy or service, got %q", req.Phase)
	}
	if cat == nil {
		cat = Builtin()
	}
	decisions, err := c.resolve(cat, req)
	if err != nil {
		return nil, err
	}
	if err := c.brokenOption("runner"); err != nil {
		return nil, refused(req, fault.BadConfig, err)
	}
	for i, d := range decisions {
		d.Phase, d.Part, d.Parts = req.Phase, i+1, len(decisions)
		if d.Timeout == 0 {
			d.Timeout = c.Defaults.Timeout
		}
		if d.SilenceTimeout == 0 {
			d.SilenceTimeout = c.Defaults.SilenceTimeout
		}
		d.seal = d.digest()
	}
	return decisions, nil
}

func (c *Config) resolve(cat *Catalogue, req Request) ([]*Decision, error) {
	switch {
	case req.Step == "" && req.Image == "":
		return nil, badRequest(req, "either a step or an image is required")
	case req.Step == "":
		d, err := c.direct(req)
		return []*Decision{d}, err
	case req.Image != "" || req.Command != nil || req.RunOptions != nil || req.PullOptions != nil || req.ExactOptions:
		return nil, badRequest(req, "a step takes its image and options from its arguments or its definition")
	case cat.untrusted(req.Step):
		d, err := c.fromArgs(req, req.Args)
		return []*Decision{d}, err
	case req.Step == SequenceStep && cat.sequence:
		return c.fromSequence(req)
	}
	if step, ok := cat.lookup(req.Step); ok {
		d, err := c.fromFile(cat, step, req)
		return []*Decision{d}, err
	}
	return nil, &fault.Error{
		Code: fault.NotFound, Op: "run step", Subject: req.Step, Reason: "the step does not exist",
		Remedy: "List the steps of the node, and check the steps file",
	}
}

// fromFile decides on a step of the steps file. The step is trusted: its image needs
// no permission, and its options replace the configured ones. It takes no arguments,
// because in IPA they would replace the image of a trusted step.
func (c *Config) fromFile(cat *Catalogue, step *yamlStep, req Request) (*Decision, error) {
	if len(req.Args) > 0 {
		return nil, badRequest(req, "a step of the steps file takes no arguments, got %s",
			strings.Join(sortedKeys(req.Args), ", "))
	}
	d := &Decision{
		Step: req.Step, Image: step.image, Trusted: true, Abortable: step.abortable,
		RebootRequested: step.reboot, Limits: step.limits,
		Entry: fmt.Sprintf("steps file %s:%d", cat.Path, step.line),
	}
	return d, c.ownOptions(d, req, step.pullOpts, step.runOpts)
}

// ownOptions gives d the options of a caller that may choose them, and the configured
// ones if there are none.
func (c *Config) ownOptions(d *Decision, req Request, pull, run any) error {
	var err error
	if d.PullOptions, err = c.options(req, pullKind, pull); err != nil {
		return err
	}
	d.RunOptions, err = c.options(req, runKind, run)
	return err
}

// options returns the words of value, or the configured ones if value is empty.
func (c *Config) options(req Request, k kind, value any) ([]string, error) {
	if ipa.Empty(value) {
		return c.configured(req, k)
	}
	read := asOptions
	if req.ExactOptions {
		read = exactOptions
	}
	words, err := read(value)
	if err != nil {
		return nil, badRequest(req, "%s: %s", k, err)
	}
	return words, nil
}

// configured returns the words of IPA's own option list.
func (c *Config) configured(req Request, k kind) ([]string, error) {
	if err := c.brokenOption(k.String()); err != nil {
		return nil, refused(req, fault.BadConfig, err)
	}
	words, err := asOptions(*c.list(k.String()))
	if err != nil {
		return nil, refused(req, fault.BadConfig, fmt.Errorf("[container]%s: %w", k, err))
	}
	return words, nil
}

func (c *Config) brokenOption(key string) error {
	if err := c.broken[key]; err != nil {
		return fmt.Errorf("[container]%s cannot be used: %w", key, err)
	}
	return nil
}

// direct decides on a request that names an image and no step.
func (c *Config) direct(req Request) (*Decision, error) {
	d := &Decision{Image: req.Image, Command: slices.Clone(req.Command), Abortable: true}
	if !c.Held(req) {
		d.Entry = "local root"
		// podman runs without options by default. IPA's configured options are for steps.
		bare := *c
		bare.RunOptions, bare.PullOptions, bare.broken = nil, nil, nil
		return d, bare.ownOptions(d, req, req.PullOptions, req.RunOptions)
	}
	return d, c.untrusted(d, req, req.PullOptions, req.RunOptions)
}

// fromArgs decides on the arguments of a step that takes its image from them.
func (c *Config) fromArgs(req Request, args map[string]any) (*Decision, error) {
	for _, key := range sortedKeys(args) {
		switch key {
		case "container_url", "pull_options", "run_options":
		default:
			return nil, badRequest(req, "unexpected argument %q", key)
		}
	}
	value, given := args["container_url"]
	if !given {
		return nil, badRequest(req, "the argument container_url is missing")
	}
	image, ok := value.(string)
	if !ok || image == "" {
		return nil, badRequest(req, "container_url must be a non-empty string, got %s.", ipa.Type(value))
	}
	d := &Decision{Step: req.Step, Image: image, Abortable: true}
	if req.Step == DeprecatedStep {
		d.warn("The '%s' step is deprecated, use '%s' instead.", DeprecatedStep, GenericStep)
	}
	return d, c.untrusted(d, req, args["pull_options"], args["run_options"])
}

// maxSequence bounds the containers of one sequence.
const maxSequence = 32

// fromSequence decides on every part of a sequence.
func (c *Config) fromSequence(req Request) ([]*Decision, error) {
	for _, key := range sortedKeys(req.Args) {
		if key != "sequence" {
			return nil, badRequest(req, "unexpected argument %q", key)
		}
	}
	parts, ok := req.Args["sequence"].([]any)
	if !ok || len(parts) == 0 {
		return nil, badRequest(req, "sequence must be a non-empty list, got %s", ipa.Type(req.Args["sequence"]))
	}
	if len(parts) > maxSequence {
		return nil, badRequest(req, "a sequence has at most %d parts, got %d", maxSequence, len(parts))
	}
	var decisions []*Decision
	for i, part := range parts {
		args, ok := part.(map[string]any)
		if !ok {
			return nil, badRequest(req, "part %d of the sequence must be a mapping, got %s", i+1, ipa.Type(part))
		}
		d, err := c.fromArgs(req, args)
		if err != nil {
			return nil, partError(i+1, err)
		}
		decisions = append(decisions, d)
	}
	return decisions, nil
}

func (d *Decision) warn(format string, args ...any) {
	d.Warnings = append(d.Warnings, fmt.Sprintf(format, args...))
}
