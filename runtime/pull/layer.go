package pull

import (
	"context"
	"crypto/sha256"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/opencontainers/go-digest"
)

func cutPrefix(s, prefix string) (string, bool) { return strings.CutPrefix(s, prefix) }

func (u *unpacker) extract(ctx context.Context, i int, dir string) error {
	l := u.layers[i]
	blob, err := u.src.blob(ctx, l.desc)
	if err != nil {
		return err
	}
	defer blob.Close()
	compressed, plain := sha256.New(), sha256.New()
	stream, err := compression.DecompressStream(io.TeeReader(blob, compressed))
	if err != nil {
		return badImage("layer", "%v", err)
	}
	defer stream.Close()
	tee := io.TeeReader(stream, plain)
	if _, err := archive.Apply(ctx, dir, tee, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)); err != nil {
		return classify(err, "unpack layer", l.desc.Digest.String())
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return classify(err, "unpack layer", l.desc.Digest.String())
	}
	if got := digest.NewDigest(digest.SHA256, compressed); got != l.desc.Digest {
		return digestMismatch("layer", l.desc.Digest, got)
	}
	if got := digest.NewDigest(digest.SHA256, plain); got != l.diffID {
		return digestMismatch("layer", l.diffID, got)
	}
	return nil
}
