package main

import (
	"fmt"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

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
