package node

import (
	"crypto/x509"
	"os"
	"strings"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/authorities"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/steps"
)

// trust has the certificate authorities that the node trusts beside those of its system.
type trust struct {
	fixed []authorities.Source
	// ipa knows the file that IPA trusts. IPA may start after the agent.
	ipa   atomic.Pointer[policy.Policy]
	store *authorities.Store
}

func newTrust(cfg *steps.Config, log logrus.FieldLogger) *trust {
	t := &trust{fixed: fixedSources(cfg)}
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

// fixedSources are the sources that do not change while an agent runs.
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

// sources are all sources at this moment.
func (t *trust) sources() []authorities.Source {
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

// pullConfig says how images are pulled on this node.
func (t *trust) pullConfig(settings steps.NodeSettings, table pullTable, userAgent string) image.Config {
	cfg := image.Config{UserAgent: userAgent, Jitter: table.Jitter.Duration, NetworkWait: settings.NetworkWait,
		Authorities: func() image.Authorities {
			b := t.store.Bundle()
			return image.Authorities{Certs: b.Certs, Pool: b.Pool(), Sources: b.String()}
		}}
	if settings.ClockRepair {
		cfg.Clock = &image.Clock{Floor: rootfs.BuildTime(), Set: rootfs.SetClock}
	}
	return cfg
}

// roots returns the trusted authorities, nil for those of the system.
func (t *trust) roots() *x509.CertPool { return t.store.Bundle().Pool() }

// checks are a part of GET /v1/health.
func (t *trust) checks() []api.Check {
	b := t.store.Bundle()
	if len(b.Findings) == 0 {
		return nil
	}
	check := api.Check{Name: "ca", Status: doctor.StatusOK, Detail: b.String()}
	if faulty := b.Faulty(); len(faulty) > 0 {
		names := make([]string, len(faulty))
		for i, f := range faulty {
			names[i] = f.Name()
		}
		check.Status, check.Remedy = doctor.StatusWarning, "Correct the setting that names "+strings.Join(names, ", ")+", or the file"
	}
	return []api.Check{check}
}

// settings lists what the sources hold, for careen config.
func (t *trust) settings() (settings []api.Setting, warnings []string) {
	for _, f := range t.store.Bundle().Findings {
		settings = append(settings, api.Setting{Key: "ca", Value: f.Held(), From: f.From})
		if f.Err != nil {
			warnings = append(warnings, f.String())
		}
	}
	return settings, warnings
}
