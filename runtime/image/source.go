package image

import (
	"context"
	"io"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// source is one place that has the image: a registry with its mirrors (source_registry.go),
// an OCI layout as a directory or a tar file (source_layout.go), or an archive of docker
// save (source_archive.go). Its errors name the host or the file.
//
// The sources are files of this package: as a package they would need Config, Request, the
// manifest's checks and the hooks exported, about thirty names that have no other user.
type source interface {
	// digest is the digest of the manifest or index that the reference means now; "" if
	// finding out costs as much as a pull.
	digest(ctx context.Context) (digest.Digest, error)
	// root is the manifest or index that the reference means.
	root(ctx context.Context) (*document, error)
	// manifest is a manifest or index that an index names.
	manifest(ctx context.Context, desc ocispec.Descriptor) (*document, error)
	// blob streams a blob, not verified.
	blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	// probe reads len(b) bytes of a blob at an offset, not verified, without a retry. The
	// result may help an estimate; the pull does not depend on it.
	probe(ctx context.Context, desc ocispec.Descriptor, at int64, b []byte) error
	// signatures are those attached to a manifest, not verified.
	signatures(ctx context.Context, manifest []byte) ([]verify.Signature, error)
	// from names the place that a blob comes from in an error about it.
	from(blob io.Reader, err error) error
	Close() error
}

// open opens the source of one of the request's names. present says that the image is
// present under this name, perhaps an older one.
func (j *job) open(ctx context.Context, name string, present bool) (source, error) {
	if fromRegistry(j.req) {
		return j.openRegistry(ctx, name, present)
	}
	return j.p.openFile(ctx, j.req)
}

// checkTransport refuses a transport without a source.
func checkTransport(req *Request) error {
	switch req.Transport {
	case "", Docker, OCI, OCIArchive, DockerArchive:
		return nil
	default:
		return &fault.Error{Code: fault.BadReference, Op: "read image reference", Subject: req.Original,
			Reason: "unknown transport " + fault.OneLine(string(req.Transport), 40),
			Remedy: "Use docker://, oci:, oci-archive: or docker-archive:"}
	}
}

// readBlob returns a whole blob, verified: the configuration.
func readBlob(ctx context.Context, src source, desc ocispec.Descriptor) ([]byte, error) {
	blob, err := src.blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	body, err := readVerified(blob, desc)
	return body, src.from(blob, err)
}
