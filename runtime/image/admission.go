package image

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// Signatures returns the signatures that are attached to the manifest at the image's
// source, not verified. For a present image they may be those that were accepted when it was
// pulled. Errors are as those of [Puller.Pull].
func (c *Candidate) Signatures(ctx context.Context) ([]verify.Signature, error) {
	c.asked = true
	return c.signatures(ctx)
}

// admit asks the request's Admit about an image that is about to be pulled.
func (j *job) admit(ctx context.Context, src source, img *resolvedImage) error {
	if j.req.Admit == nil {
		return nil
	}
	accepted, err := j.req.Admit(ctx, candidateAt(src, img.name, img.manifest.body))
	img.accepted = accepted
	return err
}

// candidateAt is an image whose signatures are asked for at its source.
func candidateAt(src source, name string, manifest []byte) *Candidate {
	return &Candidate{Name: name, Manifest: manifest,
		signatures: func(ctx context.Context) ([]verify.Signature, error) { return src.signatures(ctx, manifest) }}
}

// admitPresent asks the request's Admit about a present image. The signatures that were
// accepted were stored with it. If the policy or its keys changed and these are no longer
// accepted, the registry is asked for others, unless the request forbids that.
func (j *job) admitPresent(ctx context.Context, img *Image) error {
	if j.req.Admit == nil {
		return nil
	}
	body, err := content.ReadBlob(ctx, j.p.client.ContentStore(), ocispec.Descriptor{Digest: digest.Digest(img.Digest)})
	if err != nil {
		return failure.Containerd("read image", img.Name, err)
	}
	c := &Candidate{Name: img.Name, Manifest: body, signatures: func(context.Context) ([]verify.Signature, error) { return img.stored, nil }}
	accepted, err := j.req.Admit(ctx, c)
	if fromRegistry(j.req) && c.asked && fault.CodeOf(err) == fault.Policy {
		if j.req.Policy == Never {
			return &fault.Error{Code: fault.Policy, Op: "use image", Subject: j.req.Original, Err: err,
				Reason: "no signature that policy.json accepts was kept with it, and --pull=never asks no registry for one",
				Remedy: "Pull it again with --pull=always"}
		}
		accepted, err = j.admitAgain(ctx, img.Name, body)
	}
	img.Accepted = accepted
	return err
}

// admitAgain asks about a present image with the signatures that its source has now, and
// stores those that are accepted.
func (j *job) admitAgain(ctx context.Context, name string, manifest []byte) (*verify.Accepted, error) {
	src, err := j.open(ctx, name, true)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	accepted, err := j.req.Admit(ctx, candidateAt(src, name, manifest))
	if err != nil {
		return nil, err
	}
	return accepted, j.p.storeSignatures(ctx, name, accepted)
}

// labelSignature and a number are the labels of an image record with the signatures that
// were accepted: the value, a blank, and the signed text in base64.
const labelSignature = "careen/signature-"

// maxLabel is containerd's limit of a label with its key, in bytes.
const maxLabel = 4096

// labelsOf are the labels with the accepted signatures. A signature that is too long for a
// label is left out: the registry is asked for it whenever it is needed.
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

// signaturesIn is the reverse of labelsOf. It skips labels that are no signature.
func signaturesIn(labels map[string]string) []verify.Signature {
	var stored []verify.Signature
	for key, label := range labels {
		if !strings.HasPrefix(key, labelSignature) {
			continue
		}
		value, payload, _ := strings.Cut(label, " ")
		if data, err := base64.StdEncoding.DecodeString(payload); err == nil {
			stored = append(stored, verify.Signature{Payload: data, Value: value})
		}
	}
	return stored
}

// storeSignatures stores accepted signatures with a present image.
func (p *Puller) storeSignatures(ctx context.Context, name string, accepted *verify.Accepted) error {
	record := images.Image{Name: name, Labels: labelsOf(accepted)}
	var fields []string
	for key := range record.Labels {
		fields = append(fields, "labels."+key)
	}
	if len(fields) == 0 {
		return nil
	}
	if _, err := p.client.ImageService().Update(ctx, record, fields...); err != nil {
		return failure.Containerd("update image", name, err)
	}
	return nil
}
