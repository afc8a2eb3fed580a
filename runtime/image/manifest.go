package image

import (
	"crypto/sha256"
	_ "crypto/sha512" // digests may be sha512
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// document is a manifest or an index as it was sent.
type document struct {
	desc ocispec.Descriptor
	body []byte
	// Exactly one of these is set.
	index    *ocispec.Index
	manifest *ocispec.Manifest
}

// newDocument parses a manifest or index and checks it against its digest, if
// that is known.
func newDocument(body []byte, contentType string, want digest.Digest) (*document, error) {
	got := digest.NewDigestFromBytes(digest.SHA256, sum256(body))
	if want != "" {
		verifier := want.Verifier()
		_, _ = verifier.Write(body)
		if !verifier.Verified() {
			return nil, failure.DigestMismatch("manifest", want, got)
		}
		got = want
	}
	doc := &document{body: body, desc: ocispec.Descriptor{Digest: got, Size: int64(len(body))}}
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(body, &probe); err != nil {
		return nil, failure.BadImage("manifest", "it is not JSON that a manifest may be: %s", fault.OneLine(err.Error(), 200))
	}
	if probe.SchemaVersion == 1 || probe.FSLayers != nil {
		return nil, failure.BadImage("manifest", "it has the withdrawn format schema 1")
	}
	mediaType := probe.MediaType
	if mediaType == "" {
		mediaType, _, _ = mime.ParseMediaType(contentType)
	}
	isIndex := probe.Manifests != nil
	// A scanner could read a document that is both as an index, and careen as a manifest.
	if isIndex && (probe.Layers != nil || probe.Config != nil) {
		return nil, failure.BadImage("manifest", "it is a manifest and an index at once")
	}
	switch {
	case isIndex && !images.IsManifestType(mediaType):
		if !images.IsIndexType(mediaType) {
			mediaType = ocispec.MediaTypeImageIndex
		}
		doc.desc.MediaType = mediaType
		doc.index = new(ocispec.Index)
		return doc, parseInto(body, doc.index)
	case !isIndex && probe.Config != nil && !images.IsIndexType(mediaType):
		if !images.IsManifestType(mediaType) {
			mediaType = ocispec.MediaTypeImageManifest
		}
		doc.desc.MediaType = mediaType
		doc.manifest = new(ocispec.Manifest)
		return doc, parseInto(body, doc.manifest)
	default:
		return nil, failure.BadImage("manifest", "it is neither an image manifest nor an index (media type %q)", fault.OneLine(mediaType, 100))
	}
}

func parseInto(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return failure.BadImage("manifest", "%s", fault.OneLine(err.Error(), 200))
	}
	return nil
}

func sum256(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// checkManifest refuses a manifest whose configuration or layers cannot be unpacked, before
// they are fetched. The error is [fault.BadImage] or [fault.Unsupported].
func checkManifest(m *ocispec.Manifest, limits Limits) error {
	if len(m.Layers) > limits.MaxLayers {
		return failure.BadImage("manifest", "it has %d layers, more than the limit of %d", len(m.Layers), limits.MaxLayers)
	}
	if err := checkDescriptor(m.Config, "configuration", limits.MaxConfig); err != nil {
		return err
	}
	if t := m.Config.MediaType; t != "" && !images.IsConfigType(t) {
		return failure.BadImage("manifest", "it is not a container image but an artifact of type %q", fault.OneLine(t, 100))
	}
	for i, layer := range m.Layers {
		name := fmt.Sprintf("layer %d", i+1)
		if err := checkDescriptor(layer, name, 1<<50); err != nil {
			return err
		}
		if err := checkLayerType(layer.MediaType); err != nil {
			return err
		}
	}
	return nil
}

func checkDescriptor(d ocispec.Descriptor, name string, limit int64) error {
	if err := d.Digest.Validate(); err != nil {
		return failure.BadImage("manifest", "the digest of its %s is %q: %s", name, fault.OneLine(string(d.Digest), 100), fault.OneLine(err.Error(), 100))
	}
	if d.Size < 0 || d.Size > limit {
		return failure.BadImage("manifest", "its %s has the impossible size %d", name, d.Size)
	}
	return nil
}

// checkLayerType refuses layers that careen cannot unpack. It ignores the compression in
// the type: the layer's first bytes decide that, as for podman and containerd.
func checkLayerType(mediaType string) error {
	refuse := func(what string) error {
		return &fault.Error{Code: fault.Unsupported, Op: "pull image with", Subject: what + " layer",
			Reason: "media type " + fault.OneLine(mediaType, 120), Remedy: "Use an image with ordinary layers (tar, gzip or zstd)"}
	}
	switch {
	case strings.Contains(mediaType, "+encrypted"):
		return refuse("encrypted")
	case mediaType == images.MediaTypeDockerSchema2LayerForeign, mediaType == images.MediaTypeDockerSchema2LayerForeignGzip,
		strings.Contains(mediaType, ".nondistributable."):
		return refuse("foreign")
	case images.IsLayerType(mediaType), mediaType == "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return nil
	default:
		return refuse("unknown kind of")
	}
}

// readVerified reads a blob and compares its size and digest with the descriptor.
func readVerified(r io.Reader, desc ocispec.Descriptor) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, desc.Size+1))
	if err != nil {
		return nil, err
	}
	verifier := desc.Digest.Verifier()
	_, _ = verifier.Write(body)
	if int64(len(body)) != desc.Size || !verifier.Verified() {
		return nil, failure.DigestMismatch("configuration", desc.Digest, desc.Digest.Algorithm().FromBytes(body))
	}
	return body, nil
}

// parseConfig reads an image's configuration and checks it against the manifest.
func parseConfig(body []byte, m *ocispec.Manifest) (*ocispec.Image, error) {
	var config ocispec.Image
	if err := json.Unmarshal(body, &config); err != nil {
		return nil, failure.BadImage("configuration", "%s", fault.OneLine(err.Error(), 200))
	}
	if config.RootFS.Type != "" && config.RootFS.Type != "layers" {
		return nil, failure.BadImage("configuration", "its root file system has the type %q", fault.OneLine(config.RootFS.Type, 40))
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return nil, failure.BadImage("configuration", "it lists %d layers and the manifest %d", len(config.RootFS.DiffIDs), len(m.Layers))
	}
	for _, id := range config.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return nil, failure.BadImage("configuration", "it has a bad layer digest %q", fault.OneLine(string(id), 100))
		}
	}
	return &config, nil
}

// platformOf completes the request's platform with the node's.
func platformOf(p Platform) (ocispec.Platform, error) {
	node := platforms.DefaultSpec()
	if p == (Platform{}) {
		return node, nil
	}
	want := ocispec.Platform{OS: p.OS, Architecture: p.Arch, Variant: p.Variant}
	setDefault(&want.OS, "linux")
	if want.Architecture == "" {
		want.Architecture = node.Architecture
		setDefault(&want.Variant, node.Variant)
	}
	want = platforms.Normalize(want)
	if want.OS != "linux" {
		return want, &fault.Error{Code: fault.Platform, Op: "use", Subject: "--platform",
			Reason: "only linux images can run here, not " + fault.OneLine(want.OS, 40), Remedy: "Name a platform such as linux/amd64"}
	}
	return want, nil
}

// matcherFor matches the variants of the platform's architecture and no others, as
// podman does: containerd's matcher also accepts 386 for amd64, and arm for arm64.
func matcherFor(want ocispec.Platform) platforms.MatchComparer {
	return oneArchitecture{platforms.Only(want), want.Architecture}
}

// fits matches the platforms of present images that the job may use. Without a platform in
// the request, an image that was pulled for the node fits.
func (j *job) fits() platforms.Matcher {
	if j.req.Platform == (Platform{}) {
		return platforms.Only(j.want)
	}
	return matcherFor(j.want)
}

type oneArchitecture struct {
	platforms.MatchComparer
	architecture string
}

func (m oneArchitecture) Match(p ocispec.Platform) bool {
	return platforms.Normalize(p).Architecture == m.architecture && m.MatchComparer.Match(p)
}

// choose finds the manifest for the platform in an index: the closest match, and
// among equals the first, as podman does.
func choose(index *ocispec.Index, want ocispec.Platform, name string) (ocispec.Descriptor, error) {
	matcher := matcherFor(want)
	var best *ocispec.Descriptor
	var have []string
	for i := range index.Manifests {
		m := &index.Manifests[i]
		if m.MediaType != "" && !images.IsManifestType(m.MediaType) && !images.IsIndexType(m.MediaType) {
			continue
		}
		if m.Platform == nil || m.Platform.OS == "unknown" || m.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
			continue
		}
		if len(have) < 20 {
			have = append(have, fault.OneLine(platforms.Format(*m.Platform), 40))
		}
		if matcher.Match(*m.Platform) && (best == nil || matcher.Less(*m.Platform, *best.Platform)) {
			best = m
		}
	}
	if best == nil {
		// An index of one manifest without a platform, as some builders write it.
		if len(index.Manifests) == 1 && index.Manifests[0].Platform == nil {
			return index.Manifests[0], nil
		}
		return ocispec.Descriptor{}, &fault.Error{Code: fault.Platform, Op: "pull image", Subject: name,
			Reason: fmt.Sprintf("it has no image for %s, only for: %s", platforms.Format(want), strings.Join(have, ", ")),
			Remedy: "Build the image for this platform, or name another one with --platform"}
	}
	return *best, nil
}
