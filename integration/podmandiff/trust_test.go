package podmandiff

import (
	"context"
	"crypto"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// signedImages are images in a registry by their tags, each signed in another way.
type signedImages struct {
	reg          *registry.Registry
	key, other   crypto.Signer
	public       []byte
	image, multi *registry.Image
}

// push stores the image under the tag's name, and what is to be its signature.
func (s *signedImages) push(t *testing.T, tag string) {
	t.Helper()
	image := s.image
	if strings.HasPrefix(tag, "index") {
		image = s.multi
	}
	// A repository for each: the signatures of a manifest lie in one place.
	ref, top := s.reg.Push(t, tag+":1", image)
	sum := digest.FromBytes(s.image.Manifests[0].Body)
	var all []registry.Signature
	switch tag {
	case "unsigned":
		return
	case "signed", "index-manifest":
		all = append(all, registry.Sign(t, s.key, sum, ref))
	case "index":
		sum = top
		all = append(all, registry.Sign(t, s.key, sum, ref))
	case "stranger":
		all = append(all, registry.Sign(t, s.other, sum, ref))
	case "second":
		all = append(all, registry.Sign(t, s.other, sum, ref), registry.Sign(t, s.key, sum, ref))
	case "repository":
		all = append(all, registry.Sign(t, s.key, sum, strings.TrimSuffix(ref, ":1")))
	case "vendor":
		all = append(all, registry.Sign(t, s.key, sum, "vendor.example/fw/vendor:1"))
	case "forged":
		forged := registry.Sign(t, s.key, digest.FromString("another"), ref)
		forged.Payload = []byte(strings.Replace(string(forged.Payload), digest.FromString("another").String(), sum.String(), 1))
		all = append(all, forged)
	}
	s.reg.Attach(t, tag, sum, nil, all...)
}

// TestSignaturesSameAsPodman gives podman and the built binary one policy.json and images
// that are signed in many ways: both have to find a signature or none, and to take the
// image or to refuse it.
func TestSignaturesSameAsPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	etc := harness.OwnEtcContainers(t)
	etc("registries.d/all.yaml", "default-docker:\n  use-sigstore-attachments: true\n")
	s := &signedImages{reg: registry.Start(t)}
	s.key, s.public = registry.Key(t)
	s.other, _ = registry.Key(t)
	etc("key.pub", string(s.public))
	s.image = registry.NewImage(t, []registry.Layer{registry.NewLayer(t, registry.Tar(t, registry.File("a", "one")), registry.Gzip)})
	s.multi = registry.NewIndex(t, map[string]*registry.Image{"linux/" + runtime.GOARCH: s.image})
	agent := harness.Start(t)
	// Not t.TempDir: podman takes short paths only.
	dir, err := os.MkdirTemp("", "podmandiff-")
	require.NoError(t, err)
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "crun"), []byte("#!/bin/sh\n"), 0o755))
	p := &podman{dir: dir}
	t.Cleanup(p.end)
	const byPath = `"keyPath": "/etc/containers/key.pub"`
	identity := func(text string) string {
		return byPath + `, "signedIdentity": {` + strings.ReplaceAll(text, "@REG@", s.reg.Host) + `}`
	}
	verdicts := map[string]int{}
	for _, c := range []struct{ tag, signed, reference string }{
		{"signed", byPath, ":1"},
		{"signed", `"keyData": "` + base64.StdEncoding.EncodeToString(s.public) + `"`, "@"},
		{"unsigned", byPath, ":1"},
		{"stranger", byPath, ":1"},
		{"second", byPath, ":1"},
		{"forged", byPath, ":1"},
		{"index", byPath, ":1"},
		{"index-manifest", byPath, ":1"},
		{"repository", identity(`"type": "matchRepository"`), ":1"},
		{"vendor", identity(`"type": "remapIdentity", "prefix": "@REG@", "signedPrefix": "vendor.example/fw"`), ":1"},
		{"signed", byPath + `, "keyType": "GPGKeys"`, ":1"},
	} {
		s.push(t, c.tag)
		name := s.reg.Host + "/" + c.tag + c.reference
		if c.reference == "@" {
			name += digest.FromBytes(s.image.Manifests[0].Body).String()
		}
		etc("policy.json", fmt.Sprintf(`{"default": [{"type": "reject"}], "transports": {"docker": {%q: [{"type": "sigstoreSigned", %s}]}}}`, s.reg.Host, c.signed))
		args := []string{"pull", "--tls-verify=false", name}
		got := agent.Careen(args...)
		mine := verdict(got.Code, got.Stderr, "has no signature")
		var theirs, said string
		for range attempts {
			theirs, said = p.verdict(args)
			if theirs == mine || theirs == found && mine != none {
				break
			}
		}
		if theirs == found {
			require.NotEqual(t, none, mine, "%s with %s: podman found a signature: %s\n%s", name, c.signed, said, got)
		} else {
			require.Equal(t, theirs, mine, "%s with %s: podman says %s\n%s", name, c.signed, said, got)
		}
		verdicts[mine]++
	}
	assert.Equal(t, map[string]int{accepted: 6, none: 2, refused: 3}, verdicts)
}

// What becomes of an image. Debian's podman goes as far as found: it looks for
// signatures, and then says that it was built without the part that verifies one.
const (
	accepted = "accepted"
	refused  = "refused"
	none     = "refused: no signature"
	found    = "a signature was found"
)

func verdict(code int, said, words string) string {
	switch {
	case code == 0:
		return accepted
	case strings.Contains(said, words):
		return none
	case strings.Contains(said, "sigstore disabled"):
		return found
	default:
		return refused
	}
}

// verdict runs podman and returns what it makes of the image, and its words.
func (p *podman) verdict(args []string) (what, said string) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	command := p.command(ctx, false, args...)
	out, _ := command.CombinedOutput()
	return verdict(command.ProcessState.ExitCode(), string(out), "no signature exists"), string(out)
}
