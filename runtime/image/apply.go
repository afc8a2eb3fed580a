package image

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/careen-project/careen/agent/fault"
)

// apply makes a layer's snapshot with containerd's own means: the blob goes
// into its content store, its diff service unpacks it on the parent, and the
// blob is removed again. It is slower and takes the blob's size for the time,
// but it works with every snapshotter and with a containerd anywhere.
func (u *unpacker) apply(ctx context.Context, i int, below <-chan struct{}, busy busyFunc) error {
	l := u.layers[i]
	select {
	case <-below:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	sn := u.p.snapshots()
	key := "careen-unpack-" + uuid.NewString()
	mounts, err := sn.Prepare(ctx, key, l.parent.String())
	if err != nil {
		return unreachable("prepare snapshot", l.chain.String(), err)
	}
	defer u.discard(ctx, key)
	added, err := u.download(ctx, i, busy)
	if err != nil {
		return err
	}
	if added {
		defer u.dropBlob(ctx, l.desc)
	}
	diff, err := u.p.client.DiffService().Apply(ctx, l.desc, mounts)
	if err != nil {
		return applyError(err, u.j.req.Original, l.desc)
	}
	if diff.Digest != l.diffID {
		return digestMismatch("unpacked layer", l.diffID, diff.Digest)
	}
	err = sn.Commit(ctx, l.chain.String(), key)
	if errdefs.IsAlreadyExists(err) {
		_, err = u.p.hold(ctx, u.lease, l.chain.String())
		return err
	}
	if err != nil {
		return unreachable("commit snapshot", l.chain.String(), err)
	}
	return nil
}

// download puts a layer's blob into the content store, which verifies it. It
// reports whether the blob was not there before.
func (u *unpacker) download(ctx context.Context, i int, busy busyFunc) (bool, error) {
	l := u.layers[i]
	cs := u.p.client.ContentStore()
	if _, err := cs.Info(ctx, l.desc.Digest); err == nil {
		return false, nil
	}
	blob, err := u.src.blob(ctx, l.desc)
	if err != nil {
		return false, err
	}
	defer blob.Close()
	ref := "careen-layer-" + l.desc.Digest.String()
	if err := content.WriteBlob(ctx, cs, ref, u.meter(ctx, i, blob, busy), l.desc); err != nil {
		clean, cancel := cleanupContext(ctx)
		defer cancel()
		_ = cs.Abort(clean, ref)
		var known *fault.Error
		switch {
		case errors.As(err, &known):
			return false, err
		case errdefs.IsFailedPrecondition(err):
			return false, &fault.Error{Code: fault.Digest, Op: "verify", Subject: "layer " + l.desc.Digest.String(), Err: err,
				Remedy: "Pull again; if it stays so, the registry or a proxy in between changes content"}
		default:
			return false, applyError(err, u.j.req.Original, l.desc)
		}
	}
	return true, nil
}

func (u *unpacker) dropBlob(ctx context.Context, desc ocispec.Descriptor) {
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	// What stays is the collector's: nothing refers to it after the pull.
	_ = u.p.client.ContentStore().Delete(ctx, desc.Digest)
}

// applyError reads what containerd's services say. Over gRPC an error is text
// and a class, so the two causes that an operator can do something about are
// known by their words.
func applyError(err error, image string, desc ocispec.Descriptor) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "no space left on device"):
		return &fault.Error{Code: fault.Space, Op: "unpack", Subject: "layer " + desc.Digest.String(), Err: err,
			Reason: "containerd's store is full", Remedy: "Use a smaller image or a larger store"}
	case errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(text, "unexpected EOF"), strings.Contains(text, "archive/tar"),
		strings.Contains(text, "gzip:"), strings.Contains(text, "invalid"), strings.Contains(text, "zstd"):
		return layerError(corrupt(err), image, desc)
	case errdefs.IsUnavailable(err):
		return unreachable("unpack", "layer "+desc.Digest.String(), err)
	default:
		return classify(err, "unpack", "layer "+desc.Digest.String())
	}
}
