package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/verify"
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

// admission applies policy.json to an image whose full name and manifest are known.
func admission(file string) func(context.Context, oci.Reference, *image.Candidate) (*verify.Accepted, error) {
	return func(ctx context.Context, asked oci.Reference, c *image.Candidate) (*verify.Accepted, error) {
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
