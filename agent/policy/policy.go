package policy

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/steps"
)

// ImagePolicy is podman's policy.json. Package verify (in runtime/image) implements it.
type ImagePolicy interface {
	// CheckName refuses an image that no signature could make admissible.
	CheckName(ref oci.Reference) error
}

// Config is what a [Policy] is made of. Steps is required.
type Config struct {
	// Steps is the configuration as [steps.Load] returned it, Warnings its warnings.
	Steps    *steps.Config
	Warnings []steps.Warning
	// Host answers what option values ask of the node, such as files and users.
	Host oci.Host
	// Node returns the limits of the node, usually rootfs.GatherNode. With nil no limit
	// is checked.
	Node func() (oci.Node, error)
	// Images is policy.json. With nil every image is admissible.
	Images ImagePolicy
	// ConductorFile is where the conductor's settings are saved, readable for root only.
	// With "" they last as long as the Policy.
	//
	// A Policy that is made with the file in the same boot applies the settings again. If
	// the file cannot be read, everything that the settings could forbid is refused until
	// they are sent again: what was baked into the ramdisk may allow more.
	ConductorFile string
	// Extra returns further settings and warnings for [Policy.Config] to show. nil is none.
	Extra func() ([]api.Setting, []string)
}

// Policy applies the policy of a node to requests. Its methods may be called from
// several goroutines.
type Policy struct {
	host          oci.Host
	node          func() (oci.Node, error)
	images        ImagePolicy
	conductorFile string
	extra         func() ([]api.Setting, []string)

	mu sync.Mutex
	// base is the configuration as last read, without the conductor's options; cfg is
	// with them.
	base, cfg *steps.Config
	// baseWarnings are those of reading base, overrideWarnings those of the conductor's
	// options.
	baseWarnings, overrideWarnings []string
	// conductor are the conductor's options, nil if it has sent none.
	conductor map[string]any
	// unreadable is why the conductor's options are not known, nil if they are.
	unreadable error
}

// New returns the policy of c.
func New(c Config) *Policy {
	p := &Policy{
		host: c.Host, node: c.Node, images: c.Images, conductorFile: c.ConductorFile, extra: c.Extra,
		base: c.Steps, cfg: c.Steps, baseWarnings: texts(c.Warnings),
	}
	if p.conductorFile != "" {
		var saved conductorSettings
		saved, p.unreadable = readConductor(p.conductorFile)
		p.conductor = saved.Options
		p.override()
	}
	return p
}

// Resolve decides on all containers of a request. local says that root on this node
// sent it: IPA's allowlist does not apply to an image that root runs.
//
// Errors have the code [fault.Policy] if the policy refuses the request,
// [fault.NotFound] for an unknown step, [fault.BadConfig] and [fault.BadSteps] if a file
// of the policy is not valid, and for the options the codes of package oci.
func (p *Policy) Resolve(req *api.RunRequest, local bool) (*Resolved, error) {
	decisions, err := p.decide(steps.Request{
		Step: req.Step, Args: req.Args, Phase: req.Phase, Image: req.Image, Command: req.Command,
		RunOptions: req.RunOptions, PullOptions: req.PullOptions, ExactOptions: req.ExactOptions, Local: local,
	})
	if err != nil {
		return nil, err
	}
	res := &Resolved{Trusted: true, Abortable: true, Environ: map[string]string{}}
	for _, d := range decisions {
		part, err := p.parse(req, d)
		if err != nil {
			return nil, err
		}
		res.Parts = append(res.Parts, part)
		maps.Copy(res.Environ, part.Run.UsedEnviron())
		res.Trusted = res.Trusted && d.Trusted
		res.Abortable = res.Abortable && d.Abortable
		res.RebootRequested = res.RebootRequested || d.RebootRequested
		res.Warnings = append(res.Warnings, d.Warnings...)
	}
	if err := p.checkNode(res.Parts); err != nil {
		return nil, err
	}
	for _, part := range res.Parts {
		if err := p.checkImage(part.Pull.Image); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// ResolvePull decides on the pull of an image that does not run now. Errors are those of
// [Policy.Resolve].
func (p *Policy) ResolvePull(req *api.PullRequest, local bool) (*oci.Pull, error) {
	decisions, err := p.decide(steps.Request{
		Image: req.Image, PullOptions: req.PullOptions, ExactOptions: req.ExactOptions, Local: local,
	})
	if err != nil {
		return nil, err
	}
	d := decisions[0]
	pull, err := oci.ParsePullOptions(d.PullOptions, d.Image, p.caller(req.Env, req.WorkDir))
	if err != nil {
		return nil, err
	}
	if err := p.checkImage(pull.Image); err != nil {
		return nil, err
	}
	return pull, nil
}

// decide applies the configuration and the steps file. There is at least one decision.
func (p *Policy) decide(req steps.Request) ([]*steps.Decision, error) {
	cfg, unknown := p.inForce()
	if unknown != nil && cfg.Held(req) {
		return nil, unknown
	}
	// Read again each time: the conductor may name another file, and an operator may
	// correct it, at any time.
	cat, err := cfg.LoadSteps(nil)
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
		return nil, &fault.Error{Code: fault.Internal, Op: "resolve the request", Reason: "package steps returned no decision"}
	}
	return decisions, nil
}

// parse parses the options of one decision.
func (p *Policy) parse(req *api.RunRequest, d *steps.Decision) (Part, error) {
	caller := p.caller(req.Env, req.WorkDir)
	run, err := oci.ParseRunOptions(d.RunOptions, d.Image, d.Command, caller)
	if err != nil {
		return Part{}, err
	}
	part := Part{
		Image: d.Image, Name: run.Options.Name, Run: run, Pull: run.Pull(), RunOptions: run.Redacted(), Trusted: d.Trusted, Entry: d.Entry,
		Timeout: d.Timeout, SilenceTimeout: d.SilenceTimeout, RebootExitCodes: slices.Clone(d.RebootExitCodes),
		Critical: d.Critical, Inputs: slices.Clone(d.Inputs),
	}
	// The image of a step is pulled before the run by a pull with its own options, as IPA
	// does it. An image without a step is pulled as podman run does.
	if req.Step != "" || len(d.PullOptions) > 0 {
		pull, err := oci.ParsePullOptions(d.PullOptions, d.Image, caller)
		if err != nil {
			return Part{}, err
		}
		if pull.Platform == (oci.Platform{}) {
			pull.Platform = run.Pull().Platform
		}
		part.Pull, part.PullOptions = pull, pull.Redacted()
	}
	return part, nil
}

func (p *Policy) caller(environ map[string]string, workDir string) oci.Caller {
	if workDir == "" {
		workDir = "/"
	}
	return oci.Caller{Host: p.host, Environ: environ, WorkDir: workDir}
}

// checkNode compares the options with what the node offers.
func (p *Policy) checkNode(parts []Part) error {
	if p.node == nil {
		return nil
	}
	node, err := p.node()
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := part.Run.Check(node); err != nil {
			return err
		}
	}
	return nil
}

// checkImage applies policy.json as far as the name decides. The pull does so for an
// image with a short name: registries.conf completes the name only then.
func (p *Policy) checkImage(ref oci.Reference) error {
	if p.images == nil || short(ref) {
		return nil
	}
	return p.images.CheckName(ref)
}

// short reports whether an image was requested by a name without a registry.
func short(ref oci.Reference) bool {
	return ref.Transport == oci.TransportDocker && !strings.Contains(ref.Original, "://") &&
		!strings.HasPrefix(ref.Original, ref.Domain()+"/")
}

// Steps lists the steps of a phase: clean, deploy or service. A step with a name in
// reserved is an error, since the caller has a method of that name; that applies to this
// listing only. Errors have the codes [fault.BadRequest] for another phase,
// [fault.BadConfig] and [fault.BadSteps].
func (p *Policy) Steps(phase string, reserved []string) ([]api.Step, error) {
	if !slices.Contains([]string{"clean", "deploy", "service"}, phase) {
		return nil, fault.BadField("phase", "it is not clean, deploy or service")
	}
	cfg, unknown := p.inForce()
	if unknown != nil {
		return nil, unknown
	}
	cat, err := cfg.LoadSteps(reserved)
	if err != nil {
		return nil, err
	}
	return cat.List(phase), nil
}
