package image

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/unpack"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// applyByContainerd makes a layer's snapshot with containerd's services: the blob is
// written to the content store, the diff service unpacks it on the parent, and the blob is
// deleted. It is slower and needs room for the blob meanwhile, but it works with every
// snapshotter and with a containerd on another host.
func (u *unpacker) applyByContainerd(ctx context.Context, i int, below <-chan struct{}, busy busyFunc) error {
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
		return failure.Containerd("prepare snapshot", l.chain.String(), err)
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
		return failure.DigestMismatch("unpacked layer", l.diffID, diff.Digest)
	}
	err = sn.Commit(ctx, l.chain.String(), key)
	if errdefs.IsAlreadyExists(err) {
		_, err = u.p.hold(ctx, u.lease, l.chain.String())
		return err
	}
	if err != nil {
		return failure.Containerd("commit snapshot", l.chain.String(), err)
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
			return false, u.src.from(blob, &fault.Error{Code: fault.Digest, Op: "verify", Subject: "layer " + l.desc.Digest.String(), Err: err,
				Remedy: "Pull again; if it stays so, the registry or a proxy in between changes content"})
		default:
			return false, applyError(err, u.j.req.Original, l.desc)
		}
	}
	return true, nil
}

func (u *unpacker) dropBlob(ctx context.Context, desc ocispec.Descriptor) {
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	// If this fails the garbage collector deletes it: nothing refers to it after the pull.
	_ = u.p.client.ContentStore().Delete(ctx, desc.Digest)
}

// applyError turns an error of containerd's services into a *fault.Error. Over gRPC an
// error is a text and a class, so the two causes that an operator can mend are recognised
// by their text.
func applyError(err error, image string, desc ocispec.Descriptor) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "no space left on device"):
		return &fault.Error{Code: fault.Space, Op: "unpack", Subject: "layer " + desc.Digest.String(), Err: err,
			Reason: "containerd's store is full", Remedy: "Use a smaller image or a larger store"}
	case errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(text, "unexpected EOF"), strings.Contains(text, "archive/tar"),
		strings.Contains(text, "gzip:"), strings.Contains(text, "invalid"), strings.Contains(text, "zstd"):
		return unpack.LayerError(unpack.Corrupt(err), image, desc.Digest)
	case errdefs.IsUnavailable(err):
		return failure.Containerd("unpack", "layer "+desc.Digest.String(), err)
	default:
		return failure.Classify(err, "unpack", "layer "+desc.Digest.String())
	}
}
