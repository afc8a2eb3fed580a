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
// time. Where there is none every image is let in.
func admits(file string, ref oci.Reference) error {
	data, err := rootfs.Host().ReadFile(file, trust.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &fault.Error{Code: fault.BadConfig, Op: "read", Subject: file, Err: err, Remedy: "Correct the file, or remove it if every image may run"}
	}
	policy, err := trust.Parse(data)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(ref.Path); ref.Path != "" && err == nil {
		ref.Path = real
	}
	return policy.Check(ref)
}

// admitsAsked is admits before anything is pulled. What a short name means is known
// only when registries.conf has been asked: see [runner.admitsPulled].
func admitsAsked(file string, ref oci.Reference) error {
	if ref.Transport == oci.TransportDocker && !strings.Contains(ref.Original, "://") && !strings.HasPrefix(ref.Original, ref.Domain()+"/") {
		return nil
	}
	return admits(file, ref)
}

// admitsPulled checks an image under the name by which it was found, and removes it if
// it was not there before.
func (r *runner) admitsPulled(ctx context.Context, asked oci.Reference, image *pull.Image) (err error) {
	ref := asked
	if asked.Transport == oci.TransportDocker {
		ref, err = oci.ParseReference(image.Name)
	}
	if err == nil {
		err = admits(trust.File, ref)
	}
	if err != nil && !image.FromCache {
		err = errors.Join(err, r.engine.RemoveImage(context.WithoutCancel(ctx), image.Name))
	}
	return err
}

// checkedResolver also holds a request against this node, before anything is pulled:
// images that policy.json does not let in, limits that its cgroups do not have,
// profiles that its kernel does not know.
type checkedResolver struct {
	agent.Resolver
	policy string // the path of policy.json
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
