package agent

import (
	"reflect"
	"slices"
	"sync"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/steps"
)

var _ CAFiler = (*resolver)(nil)

// resolver is the [Resolver] over packages steps and oci.
type resolver struct {
	host oci.Host

	// keep is the path of what an agent that is restarted has to know; "" is none.
	keep string

	mu   sync.Mutex
	base *steps.Config // without the conductor's override, as last read
	cfg  *steps.Config
	// warnings are those of loading base, overridden those of the override.
	warnings, overridden []string
	// told is what came from outside: the conductor's override, and the names that
	// the last caller of Steps said are taken.
	told told
	// unknown is why nobody can know the policy, nil where it is known.
	unknown error
}

// NewResolver returns the resolver that applies cfg's policy and reads options
// with the node as host shows it. Warnings are what loading cfg brought up; they
// are shown with the configuration.
//
// The conductor's settings are kept in the file keep, which must not be readable
// for others than root, and hold again for a resolver that is made with it in the
// same boot. If there is a file and it cannot be read, what is held to the policy
// is refused until the settings are sent again: what was baked into the ramdisk
// may be laxer. With keep "" the settings last as long as the resolver.
func NewResolver(cfg *steps.Config, warnings []steps.Warning, host oci.Host, keep string) Resolver {
	r := &resolver{host: host, keep: keep, base: cfg, cfg: cfg, warnings: texts(warnings)}
	if keep == "" {
		return r
	}
	if r.told, r.unknown = readTold(keep); r.told.Options != nil {
		r.override(r.told.Options)
	}
	return r
}

// override puts the conductor's settings over base. The lock is held.
func (r *resolver) override(options map[string]any) {
	cfg, warnings := r.base.WithConductor(options)
	r.cfg, r.overridden = cfg, texts(warnings)
}

func texts(warnings []steps.Warning) []string {
	var lines []string
	for _, w := range warnings {
		lines = append(lines, w.String())
	}
	return lines
}

// inForce returns the configuration and the names that are taken. The error is why
// nothing may be allowed on the configuration's ground.
func (r *resolver) inForce() (cfg *steps.Config, reserved []string, unknown error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if unknown = r.unknown; unknown == nil {
		unknown = r.reload()
	}
	return r.cfg, r.told.Reserved, unknown
}

// reload reads IPA's files anew. Ironic's agent starts after this one and may have
// been given others by virtual media; what is in force there has to be here. On an
// error nothing has changed. The lock is held.
func (r *resolver) reload() error {
	cfg, warnings, err := r.base.Reload()
	if err != nil {
		return err
	}
	r.base, r.cfg, r.warnings = cfg, cfg, texts(warnings)
	if r.told.Options != nil {
		r.override(r.told.Options)
	}
	return nil
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
	cfg, reserved, unknown := r.inForce()
	if unknown != nil && cfg.Held(req) {
		return nil, unknown
	}
	// Read anew each time: the conductor may name another file, and an operator mend
	// it, at any time.
	cat, err := cfg.LoadSteps(reserved)
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
		Critical: d.Critical, Inputs: slices.Clone(d.Inputs),
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
		return nil, fault.BadField("phase", "it is none of clean, deploy and service")
	}
	if err := r.reserve(reserved); err != nil {
		return nil, err
	}
	cfg, taken, unknown := r.inForce()
	if unknown != nil {
		return nil, unknown
	}
	cat, err := cfg.LoadSteps(taken)
	if err != nil {
		return nil, err
	}
	return cat.List(phase), nil
}

// reserve notes the names that steps must not have; nil changes nothing.
func (r *resolver) reserve(names []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names == nil || slices.Equal(names, r.told.Reserved) {
		return nil
	}
	next := r.told
	next.Reserved = names
	// A file that cannot be read is left for SetConductor to replace: without the
	// conductor's settings a new one would pass for the whole.
	if r.unknown == nil {
		if err := next.write(r.keep); err != nil {
			return err
		}
	}
	r.told = next
	return nil
}

// Config shows the settings in force.
func (r *resolver) Config() api.Config {
	cfg, _, unknown := r.inForce()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := api.Config{Settings: []api.Setting{}, Warnings: slices.Concat(r.warnings, r.overridden)}
	if unknown != nil {
		out.Warnings = append(out.Warnings, fault.Line(unknown))
	}
	for _, s := range cfg.InForce() {
		out.Settings = append(out.Settings, api.Setting{Key: s.Key, Value: s.Value, From: s.From})
	}
	return out
}

// IPACAFile implements [CAFiler].
func (r *resolver) IPACAFile() (path, from string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base.IPACAFile()
}

// SetConductor takes over what the conductor sent at lookup, in place of what it
// sent before. On an error that is as it was.
func (r *resolver) SetConductor(options map[string]any) (api.Config, error) {
	if err := r.setConductor(options); err != nil {
		return api.Config{}, err
	}
	return r.Config(), nil
}

func (r *resolver) setConductor(options map[string]any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if options == nil {
		options = map[string]any{}
	}
	if err := r.reload(); err != nil {
		return err
	}
	next := told{Options: options, Reserved: r.told.Reserved}
	// First the file: settings that an agent which is restarted would not know must
	// not be taken for granted by the one who sent them.
	if r.unknown != nil || !reflect.DeepEqual(next, r.told) {
		if err := next.write(r.keep); err != nil {
			return err
		}
	}
	r.told, r.unknown = next, nil
	r.override(options)
	return nil
}
