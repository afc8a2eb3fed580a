package image_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/verify"
)

// signedWith allows an image that is signed with the key for the name of the request.
func signedWith(t testing.TB, public []byte) func(context.Context, *image.Candidate) (*verify.Accepted, error) {
	t.Helper()
	policy := verify.Policy{Path: verify.File, ReadFile: func(string, int64) ([]byte, error) {
		return fmt.Appendf(nil, `{"default": [{"type": "sigstoreSigned", "keyData": %q}]}`, base64.StdEncoding.EncodeToString(public)), nil
	}}
	return func(ctx context.Context, c *image.Candidate) (*verify.Accepted, error) {
		ref, err := oci.ParseReference(c.Name)
		if err != nil {
			return nil, err
		}
		return policy.Check(ctx, verify.Image{Reference: ref, Manifest: c.Manifest, Signatures: c.Signatures})
	}
}

// TestSignatures pulls images that are signed in every way but the right one. What is
// refused is refused by its manifest alone, and leaves nothing.
func TestSignatures(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	p := newPuller(t, s)
	built := simple(t)
	key, public := registry.Key(t)
	other, _ := registry.Key(t)
	blobs := func(name string) string { return "GET /v2/" + name + "/blobs/" }
	sum := digest.FromBytes(built.Manifests[0].Body)
	for i, c := range []struct {
		attach func(repository, ref string)
		code   fault.Code
		words  string
	}{
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, nil, registry.Sign(t, other, sum, ref), registry.Sign(t, key, sum, ref))
		}, "", ""},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, func(m *ocispec.Manifest) {
				m.Layers = append([]ocispec.Descriptor{{MediaType: "application/vnd.dsse.envelope.v1+json", Digest: digest.FromBytes(built.Blobs[0]), Size: 1 << 40}}, m.Layers...)
			}, registry.Sign(t, key, sum, ref))
		}, "", ""}, // beside something that is no signature
		{func(string, string) {}, fault.Policy, "the manifest " + sum.String() + " has no signature"},
		{func(repository, _ string) { reg.Attach(t, repository, sum, nil) }, fault.Policy, "has no signature"},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, nil, registry.Sign(t, other, sum, ref))
		}, fault.Policy, "cryptographic signature verification failed"},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, nil, registry.Sign(t, key, digest.FromString("x"), ref))
		}, fault.Policy, "Signature for digest sha256:2d711642"},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, nil, registry.Sign(t, key, sum, ref+"2"))
		}, fault.Policy, "is accepted: Signature for identity"},
		{func(repository, ref string) {
			signature := registry.Sign(t, key, sum, ref+"2")
			signature.Payload = []byte(strings.Replace(string(signature.Payload), ref+"2", ref, 1))
			reg.Attach(t, repository, sum, nil, signature)
		}, fault.Policy, "cryptographic signature verification failed"},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, func(m *ocispec.Manifest) { m.MediaType = "application/vnd.docker.distribution.manifest.v2+json" },
				registry.Sign(t, key, sum, ref))
		}, fault.BadImage, "it is not a manifest of the Open Container Initiative's format"},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, func(m *ocispec.Manifest) { m.Layers[0].Size = 2 << 20 }, registry.Sign(t, key, sum, ref))
		}, fault.BadImage, "impossible size"},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, func(m *ocispec.Manifest) {
				for range 256 {
					m.Layers = append(m.Layers, m.Layers[0])
				}
			}, registry.Sign(t, key, sum, ref))
		}, fault.BadImage, "it has 257 signatures"},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, nil, registry.Sign(t, key, sum, ref))
			reg.Faults.Body("GET /v2/"+repository+"/manifests/"+registry.SignatureTag(sum), -1, ocispec.MediaTypeImageManifest, 1<<40)
		}, fault.BadImage, "larger than the limit"},
		{func(repository, ref string) {
			signature := registry.Sign(t, key, sum, ref)
			reg.Attach(t, repository, sum, nil, signature)
			reg.Faults.Corrupt(blobs(repository)+digest.FromBytes(signature.Payload).String(), -1, 20)
		}, fault.Digest, "its content has the digest"},
		{func(repository, ref string) {
			signature := registry.Sign(t, key, sum, ref)
			reg.Attach(t, repository, sum, nil, signature)
			reg.Faults.Status(blobs(repository)+digest.FromBytes(signature.Payload).String(), -1, http.StatusNotFound)
		}, fault.BadImage, "cannot fetch the signatures of"},
		{func(repository, _ string) {
			reg.Faults.Status("GET /v2/"+repository+"/manifests/"+registry.SignatureTag(sum), -1, http.StatusForbidden)
		}, fault.Auth, "cannot fetch the signatures of"},
		{func(repository, ref string) {
			reg.Attach(t, repository, sum, nil, registry.Sign(t, key, sum, ref))
			reg.Faults.Status("GET /v2/"+repository+"/manifests/"+registry.SignatureTag(sum), 2, http.StatusServiceUnavailable)
		}, "", ""}, // tried again as the image's own parts are
	} {
		repository := fmt.Sprintf("team/tool%d", i)
		ref, _ := reg.Push(t, repository+":1", built)
		c.attach(repository, ref)
		before := s.contents(t)
		req := insecure(request(ref))
		req.Admit = signedWith(t, public)
		img, err := p.Pull(s.ctx, req, nil)
		if c.code == "" {
			require.NoError(t, err, "case %d", i)
			assert.Equal(t, ref, img.Accepted.Signers[0].Identity)
			require.NoError(t, p.Delete(s.ctx, ref))
			continue
		}
		require.Equal(t, c.code, fault.CodeOf(err), "case %d: %v", i, err)
		assert.ErrorContains(t, err, c.words, "case %d", i)
		assert.NotEmpty(t, fault.RemedyOf(err), "case %d", i)
		for _, blob := range built.Blobs {
			assert.Zero(t, reg.Faults.Count(blobs(repository)+digest.FromBytes(blob).String()), "case %d: a part of the image was fetched", i)
		}
		assert.Equal(t, before, s.contents(t), "case %d", i)
	}
}

// TestSignedIndex: as with podman, the manifest of the platform has to be signed, for that
// is what runs. A signature of the index alone is none.
func TestSignedIndex(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	built := simple(t)
	ref, top := reg.Push(t, "team/multi:1", registry.NewIndex(t, map[string]*registry.Image{"linux/" + built.Config.Architecture: built}))
	key, public := registry.Key(t)
	p := newPuller(t, s)
	req := insecure(request(ref))
	req.Admit = signedWith(t, public)
	reg.Attach(t, "team/multi", top, nil, registry.Sign(t, key, top, ref))
	_, err := p.Pull(s.ctx, req, nil)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "%v", err)
	sum := digest.FromBytes(built.Manifests[0].Body)
	assert.ErrorContains(t, err, sum.String())
	assert.Contains(t, fault.RemedyOf(err), "--recursive")

	reg.Attach(t, "team/multi", sum, nil, registry.Sign(t, key, sum, ref))
	for _, name := range []string{ref, reg.Host + "/team/multi@" + top.String()} {
		req := insecure(request(name))
		req.Admit = signedWith(t, public)
		img, err := p.Pull(s.ctx, req, nil)
		require.NoError(t, err, name)
		assert.Equal(t, sum.String(), img.Digest)
	}
}

// TestSignaturesStayWithTheImage: an image that is present is held to the rule each time,
// by the signature that let it in, and by the registry's where that one does not do.
func TestSignaturesStayWithTheImage(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, sum := reg.Push(t, "team/tool:1", simple(t))
	key, public := registry.Key(t)
	newKey, newPublic := registry.Key(t)
	reg.Attach(t, "team/tool", sum, nil, registry.Sign(t, key, sum, ref))
	p := newPuller(t, s)
	pulled := func(public []byte, policy image.Policy) (*image.Image, error) {
		req := insecure(request(ref))
		req.Policy, req.Admit = policy, nil
		if public != nil {
			req.Admit = signedWith(t, public)
		}
		return p.Pull(s.ctx, req, nil)
	}
	_, err := pulled(public, image.Missing)
	require.NoError(t, err)
	asked := len(reg.Faults.Seen())
	for _, policy := range []image.Policy{image.Missing, image.Never} {
		img, err := pulled(public, policy)
		require.NoError(t, err)
		assert.True(t, img.FromCache)
		assert.Len(t, img.Accepted.Signers, 1)
	}
	assert.Len(t, reg.Faults.Seen(), asked, "the registry is not needed")

	// Another key is demanded now.
	_, err = pulled(newPublic, image.Never)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "%v", err)
	assert.ErrorContains(t, err, "--pull=never asks no registry")
	_, err = pulled(newPublic, image.Missing)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "%v", err)
	reg.Faults.Status(registry.SignatureTag(sum), 4, http.StatusServiceUnavailable)
	_, err = pulled(newPublic, image.Missing)
	require.Equal(t, fault.Registry, fault.CodeOf(err), "%v", err)
	reg.Attach(t, "team/tool", sum, nil, registry.Sign(t, newKey, sum, ref))
	_, err = pulled(newPublic, image.Missing)
	require.NoError(t, err)
	for _, policy := range []image.Policy{image.Never, image.Always, image.Newer} {
		_, err = pulled(newPublic, policy)
		require.NoError(t, err, policy)
	}
	reg.Faults.Status("", -1, http.StatusServiceUnavailable)
	_, err = pulled(newPublic, image.Newer)
	require.NoError(t, err, "the present image has what it needs")
	reg.Faults.Clear()

	// One that came before anybody demanded a signature.
	require.NoError(t, p.Delete(s.ctx, ref))
	_, err = pulled(nil, image.Missing)
	require.NoError(t, err)
	_, err = pulled(newPublic, image.Never)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "%v", err)
	for _, policy := range []image.Policy{image.Missing, image.Never} {
		_, err = pulled(newPublic, policy)
		require.NoError(t, err, policy)
	}
	require.NoError(t, p.Delete(s.ctx, ref))
	require.Empty(t, s.contents(t))
}

// TestSignaturesByWayOfAMirror: they come from where the image comes from, and from the
// origin where the mirror has none. The name that counts is the one that was asked for.
func TestSignaturesByWayOfAMirror(t *testing.T) {
	s := newStore(t, "64m")
	mirror, origin := registry.Start(t), registry.Start(t)
	key, public := registry.Key(t)
	for i, reg := range []*registry.Registry{mirror, origin} {
		name := fmt.Sprintf("team/tool%d", i)
		mirror.Push(t, name+":1", simple(t))
		ref, sum := origin.Push(t, name+":1", simple(t))
		reg.Attach(t, name, sum, nil, registry.Sign(t, key, sum, ref))
		p := newPuller(t, s, func(cfg *image.Config) {
			write(t, cfg.RegistriesConf, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n",
				origin.Host, mirror.Host))
		})
		req := request(ref)
		req.Admit = signedWith(t, public)
		_, err := p.Pull(s.ctx, req, nil)
		require.NoError(t, err)
		assert.Equal(t, 2*i, origin.Faults.Count("GET"), "only what the mirror has not")
	}
}

// TestImagesFromFilesAreAskedAbout: their Admit is asked before a layer is read, and finds
// no signatures.
func TestImagesFromFilesAreAskedAbout(t *testing.T) {
	s := newStore(t, "64m")
	dir := filepath.Join(t.TempDir(), "layout")
	simple(t).WriteLayout(t, dir, "1")
	p := newPuller(t, s)
	refused := &fault.Error{Code: fault.Policy, Op: "use image", Subject: "oci:" + dir}
	req := &image.Request{Original: "oci:" + dir, Transport: image.OCI, Path: dir, Admit: func(ctx context.Context, c *image.Candidate) (*verify.Accepted, error) {
		found, err := c.Signatures(ctx)
		assert.Empty(t, found)
		assert.NoError(t, err)
		assert.Equal(t, "oci:"+dir, c.Name)
		return nil, refused
	}}
	_, err := p.Pull(s.ctx, req, nil)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "%v", err)
	require.Empty(t, s.contents(t))
	req.Admit = nil
	_, err = p.Pull(s.ctx, req, nil)
	require.NoError(t, err)
}
