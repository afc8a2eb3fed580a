package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestPullAndRun pulls from every kind of registry that an operator may have.
func TestPullAndRun(t *testing.T) {
	agent := harness.Start(t)
	file := func(t *testing.T, name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	certs := func(t *testing.T, r *registry.Registry) string {
		ca, err := os.ReadFile(r.CA)
		require.NoError(t, err)
		return filepath.Dir(file(t, "ca.crt", string(ca)))
	}
	login := base64.StdEncoding.EncodeToString([]byte("op:s3cret"))
	for _, tc := range []struct {
		name     string
		registry []registry.Option
		options  func(t *testing.T, r *registry.Registry) []string
	}{
		{"plain", nil, func(*testing.T, *registry.Registry) []string { return []string{"--tls-verify=false"} }},
		{"tls unverified", []registry.Option{registry.WithTLS()}, func(*testing.T, *registry.Registry) []string {
			return []string{"--tls-verify=false"}
		}},
		{"tls cert-dir", []registry.Option{registry.WithTLS()}, func(t *testing.T, r *registry.Registry) []string {
			return []string{"--cert-dir", certs(t, r)}
		}},
		{"tls certs.d", []registry.Option{registry.WithTLS()}, func(t *testing.T, r *registry.Registry) []string {
			dir := filepath.Join("/etc/containers/certs.d", r.Host)
			made := firstMissing(dir)
			require.NoError(t, os.MkdirAll(dir, 0o755))
			t.Cleanup(func() { _ = os.RemoveAll(made) })
			ca, err := os.ReadFile(r.CA)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o644))
			return nil
		}},
		{"basic creds", []registry.Option{registry.WithTLS(), registry.WithBasicAuth("op", "s3cret")},
			func(t *testing.T, r *registry.Registry) []string {
				return []string{"--cert-dir", certs(t, r), "--creds", "op:s3cret"}
			}},
		{"basic authfile", []registry.Option{registry.WithBasicAuth("op", "s3cret")},
			func(t *testing.T, r *registry.Registry) []string {
				return []string{"--tls-verify=false", "--authfile",
					file(t, "auth.json", fmt.Sprintf(`{"auths":{"%s":{"auth":"%s"}}}`, r.Host, login))}
			}},
		{"token creds", []registry.Option{registry.WithTokenAuth("op", "s3cret")},
			func(*testing.T, *registry.Registry) []string {
				return []string{"--tls-verify=false", "--creds=op:s3cret"}
			}},
		{"token anonymous", []registry.Option{registry.WithTLS(), registry.WithTokenAuth("", "")},
			func(t *testing.T, r *registry.Registry) []string { return []string{"--cert-dir", certs(t, r)} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := registry.Start(t, tc.registry...)
			image, digest := reg.Push(t, tag, harness.Busybox(t))
			options := append([]string{"run", "--rm", "--net=host"}, tc.options(t, reg)...)
			got := agent.Careen(append(options, image, "echo", "it runs")...)
			assert.Zero(t, got.Code, "%s", got)
			assert.Equal(t, "it runs\n", got.Stdout)
			// The same by digest needs no layer again.
			got = agent.Careen(append(options, reg.Host+"/busybox@"+digest.String(), "true")...)
			assert.Zero(t, got.Code, "%s", got)
			blobs := 0
			for _, line := range reg.Faults.Seen() {
				if len(line) > 5 && line[:3] == "GET" && filepath.Base(filepath.Dir(line)) == "blobs" {
					blobs++
				}
			}
			assert.LessOrEqual(t, blobs, 4, "config and layer, each at most once refused for want of a token: %v", reg.Faults.Seen())
		})
	}
}

// firstMissing is the topmost directory that MkdirAll is going to make.
func firstMissing(dir string) string {
	for {
		parent := filepath.Dir(dir)
		if _, err := os.Stat(parent); err == nil {
			return dir
		}
		dir = parent
	}
}

func TestPullCommand(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	agent := harness.Start(t)
	reg.Faults.Do("/blobs/", -1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		time.Sleep(300 * time.Millisecond) // a pull that lasts long enough to be shown
		next.ServeHTTP(w, r)
	})

	first := agent.Careen("pull", "--tls-verify=false", "docker://"+image)
	require.Zero(t, first.Code, "%s", first)
	assert.Regexp(t, `^[0-9a-f]{64}\n$`, first.Stdout, "podman prints the image's id alone")
	assert.Contains(t, first.Stderr, "layers", "progress goes to standard error")
	again := agent.Careen("pull", "-q", "--tls-verify=false", image)
	assert.Equal(t, first.Stdout, again.Stdout)
	assert.Empty(t, again.Stderr)
	assert.Contains(t, agent.Careen("images").Stdout, reg.Host+"/busybox")
	removed := agent.Careen("rmi", image)
	assert.Zero(t, removed.Code, "%s", removed)
	assert.NotContains(t, agent.Careen("images").Stdout, reg.Host+"/busybox")
}

// TestOfflineImages runs what is baked into a ramdisk, with no registry at all.
func TestOfflineImages(t *testing.T) {
	agent := harness.Start(t)
	image, dir := harness.Busybox(t), t.TempDir()
	image.WriteLayout(t, filepath.Join(dir, "layout"), "1")
	image.WriteOCIArchive(t, filepath.Join(dir, "oci.tar"), "1")
	for _, ref := range []string{"oci:" + dir + "/layout:1", "oci-archive:" + dir + "/oci.tar"} {
		got := agent.Careen("run", "--rm", "--network=none", ref, "echo", "offline")
		assert.Zero(t, got.Code, "%s: %s", ref, got)
		assert.Equal(t, "offline\n", got.Stdout)
	}
}

// TestRemoveImageWithRun: --rmi takes the image away with the container.
func TestRemoveImageWithRun(t *testing.T) {
	agent, image := node(t)
	id := filepath.Join(t.TempDir(), "cid")
	got := agent.Careen("run", "--rm", "--rmi", "--cidfile", id, "-v", filepath.Dir(id)+":/out", image,
		"sh", "-c", "cat /out/cid > /out/seen")
	require.Zero(t, got.Code, "%s", got)
	seen, err := os.ReadFile(filepath.Join(filepath.Dir(id), "seen"))
	require.NoError(t, err)
	assert.Regexp(t, `^[0-9a-f]{64}$`, string(seen))
	assert.NoFileExists(t, id, "podman removes it with the container")
	assert.NotContains(t, agent.Careen("images").Stdout, "busybox")
}
