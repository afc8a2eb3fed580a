package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/trust"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/runtime/pull"
)

// admits holds an image against podman's policy.json in file, which is read anew each
// time. Where there is none every image is let in. A demand that is not nil has to be
// met by the image's signatures.
func admits(file string, ref oci.Reference) (*trust.Demand, error) {
	policy, err := readPolicy(file)
	if policy == nil || err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(ref.Path); ref.Path != "" && err == nil {
		ref.Path = real
	}
	return policy.Check(ref, readKey)
}

// readPolicy returns nil where there is no file.
func readPolicy(file string) (*trust.Policy, error) {
	data, err := rootfs.Host().ReadFile(file, trust.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "read", Subject: file, Err: err, Remedy: "Correct the file, or remove it if every image may run"}
	}
	return trust.Parse(data)
}

func readKey(path string) ([]byte, error) { return rootfs.Host().ReadFile(path, trust.MaxKey) }

// policyChecks is what doctor says of policy.json, nothing where there is none.
func policyChecks(file string) []api.Check {
	const name = "policy_json"
	policy, err := readPolicy(file)
	switch {
	case err != nil:
		return []api.Check{{Name: name, Status: rootfs.StatusError, Detail: err.Error(), Remedy: fault.RemedyOf(err)}}
	case policy == nil:
		return nil
	}
	if unmet := policy.Unmet(readKey); len(unmet) > 0 {
		return []api.Check{{Name: name, Status: rootfs.StatusWarning, Detail: strings.Join(unmet[:min(len(unmet), 5)], "; "),
			Remedy: "Correct the rules, or expect that every image under them is refused"}}
	}
	return []api.Check{{Name: name, Status: rootfs.StatusOK, Detail: file + " can be honoured"}}
}

// admitsAsked is admits before anything is pulled. What a short name means is known
// only when registries.conf has been asked, and signatures when the registry has been:
// see [admission].
func admitsAsked(file string, ref oci.Reference) error {
	if ref.Transport == oci.TransportDocker && !strings.Contains(ref.Original, "://") && !strings.HasPrefix(ref.Original, ref.Domain()+"/") {
		return nil
	}
	_, err := admits(file, ref)
	return err
}

// admission is admits under the name by which an image is found, with its signatures.
func admission(file string, asked oci.Reference) func(context.Context, *pull.Candidate) (*trust.Accepted, error) {
	return func(ctx context.Context, c *pull.Candidate) (*trust.Accepted, error) {
		ref := asked
		if asked.Transport == oci.TransportDocker {
			var err error
			if ref, err = oci.ParseReference(c.Name); err != nil {
				return nil, err
			}
		}
		demand, err := admits(file, ref)
		if demand == nil || err != nil {
			return nil, err
		}
		signatures, err := c.Signatures(ctx)
		if err != nil {
			return nil, err
		}
		return demand.Accept(c.Manifest, signatures)
	}
}

// signedBy is who vouched for an image, for the audit record.
func signedBy(accepted *trust.Accepted) []api.Signer {
	if accepted == nil {
		return nil
	}
	var all []api.Signer
	for _, s := range accepted.Signers {
		all = append(all, api.Signer{Key: s.Key, Identity: s.Identity})
	}
	return all
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
		if err := admitsAsked(r.policy, part.Pull.Image); err != nil {
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
	if err := admitsAsked(r.policy, wanted.Image); err != nil {
		return nil, err
	}
	return wanted, nil
}
