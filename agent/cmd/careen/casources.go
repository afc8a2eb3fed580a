package main

import (
	"os"
	"strings"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/authorities"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/steps"
)

// nodeTrust is what pulls are told of this node: what it trusts beside its system, how
// long they wait for its network, and whether they set its clock.
type nodeTrust struct {
	node  steps.NodeSettings
	fixed []authorities.Source
	// ipa is asked for the file that IPA trusts, which may come after the agent's start.
	ipa   atomic.Pointer[policy.Policy]
	store *authorities.Store
}

func newNodeTrust(cfg *steps.Config, log logrus.FieldLogger) *nodeTrust {
	t := &nodeTrust{node: cfg.Node, fixed: fixedSources(cfg)}
	t.store = authorities.New(t.sources, func(b *authorities.Bundle) {
		for _, f := range b.Findings {
			if f.Err != nil {
				log.Warn("authorities: " + f.String())
			} else {
				log.Info("authorities: " + f.String())
			}
		}
	})
	return t
}

// fixedSources are those that do not change while an agent runs.
func fixedSources(cfg *steps.Config) []authorities.Source {
	var sources []authorities.Source
	if line, err := os.ReadFile("/proc/cmdline"); err == nil {
		sources = authorities.FromKernel(string(line))
	}
	for _, file := range cfg.Node.CAFiles {
		sources = append(sources, authorities.Source{Path: file, From: cfg.Node.CAFrom})
	}
	return sources
}

// sources are all of them, as they are now.
func (t *nodeTrust) sources() []authorities.Source {
	ipa := t.ipa.Load()
	if ipa == nil {
		return t.fixed
	}
	return withIPA(t.fixed, ipa)
}

func withIPA(fixed []authorities.Source, ipa interface{ IPACAFile() (path, from string) }) []authorities.Source {
	file, from := ipa.IPACAFile()
	if file == "" {
		return fixed
	}
	return append(fixed[:len(fixed):len(fixed)], authorities.Source{Path: file, From: from})
}

// configure tells a puller.
func (t *nodeTrust) configure(p *image.Config) {
	p.NetworkWait = t.node.NetworkWait
	p.Authorities = func() image.Authorities {
		b := t.store.Bundle()
		return image.Authorities{Certs: b.Certs, Pool: b.Pool(), Sources: b.String()}
	}
	if t.node.ClockRepair {
		p.Clock = &image.Clock{Floor: rootfs.BuildTime(), Set: rootfs.SetClock}
	}
}

// checks are a part of GET /v1/health.
func (t *nodeTrust) checks() []api.Check {
	b := t.store.Bundle()
	if len(b.Findings) == 0 {
		return nil
	}
	check := api.Check{Name: "ca", Status: doctor.StatusOK, Detail: b.String()}
	if faulty := b.Faulty(); len(faulty) > 0 {
		check.Status, check.Remedy = doctor.StatusWarning, "Correct what names "+names(faulty)+", or the file"
	}
	return []api.Check{check}
}

func names(findings []authorities.Finding) string {
	words := make([]string, len(findings))
	for i, f := range findings {
		words[i] = f.Name()
	}
	return strings.Join(words, ", ")
}

// settings shows what the sources of authorities hold, for careen config.
func (t *nodeTrust) settings() (settings []api.Setting, warnings []string) {
	for _, f := range t.store.Bundle().Findings {
		settings = append(settings, api.Setting{Key: "ca", Value: f.Held(), From: f.From})
		if f.Err != nil {
			warnings = append(warnings, f.String())
		}
	}
	return settings, warnings
}

// nodeSettings reads what doctor needs of the configuration. A check is what is wrong
// with that: the agent does not start.
func nodeSettings(opts *doctor.Options, file string) []api.Check {
	cfg, _, err := steps.Load(steps.LoadOptions{
		File: file, Getenv: os.LookupEnv, CanonicalRun: oci.CanonicalRun, CanonicalPull: oci.CanonicalPull,
	})
	if err != nil {
		return []api.Check{{Name: "config", Status: doctor.StatusError, Detail: err.Error(), Remedy: fault.RemedyOf(err)}}
	}
	opts.Authorities, opts.ClockRepair = withIPA(fixedSources(cfg), cfg), cfg.Node.ClockRepair
	return nil
}
