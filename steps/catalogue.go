package steps

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
)

// The names of the built-in steps.
const (
	// GenericStep runs the image that its arguments name.
	GenericStep = "generic_container_step"
	// DeprecatedStep is IPA's old name of GenericStep.
	DeprecatedStep = "container_clean_step"
	// SequenceStep runs several images one after another. IPA does not have it; the
	// steps file must switch it on.
	SequenceStep = "container_sequence_step"
)

// maxStepsFile bounds the steps file, in bytes.
const maxStepsFile = 1 << 20

// Catalogue is the set of steps that a node offers. It does not change.
type Catalogue struct {
	// Path is the steps file, "" for the built-in steps alone.
	Path string
	// Warnings are about steps that likely do not work as intended.
	Warnings []Warning

	steps    []yamlStep
	aliases  []string
	sequence bool
}

// yamlStep is one entry of the steps file.
type yamlStep struct {
	name, image       string
	iface             string
	priority          int
	reboot            bool
	abortable         bool
	pullOpts, runOpts any
	limits            Limits
	line              int
}

// Builtin returns the catalogue without a steps file, for when the file cannot be used.
func Builtin() *Catalogue { return &Catalogue{} }

// LoadSteps reads the YAML file of container steps. An absent or empty file has no
// steps; the built-in ones remain. For a file that cannot be read or is not valid it
// returns a *[fault.Error] with code bad_steps that names file, line, step and key.
// Then no step may be advertised, as in IPA.
//
// Steps must not have a name in reserved, nor one that every IPA reserves: they would
// hide a method of a hardware manager.
func LoadSteps(path string, reserved []string) (*Catalogue, error) {
	data, err := file.ReadLimited(path, maxStepsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &Catalogue{Path: path}, nil
	}
	if err != nil {
		return nil, &fault.Error{
			Code: fault.BadSteps, Op: "read container steps from", Subject: path, Err: err,
			Remedy: "Check container_steps_file in [container] and the file's permissions",
		}
	}
	return parseSteps(path, data, reserved)
}

// LoadSteps reads the steps file that is in force with the function [LoadSteps]. The
// error has code bad_steps, or bad_config if the option that names the file has no
// usable value.
func (c *Config) LoadSteps(reserved []string) (*Catalogue, error) {
	if err := c.brokenOption("container_steps_file"); err != nil {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "read container steps", Err: err}
	}
	return LoadSteps(c.StepsFile, reserved)
}

// stepsError is a defect of the steps file.
func stepsError(path string, line int, format string, args ...any) error {
	subject := path
	if line > 0 {
		subject += ":" + strconv.Itoa(line)
	}
	return &fault.Error{
		Code: fault.BadSteps, Op: "read container steps from", Subject: subject,
		Reason: fmt.Sprintf(format, args...), Remedy: "Correct the steps file",
	}
}

// List returns the steps that IPA advertises in the phase: the built-in steps, then
// those of the file in its order. A priority of the file counts in phase clean only.
// In another phase it would run a container meant for cleaning on every deployment.
func (c *Catalogue) List(phase string) []api.Step {
	out := []api.Step{builtinStep(GenericStep), builtinStep(DeprecatedStep)}
	for _, s := range c.steps {
		step := api.Step{
			Step: s.name, Interface: s.iface, RebootRequested: s.reboot, Abortable: s.abortable,
		}
		if phase == "clean" {
			step.Priority = s.priority
		}
		out = append(out, step)
	}
	for _, alias := range c.aliases {
		out = append(out, builtinStep(alias))
	}
	if c.sequence {
		step := builtinStep(SequenceStep)
		step.ArgsInfo = map[string]api.Arg{"sequence": {
			Description: "List of container_url, pull_options and run_options, run in this order", Required: true,
		}}
		out = append(out, step)
	}
	return out
}

// builtinStep is the form in which IPA advertises a step that takes its image as an
// argument.
func builtinStep(name string) api.Step {
	return api.Step{
		Step: name, Priority: 0, Interface: "deploy", RebootRequested: false, Abortable: true,
		ArgsInfo: map[string]api.Arg{
			"container_url": {Description: "Container image URL", Required: true},
			"pull_options":  {Description: "Pull options"},
			"run_options":   {Description: "Run options"},
		},
	}
}

// untrusted reports whether name is a step that takes its image as argument.
func (c *Catalogue) untrusted(name string) bool {
	return name == GenericStep || name == DeprecatedStep || contains(c.aliases, name)
}

// lookup returns the first step of the file with this name, as IPA's dispatch
// does. A name that starts with an underscore never resolves.
func (c *Catalogue) lookup(name string) (*yamlStep, bool) {
	if name == "" || name[0] == '_' {
		return nil, false
	}
	for i := range c.steps {
		if c.steps[i].name == name {
			return &c.steps[i], true
		}
	}
	return nil, false
}
