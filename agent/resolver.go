package agent

import (
	"slices"
	"sync"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/steps"
)

// resolver is the [Resolver] over packages steps and oci.
type resolver struct {
	host oci.Host

	mu       sync.Mutex
	base     *steps.Config // without the conductor's override
	cfg      *steps.Config
	warnings []string
	// reserved are the names that the last caller of Steps said are taken.
	reserved []string
}

// NewResolver returns the resolver that applies cfg's policy and reads options
// with the node as host shows it. Warnings are what loading cfg brought up; they
// are shown with the configuration.
func NewResolver(cfg *steps.Config, warnings []steps.Warning, host oci.Host) Resolver {
	r := &resolver{host: host, base: cfg, cfg: cfg}
	for _, w := range warnings {
		r.warnings = append(r.warnings, w.String())
	}
	return r
}

// catalogue reads the steps file anew: the conductor may name another one, and an
// operator mend it, at any time.
func (r *resolver) catalogue() (*steps.Config, *steps.Catalogue, error) {
	r.mu.Lock()
	cfg, reserved := r.cfg, r.reserved
	r.mu.Unlock()
	cat, err := steps.LoadSteps(cfg.StepsFile, reserved)
	return cfg, cat, err
}

// Resolve applies the policy, then reads the options: nothing is pulled before
// all of them are valid.
func (r *resolver) Resolve(req *api.RunRequest, local bool) (*Resolved, error) {
	decisions, err := r.decide(steps.Request{
		Step: req.Step, Args: req.Args, Phase: req.Phase, Image: req.Image, Command: req.Command,
		RunOptions: req.RunOptions, PullOptions: req.PullOptions, ExactOptions: req.ExactOptions, Local: local,
	})
	if err != nil {
		return nil, err
	}
	res := &Resolved{Trusted: true, Abortable: true}
	for _, d := range decisions {
		part, err := r.part(req, d)
		if err != nil {
			return nil, err
		}
		res.Parts = append(res.Parts, part)
		res.Trusted = res.Trusted && d.Trusted
		res.Abortable = res.Abortable && d.Abortable
		res.RebootRequested = res.RebootRequested || d.RebootRequested
		res.Warnings = append(res.Warnings, d.Warnings...)
	}
	return res, nil
}

func (r *resolver) decide(req steps.Request) ([]*steps.Decision, error) {
	cfg, cat, err := r.catalogue()
	if err != nil {
		// A broken steps file is no reason to refuse an image that needs no step.
		if req.Step != "" {
			return nil, err
		}
		cat = steps.Builtin()
	}
	decisions, err := cfg.Resolve(cat, req)
	if err != nil {
		return nil, err
	}
	for _, d := range decisions {
		if err := d.Verify(); err != nil {
			return nil, err
		}
	}
	if len(decisions) == 0 {
		return nil, &fault.Error{Code: fault.Internal, Op: "resolve the request", Reason: "the policy decided on nothing"}
	}
	return decisions, nil
}

// part reads one decision's options.
func (r *resolver) part(req *api.RunRequest, d *steps.Decision) (Part, error) {
	caller := oci.Caller{Host: r.host, Environ: req.Env, WorkDir: orDefault(req.WorkDir, "/")}
	run, err := oci.ParseRunOptions(d.RunOptions, d.Image, d.Command, caller)
	if err != nil {
		return Part{}, err
	}
	p := Part{
		Image: d.Image, Name: run.Options.Name, Run: run, Pull: run.Pull(), RunOptions: run.Redacted(), Trusted: d.Trusted, Entry: d.Entry,
		Timeout: d.Timeout, SilenceTimeout: d.SilenceTimeout, RebootExitCodes: slices.Clone(d.RebootExitCodes),
		Critical: d.Critical,
	}
	// A step is pulled as IPA does it, by a pull of its own before the run; an image
	// that is run by itself is pulled as podman run does.
	if req.Step != "" || len(d.PullOptions) > 0 {
		pull, err := oci.ParsePullOptions(d.PullOptions, d.Image, caller)
		if err != nil {
			return Part{}, err
		}
		if pull.Platform == (oci.Platform{}) {
			pull.Platform = run.Pull().Platform
		}
		p.Pull, p.PullOptions = pull, pull.Redacted()
	}
	return p, nil
}

// ResolvePull applies the policy to an image that is only to be pulled.
func (r *resolver) ResolvePull(req *api.PullRequest, local bool) (*oci.Pull, error) {
	decisions, err := r.decide(steps.Request{
		Image: req.Image, PullOptions: req.PullOptions, ExactOptions: req.ExactOptions, Local: local,
	})
	if err != nil {
		return nil, err
	}
	d := decisions[0]
	return oci.ParsePullOptions(d.PullOptions, d.Image,
		oci.Caller{Host: r.host, Environ: req.Env, WorkDir: orDefault(req.WorkDir, "/")})
}

// Steps lists what a phase offers.
func (r *resolver) Steps(phase string, reserved []string) ([]api.Step, error) {
	if !slices.Contains([]string{"clean", "deploy", "service"}, phase) {
		return nil, badField("phase", "it is none of clean, deploy and service")
	}
	r.mu.Lock()
	if reserved != nil {
		r.reserved = reserved
	}
	r.mu.Unlock()
	_, cat, err := r.catalogue()
	if err != nil {
		return nil, err
	}
	return cat.List(phase), nil
}

// Config shows the settings in force.
func (r *resolver) Config() api.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := api.Config{Settings: []api.Setting{}, Warnings: slices.Clone(r.warnings)}
	for _, s := range r.cfg.InForce() {
		out.Settings = append(out.Settings, api.Setting{Key: s.Key, Value: s.Value, From: s.From})
	}
	return out
}

// SetConductor takes over what the conductor sent at lookup, in place of what it
// sent before.
func (r *resolver) SetConductor(options map[string]any) (api.Config, error) {
	next, warnings := r.base.WithConductor(options)
	r.mu.Lock()
	r.cfg = next
	r.mu.Unlock()
	out := r.Config()
	for _, w := range warnings {
		out.Warnings = append(out.Warnings, w.String())
	}
	return out, nil
}
