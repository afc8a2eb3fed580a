package node

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime/image/verify"
)

// Doctor runs the checks of package doctor with the settings of the configuration file
// (see [Options]), and checks that file and policy.json.
func Doctor(ctx context.Context, opts doctor.Options, config string) []api.Check {
	cfg, _, err := loadConfig(config)
	if err == nil {
		opts.Authorities, opts.ClockRepair = withIPA(fixedSources(cfg), cfg), cfg.Node.ClockRepair
	}
	checks := append(doctor.Run(ctx, opts), policyChecks(verify.File)...)
	if err != nil { // the agent does not start
		checks = append(checks, failed("config", err))
	}
	return checks
}

func failed(name string, err error) api.Check {
	return api.Check{Name: name, Status: doctor.StatusError, Detail: err.Error(), Remedy: fault.RemedyOf(err)}
}

// imagePolicy is podman's policy.json of this node.
func imagePolicy(file string) *verify.Policy {
	return &verify.Policy{Path: file, ReadFile: rootfs.Host().ReadFile}
}

// policyChecks checks policy.json. Without the file there is no check.
func policyChecks(file string) []api.Check {
	const name = "policy_json"
	problems, err := imagePolicy(file).Problems()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return []api.Check{failed(name, err)}
	case len(problems) > 0:
		return []api.Check{{Name: name, Status: doctor.StatusWarning, Detail: strings.Join(problems[:min(len(problems), 5)], "; "),
			Remedy: "Correct the rules; the agent refuses every image that they match"}}
	}
	return []api.Check{{Name: name, Status: doctor.StatusOK, Detail: file + " can be followed"}}
}
