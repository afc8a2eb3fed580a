package main

import (
	"os"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/authorities"
	"github.com/careen-project/careen/steps"
)

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

func withIPA(fixed []authorities.Source, ipa agent.CAFiler) []authorities.Source {
	file, from := ipa.IPACAFile()
	if file == "" {
		return fixed
	}
	return append(fixed[:len(fixed):len(fixed)], authorities.Source{Path: file, From: from})
}

// nodeSettings reads what doctor needs of the configuration. A check is what is wrong
// with that: the agent does not start.
func nodeSettings(opts *rootfs.DoctorOptions, file string) []api.Check {
	cfg, _, err := steps.Load(steps.LoadOptions{
		File: file, Getenv: os.LookupEnv, CanonicalRun: oci.CanonicalRun, CanonicalPull: oci.CanonicalPull,
	})
	if err != nil {
		return []api.Check{{Name: "config", Status: rootfs.StatusError, Detail: err.Error(), Remedy: fault.RemedyOf(err)}}
	}
	opts.Authorities, opts.ClockRepair = withIPA(fixedSources(cfg), cfg), cfg.Node.ClockRepair
	return nil
}
