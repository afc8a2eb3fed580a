package policy

import (
	"slices"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

// inForce reads IPA's files again and returns the configuration. The error says why
// nothing may be allowed on the ground of it.
func (p *Policy) inForce() (cfg *steps.Config, unknown error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if unknown = p.unreadable; unknown == nil {
		unknown = p.reload()
	}
	return p.cfg, unknown
}

// reload reads IPA's files again: Ironic's agent starts after this one and may have
// copied other files from virtual media. On an error nothing has changed. The caller
// holds mu.
func (p *Policy) reload() error {
	cfg, warnings, err := p.base.Reload()
	if err != nil {
		return err
	}
	p.base, p.baseWarnings = cfg, texts(warnings)
	p.override()
	return nil
}

// override applies the conductor's options to base. The caller holds mu.
func (p *Policy) override() {
	p.cfg, p.overrideWarnings = p.base, nil
	if p.conductor != nil {
		cfg, warnings := p.base.WithConductor(p.conductor)
		p.cfg, p.overrideWarnings = cfg, texts(warnings)
	}
}

func texts(warnings []steps.Warning) []string {
	var lines []string
	for _, w := range warnings {
		lines = append(lines, w.String())
	}
	return lines
}

// Config returns the settings in force, where each came from, and the warnings of the
// configuration and of the steps file.
func (p *Policy) Config() api.Config {
	cfg, unknown := p.inForce()
	out := api.Config{Settings: []api.Setting{}, Warnings: p.warnings()}
	if unknown != nil {
		out.Warnings = append(out.Warnings, fault.Line(unknown))
	}
	if cat, err := cfg.LoadSteps(nil); err != nil {
		out.Warnings = append(out.Warnings, fault.Line(err))
	} else {
		out.Warnings = append(out.Warnings, texts(cat.Warnings)...)
	}
	for _, s := range cfg.InForce() {
		out.Settings = append(out.Settings, api.Setting{Key: s.Key, Value: s.Value, From: s.From})
	}
	if p.extra != nil {
		settings, warnings := p.extra()
		out.Settings, out.Warnings = append(out.Settings, settings...), append(out.Warnings, warnings...)
	}
	return out
}

func (p *Policy) warnings() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Concat(p.baseWarnings, p.overrideWarnings)
}

// IPACAFile returns the file with the authorities that IPA trusts, as last read, and the
// setting that names it. Both are "" if there is none.
func (p *Policy) IPACAFile() (path, from string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.base.IPACAFile()
}
