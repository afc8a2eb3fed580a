package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/careen-project/careen/runtime/pull"
)

// imagePolicy is podman's policy.json of this node.
func imagePolicy(file string) verify.Policy {
	return verify.Policy{Path: file, ReadFile: rootfs.Host().ReadFile}
}

// policyChecks is what doctor reports of policy.json, nothing if there is none.
func policyChecks(file string) []api.Check {
	const name = "policy_json"
	problems, err := imagePolicy(file).Problems()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return []api.Check{{Name: name, Status: doctor.StatusError, Detail: err.Error(), Remedy: fault.RemedyOf(err)}}
	case len(problems) > 0:
		return []api.Check{{Name: name, Status: doctor.StatusWarning, Detail: strings.Join(problems[:min(len(problems), 5)], "; "),
			Remedy: "Correct the rules, or expect that every image under them is refused"}}
	}
	return []api.Check{{Name: name, Status: doctor.StatusOK, Detail: file + " can be honoured"}}
}

// checkName applies policy.json before a pull. The full name of a short name is known
// only after registries.conf was read: see [admission].
func checkName(file string, ref oci.Reference) error {
	if ref.Transport == oci.TransportDocker && !strings.Contains(ref.Original, "://") && !strings.HasPrefix(ref.Original, ref.Domain()+"/") {
		return nil
	}
	return imagePolicy(file).CheckName(ref)
}

// admission applies policy.json to an image whose full name and manifest are known.
func admission(file string) func(context.Context, oci.Reference, *pull.Candidate) (*verify.Accepted, error) {
	return func(ctx context.Context, asked oci.Reference, c *pull.Candidate) (*verify.Accepted, error) {
		ref := asked
		if asked.Transport == oci.TransportDocker {
			var err error
			if ref, err = oci.ParseReference(c.Name); err != nil {
				return nil, err
			}
		}
		return imagePolicy(file).Check(ctx, verify.Image{Reference: ref, Manifest: c.Manifest, Signatures: c.Signatures})
	}
}

// checkedResolver also holds a request against this node, before anything is pulled:
// images that policy.json does not let in, limits that its cgroups do not have,
// profiles that its kernel does not know.
type checkedResolver struct {
	agent.Resolver
	policy string // the path of policy.json
	trust  *nodeTrust
}

// Config also shows the authorities that the node is told to trust.
func (r checkedResolver) Config() api.Config { return r.trust.show(r.Resolver.Config()) }

// SetConductor answers as Config.
func (r checkedResolver) SetConductor(options map[string]any) (api.Config, error) {
	cfg, err := r.Resolver.SetConductor(options)
	if err != nil {
		return api.Config{}, err
	}
	return r.trust.show(cfg), nil
}

func (r checkedResolver) Resolve(req *api.RunRequest, local bool) (*agent.Resolved, error) {
	resolved, err := r.Resolver.Resolve(req, local)
	if err != nil {
		return nil, err
	}
	node, err := rootfs.GatherNode()
	if err != nil {
		return nil, err
	}
	for _, part := range resolved.Parts {
		if err := part.Run.Check(node); err != nil {
			return nil, err
		}
		if err := checkName(r.policy, part.Pull.Image); err != nil {
			return nil, err
		}
	}
	return resolved, nil
}

func (r checkedResolver) ResolvePull(req *api.PullRequest, local bool) (*oci.Pull, error) {
	wanted, err := r.Resolver.ResolvePull(req, local)
	if err != nil {
		return nil, err
	}
	if err := checkName(r.policy, wanted.Image); err != nil {
		return nil, err
	}
	return wanted, nil
}
