package main

import (
	"crypto/x509"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/cmd/careen/version"
	"github.com/careen-project/careen/agent/push"
	"github.com/careen-project/careen/steps"
)

// readPush reads [push] of careen.toml; nil where there is none. trusted returns the
// authorities beside the system's.
func readPush(cfg *steps.Config, trusted func() []*x509.Certificate) (agent.Pusher, []steps.Warning, error) {
	var opts push.Options
	warnings, err := cfg.Section("push", &opts)
	if err != nil || opts == (push.Options{}) {
		cfg.Show(nil, warnings)
		return nil, warnings, err
	}
	pusher, err := push.New(opts, push.Config{UserAgent: "careen/" + version.Version, Authorities: trusted})
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

// authorities are those the node is told to trust.
func (n *node) authorities() []*x509.Certificate { return n.trust.store.Bundle().Certs }
