package image

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/verify"
)

// What cosign and podman write for each signature: a layer of this type, whose
// annotation holds the signature of what the layer's blob says. The manifest with the
// layers lies under the tag sha256-HEX.sig beside the manifest that they sign.
const (
	signatureType       = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// Bounds of an image's signatures: how many, and the bytes of one and of all that are
// signed. A real one says a digest and a name.
const (
	maxSignatures   = 256
	maxPayload      = 1 << 20
	maxPayloadBytes = 4 << 20
)

// Candidate is an image whose manifest is known and of which no layer is fetched yet,
// or one that is present.
type Candidate struct {
	// Name is the full reference, or the reference as written for what comes from a file.
	Name string
	// Manifest is the manifest whose layers would run, as it was sent.
	Manifest []byte

	signatures func(context.Context) ([]verify.Signature, error)
	asked      bool
}

// Signatures returns what is attached to the manifest where the image is, unverified.
// Those of an image that is present may be the ones that let it in.
func (c *Candidate) Signatures(ctx context.Context) ([]verify.Signature, error) {
	c.asked = true
	return c.signatures(ctx)
}

// admit asks the request's Admit about an image that is about to be pulled.
func (j *job) admit(ctx context.Context, src source, pic *picture) error {
	if j.req.Admit == nil {
		return nil
	}
	c := &Candidate{Name: pic.name, Manifest: pic.manifest.body, signatures: none}
	if r, ok := src.(*registry); ok {
		c.signatures = func(ctx context.Context) ([]verify.Signature, error) { return r.signatures(ctx, pic.manifest.body) }
	}
	accepted, err := j.req.Admit(ctx, c)
	pic.accepted = accepted
	return err
}

func none(context.Context) ([]verify.Signature, error) { return nil, nil }

// present asks about an image that is present. The signatures that let it in were kept
// with it. Where they do not count, for the rule or its keys are others now, the
// registry is asked, unless the request forbids that.
func (j *job) present(ctx context.Context, img *Image) (*Image, error) {
	if j.req.Admit == nil {
		return img, nil
	}
	body, err := content.ReadBlob(ctx, j.p.client.ContentStore(), ocispec.Descriptor{Digest: digest.Digest(img.Digest)})
	if err != nil {
		return nil, unreachable("read image", img.Name, err)
	}
	c := &Candidate{Name: img.Name, Manifest: body, signatures: func(context.Context) ([]verify.Signature, error) { return img.kept, nil }}
	accepted, err := j.req.Admit(ctx, c)
	if fromRegistry(j.req) && c.asked && fault.CodeOf(err) == fault.Policy {
		if j.req.Policy == Never {
			return nil, &fault.Error{Code: fault.Policy, Op: "use image", Subject: j.req.Original, Err: err,
				Reason: "no signature that policy.json accepts was kept with it, and --pull=never asks no registry for one",
				Remedy: "Pull it again with --pull=always"}
		}
		if accepted, err = j.ask(ctx, c); err == nil {
			err = j.p.keep(ctx, img.Name, accepted)
		}
	}
	if err != nil {
		return nil, err
	}
	img.Accepted = accepted
	return img, nil
}

// ask has the candidate judged by the signatures that the registry has now.
func (j *job) ask(ctx context.Context, c *Candidate) (*verify.Accepted, error) {
	name, err := reference.ParseNamed(c.Name)
	if err != nil {
		return nil, fmt.Errorf("image record %q: %w", c.Name, err)
	}
	src, err := j.p.openRegistry(ctx, j.req, name, j.progress.retried)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	src.warn = j.progress.warn
	if j.req.Policy != Newer {
		src.gate = j.gate()
	}
	c.signatures = func(ctx context.Context) ([]verify.Signature, error) { return src.signatures(ctx, c.Manifest) }
	return j.req.Admit(ctx, c)
}

// signatures fetches what is attached to a manifest. None is no error.
func (r *registry) signatures(ctx context.Context, manifest []byte) ([]verify.Signature, error) {
	found, err := r.fetchSignatures(ctx, digest.FromBytes(manifest))
	if err != nil {
		err = classify(err, "fetch the signatures of", r.req.Original)
		code := fault.CodeOf(err)
		if code == fault.ImageNotFound {
			code = fault.BadImage // what is attached names a blob that is not there
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
		return nil, badImage(tag, "it is not a manifest of the Open Container Initiative's format, but %q", fault.OneLine(doc.desc.MediaType, 100))
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

// signatureLayers picks the signatures among what is attached, and refuses more of them
// than an image has, before one is fetched.
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
		return nil, badImage(tag, "it has %d signatures of %d bytes in all; the limits are %d and %d", len(layers), total, maxSignatures, maxPayloadBytes)
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
		return nil, digestMismatch("signature", desc.Digest, got)
	}
	return body, nil
}

// labelSignature and a number are the labels of an image record that keep the
// signatures which let the image in: the value, a blank, and what is signed, in base64.
const labelSignature = "careen/signature-"

// maxLabel is what containerd lets a label have, with its key.
const maxLabel = 4096

// labelsOf are the labels that keep the signatures. One that is too long for a label is
// left out: the registry is asked for it whenever it is needed.
func labelsOf(accepted *verify.Accepted) map[string]string {
	labels := map[string]string{}
	if accepted == nil {
		return labels
	}
	for i, s := range accepted.Signatures {
		key, value := labelSignature+strconv.Itoa(i), s.Value+" "+base64.StdEncoding.EncodeToString(s.Payload)
		if len(key)+len(value) <= maxLabel {
			labels[key] = value
		}
	}
	return labels
}

// keptIn is the reverse of labelsOf. What is no signature is left out.
func keptIn(labels map[string]string) []verify.Signature {
	var kept []verify.Signature
	for key, label := range labels {
		if !strings.HasPrefix(key, labelSignature) {
			continue
		}
		value, payload, _ := strings.Cut(label, " ")
		if data, err := base64.StdEncoding.DecodeString(payload); err == nil {
			kept = append(kept, verify.Signature{Payload: data, Value: value})
		}
	}
	return kept
}

// keep stores with an image that is present the signatures that let it in.
func (p *Puller) keep(ctx context.Context, name string, accepted *verify.Accepted) error {
	record := images.Image{Name: name, Labels: labelsOf(accepted)}
	var fields []string
	for key := range record.Labels {
		fields = append(fields, "labels."+key)
	}
	if len(fields) == 0 {
		return nil
	}
	if _, err := p.client.ImageService().Update(ctx, record, fields...); err != nil {
		return unreachable("update image", name, err)
	}
	return nil
}
