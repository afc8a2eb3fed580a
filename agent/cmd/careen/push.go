package main

import (
	"crypto/x509"

	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/push"
	"github.com/careen-project/careen/steps"
)

// readPush reads [push] of careen.toml; nil where there is none. roots returns the
// authorities that are trusted, nil for the system's.
func readPush(cfg *steps.Config, roots func() *x509.CertPool) (exec.Pusher, []steps.Warning, error) {
	var opts push.Options
	warnings, err := cfg.Section("push", &opts)
	if err != nil || opts == (push.Options{}) {
		cfg.Show(nil, warnings)
		return nil, warnings, err
	}
	pusher, err := push.New(opts, push.Config{UserAgent: "careen/" + version.Version, Roots: roots})
	if err != nil {
		return nil, nil, err
	}
	from := cfg.At("push")
	shown := []steps.Source{{Key: "push.url", Value: pusher.Shown(), From: from}}
	if opts.AuthorizationFile != "" {
		shown = append(shown, steps.Source{Key: "push.authorization_file", Value: opts.AuthorizationFile, From: from})
	}
	cfg.Show(shown, warnings)
	return pusher, warnings, nil
}

// roots are the authorities that the node trusts, nil for the system's.
func (n *node) roots() *x509.CertPool { return n.trust.store.Bundle().Pool() }
