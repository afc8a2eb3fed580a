package runtime

import (
	"context"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/careen-project/careen/agent/fault"
)

// RemoveImage removes an image that is given by name, digest or id (also its
// first digits). One that a container was made from is a conflict.
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	ctx = e.context(ctx)
	images, err := e.puller.List(ctx)
	if err != nil {
		return err
	}
	name, chain := "", ""
	for _, image := range images {
		if image.Name == ref || image.Digest == ref || idMatches(image.ID, ref) {
			name, chain = image.Name, image.ChainID
			break
		}
	}
	if name == "" {
		// Whoever looks for an image says in which forms names are known.
		return e.puller.Delete(ctx, ref)
	}
	containers, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return runtimeError("list containers of", Namespace, err)
	}
	for _, c := range containers {
		info, err := e.client.SnapshotService(e.cfg.Snapshotter).Stat(ctx, c.SnapshotKey)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err == nil && info.Parent == chain {
			return &fault.Error{Code: fault.Conflict, Op: "remove image", Subject: ref,
				Reason: "run " + c.Labels[labelRun] + " uses it", Remedy: "Abort the run, or wait for its end"}
		}
	}
	return e.puller.Delete(ctx, name)
}

// idMatches compares an image id with at least its first twelve digits.
func idMatches(id, ref string) bool {
	ref = strings.TrimPrefix(ref, "sha256:")
	return len(ref) >= 12 && strings.HasPrefix(strings.TrimPrefix(id, "sha256:"), ref)
}
