package image

import (
	"context"
	"io"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// cosign and podman write one layer of this type per signature. Its blob is the signed
// text, and its annotation the signature. The manifest with these layers has the tag
// sha256-HEX.sig, where HEX is the digest of the signed manifest.
const (
	signatureType       = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// Limits of an image's signatures: their number, and the bytes of one signed text and of
// all. A real one has a digest and a name.
const (
	maxSignatures   = 256
	maxPayload      = 1 << 20
	maxPayloadBytes = 4 << 20
)

// signatures fetches the signatures that are attached to a manifest.
func (r *registry) signatures(ctx context.Context, manifest []byte) ([]verify.Signature, error) {
	found, err := r.fetchSignatures(ctx, digest.FromBytes(manifest))
	if err != nil {
		err = failure.Classify(err, "fetch the signatures of", r.req.Original)
		code := fault.CodeOf(err)
		if code == fault.ImageNotFound {
			code = fault.BadImage // a signature names a blob that is absent
		}
		return nil, &fault.Error{Code: code, Op: "fetch the signatures of", Subject: r.req.Original, Err: err}
	}
	return found, nil
}

func (r *registry) fetchSignatures(ctx context.Context, of digest.Digest) ([]verify.Signature, error) {
	tag := of.Algorithm().String() + "-" + of.Encoded() + ".sig"
	doc, err := r.fetchManifest(ctx, tag, "", true, r.p.cfg.Limits.MaxManifest)
	if fault.CodeOf(err) == fault.ImageNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if doc.manifest == nil || doc.desc.MediaType != ocispec.MediaTypeImageManifest {
		return nil, failure.BadImage(tag, "it is not a manifest of the Open Container Initiative's format, but %q", fault.OneLine(doc.desc.MediaType, 100))
	}
	layers, err := signatureLayers(doc.manifest, tag)
	if err != nil {
		return nil, err
	}
	found := make([]verify.Signature, 0, len(layers))
	for _, layer := range layers {
		payload, err := r.payload(ctx, layer)
		if err != nil {
			return nil, err
		}
		found = append(found, verify.Signature{Payload: payload, Value: layer.Annotations[signatureAnnotation]})
	}
	return found, nil
}

// signatureLayers returns the layers that are signatures. It refuses more of them than an
// image has, before one is fetched.
func signatureLayers(m *ocispec.Manifest, tag string) ([]ocispec.Descriptor, error) {
	var layers []ocispec.Descriptor
	var total int64
	for _, layer := range m.Layers {
		if layer.MediaType != signatureType || layer.Annotations[signatureAnnotation] == "" {
			continue // an attestation, or something else
		}
		if err := checkDescriptor(layer, "signature", maxPayload); err != nil {
			return nil, err
		}
		total += layer.Size
		layers = append(layers, layer)
	}
	if len(layers) > maxSignatures || total > maxPayloadBytes {
		return nil, failure.BadImage(tag, "it has %d signatures of %d bytes in all; the limits are %d and %d", len(layers), total, maxSignatures, maxPayloadBytes)
	}
	return layers, nil
}

func (r *registry) payload(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	blob, err := r.blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	body, err := io.ReadAll(io.LimitReader(blob, desc.Size))
	if err != nil {
		return nil, err
	}
	if got := desc.Digest.Algorithm().FromBytes(body); got != desc.Digest {
		return nil, failure.DigestMismatch("signature", desc.Digest, got)
	}
	return body, nil
}
