package node

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/push"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/steps"
)

// loadConfig reads careen.toml (file, or the default one if file is "") and IPA's files.
func loadConfig(file string) (*steps.Config, []steps.Warning, error) {
	return steps.Load(steps.LoadOptions{
		File: file, Getenv: os.LookupEnv, CanonicalRun: oci.CanonicalRun, CanonicalPull: oci.CanonicalPull,
	})
}

// maxJitter leaves most of a pull's two hours to the pull.
const maxJitter = 30 * time.Minute

// pullTable is [pull] of careen.toml.
type pullTable struct {
	Jitter steps.Duration `toml:"jitter"`
}

// readPullTable reads [pull] of careen.toml. The only code of its errors is bad_config.
func readPullTable(cfg *steps.Config) (pullTable, []steps.Warning, error) {
	var t pullTable
	warnings, err := cfg.Section("pull", &t)
	if err != nil {
		return t, nil, err
	}
	if t.Jitter.Duration > maxJitter {
		return t, nil, &fault.Error{Code: fault.BadConfig, Op: "read configuration", Subject: cfg.At("pull"),
			Err: fmt.Errorf("jitter is longer than %s", maxJitter), Remedy: "Correct [pull] and restart the agent"}
	}
	from := ""
	if t.Jitter.Duration != 0 {
		from = cfg.At("pull")
	}
	cfg.Show([]steps.Source{{Key: "pull.jitter", Value: t.Jitter.String(), From: from}}, warnings)
	return t, warnings, nil
}

// readPush reads [push] of careen.toml; the pusher is nil if there is none. roots returns
// the trusted authorities, nil for those of the system.
func readPush(cfg *steps.Config, userAgent string, roots func() *x509.CertPool) (exec.Pusher, []steps.Warning, error) {
	var opts push.Options
	warnings, err := cfg.Section("push", &opts)
	if err != nil || opts == (push.Options{}) {
		cfg.Show(nil, warnings)
		return nil, warnings, err
	}
	pusher, err := push.New(opts, push.Config{UserAgent: userAgent, Roots: roots})
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
