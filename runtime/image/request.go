package image

import (
	"context"
	"time"

	"github.com/careen-project/careen/runtime/image/verify"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Policy says when the registry is asked.
type Policy string

// The policies, with podman's meaning.
const (
	// Always asks the registry and fails when it cannot be asked. What is
	// present with the same digest is not downloaded again.
	Always Policy = "always"
	// Missing asks only when the image is not present.
	Missing Policy = "missing"
	// Never fails when the image is not present.
	Never Policy = "never"
	// Newer asks the registry, and is content with what is present when the
	// registry cannot be asked.
	Newer Policy = "newer"
)

// Transport says where an image comes from.
type Transport string

// The transports, by podman's names.
const (
	Docker        Transport = "docker"
	OCI           Transport = "oci"
	OCIArchive    Transport = "oci-archive"
	DockerArchive Transport = "docker-archive"
)

// Request names an image and how to get it.
type Request struct {
	// Original is the reference as the operator wrote it. It is the subject of errors, and
	// the name of images from a file.
	Original string
	// Transport is [Docker] if empty.
	Transport Transport
	// Name is the repository, "registry.example:5000/team/fw"; without a registry
	// it is a short name that registries.conf or Docker's default completes.
	Name string
	// Tag is "latest" if Tag and Digest are empty. With a Digest the tag only
	// names the image. For the other transports it selects one image of several.
	Tag string
	// Digest is "sha256:..." of the manifest or index.
	Digest string
	// Path is the directory or file of the other transports.
	Path string

	// Policy is [Missing] if empty.
	Policy Policy
	// Platform chooses from an index; empty fields are the node's.
	Platform Platform
	// Creds is "user:password" or "user" for the image's registry.
	Creds string
	// AuthFile replaces every other credentials file.
	AuthFile string
	// CertDir holds *.crt, *.cert and *.key for the image's registry and replaces
	// the directories of [Config].
	CertDir string
	// TLSVerify is true if nil. False accepts any certificate, and plain HTTP
	// where TLS is not spoken.
	TLSVerify *bool
	// Retry and RetryDelay replace Limits.Retries and Limits.Backoff if not nil.
	Retry      *int
	RetryDelay *time.Duration
	// Busy, if not nil, makes this a background pull: as long as it returns true, a step
	// runs and the pull limits itself. It is called for every piece of data, from several
	// goroutines, so it must not block.
	Busy func() bool
	// Admit, if not nil, decides whether the image may be used. It is called when the
	// manifest is known, before anything else is fetched, and at each use of a present
	// image; it may be called twice for one image. The signatures that it accepts, nil if it
	// needs none, are stored with the image. An error ends the pull.
	Admit func(context.Context, *Candidate) (*verify.Accepted, error)
}

// Platform is what an image is built for, in GOOS and GOARCH terms.
type Platform struct {
	OS, Arch, Variant string
}

// Image is an image that is present in the store.
type Image struct {
	// Name is the image record's name: the full reference, or the reference as
	// written for what comes from a file.
	Name string
	// Digest is that of the manifest whose layers are unpacked.
	Digest string
	// IndexDigest is that of the index it was chosen from, or "".
	IndexDigest string
	// ID is the digest of the configuration, podman's image id.
	ID string
	// Config is the image's configuration.
	Config ocispec.Image
	// Annotations are the manifest's.
	Annotations map[string]string
	// ChainID is the snapshot that a container's root starts from, "" for an
	// image without layers.
	ChainID string
	// Size is the unpacked size in bytes.
	Size int64
	// Platform is os/arch[/variant].
	Platform string
	// PulledAt is when the registry was last asked.
	PulledAt time.Time
	// FromCache says that nothing had to be unpacked.
	FromCache bool
	// Accepted is what Request.Admit returned.
	Accepted *verify.Accepted

	// stored are the signatures that were accepted when the image was pulled.
	stored []verify.Signature
}

// TargetDigest is what a registry answers for the image's name: the index's
// digest if there is one, else the manifest's.
func (i *Image) TargetDigest() string {
	if i.IndexDigest != "" {
		return i.IndexDigest
	}
	return i.Digest
}

func fromRegistry(req *Request) bool { return req.Transport == "" || req.Transport == Docker }
