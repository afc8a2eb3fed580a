package agenttest

import (
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/oci"
)

// Resolver lets every request through as one container, or as those of Parts.
type Resolver struct {
	// Change, if set, is called on what a request resolves to.
	Change func(req *api.RunRequest, res *policy.Resolved) error
	// Conductor is what SetConductor was given last.
	Conductor map[string]any
}

// Resolve lets req through.
func (r *Resolver) Resolve(req *api.RunRequest, local bool) (*policy.Resolved, error) {
	image := req.Image
	if image == "" {
		image, _ = req.Args["container_url"].(string)
	}
	res := &policy.Resolved{Abortable: true, Parts: []policy.Part{Part(image)}}
	if !local {
		res.Warnings = append(res.Warnings, "asked by a user other than root")
	}
	if r.Change != nil {
		if err := r.Change(req, res); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// Part returns one container of image.
func Part(image string) policy.Part {
	ref := oci.Reference{Original: image}
	return policy.Part{Image: image, Entry: "test", Pull: &oci.Pull{Image: ref}, Run: &oci.Run{Image: ref}}
}

// ResolvePull lets req through.
func (r *Resolver) ResolvePull(req *api.PullRequest, _ bool) (*oci.Pull, error) {
	return &oci.Pull{Image: oci.Reference{Original: req.Image}}, nil
}

// Steps lists one step.
func (r *Resolver) Steps(phase string, _ []string) ([]api.Step, error) {
	if phase != "clean" && phase != "deploy" && phase != "service" {
		return nil, &fault.Error{Code: fault.BadRequest, Op: "read", Subject: "phase", Attrs: map[string]any{"field": "phase"},
			Reason: "it is none of clean, deploy and service"}
	}
	return []api.Step{{Step: "generic_container_step", Interface: "deploy", Abortable: true, ArgsInfo: map[string]api.Arg{
		"container_url": {Description: "Image to run", Required: true}}}}, nil
}

// Config shows one setting.
func (r *Resolver) Config() api.Config {
	return api.Config{Settings: []api.Setting{{Key: "container.runner", Value: "podman", From: "default"}}}
}

// SetConductor keeps what it is given.
func (r *Resolver) SetConductor(options map[string]any) (api.Config, error) {
	r.Conductor = options
	return r.Config(), nil
}
