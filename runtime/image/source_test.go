package image_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
)

func write(t testing.TB, path, body string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(body), 0o600))
	return path
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	body, err := os.ReadFile(from)
	require.NoError(t, err)
	write(t, to, string(body))
}

// TestTransports pulls over every kind of connection, trust and authentication.
func TestTransports(t *testing.T) {
	auth := func(host, user, pass string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+pass)))
	}
	type env struct {
		reg *registry.Registry
		req *image.Request
		cfg *image.Config
		dir string
	}
	cases := []struct {
		name  string
		opts  []registry.Option
		setup func(t *testing.T, e *env)
	}{
		{"HTTPS with a CA in --cert-dir", []registry.Option{registry.WithTLS()}, func(_ *testing.T, e *env) {
			e.req.CertDir = filepath.Dir(e.reg.CA)
		}},
		{"HTTPS with a CA in certs.d", []registry.Option{registry.WithTLS()}, func(t *testing.T, e *env) {
			copyFile(t, e.reg.CA, filepath.Join(e.cfg.CertDirs[0], e.reg.Host, "ca.crt"))
		}},
		{"HTTPS with a CA in hosts.toml", []registry.Option{registry.WithTLS()}, func(t *testing.T, e *env) {
			write(t, filepath.Join(e.cfg.HostsDirs[0], e.reg.Host, "hosts.toml"), fmt.Sprintf("server = \"https://%s\"\nca = %q\n", e.reg.Host, e.reg.CA))
		}},
		{"HTTPS not verified", []registry.Option{registry.WithTLS()}, func(_ *testing.T, e *env) { insecure(e.req) }},
		{"HTTP by registries.conf", nil, func(t *testing.T, e *env) {
			write(t, e.cfg.RegistriesConf, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", e.reg.Host))
		}},
		{"basic authentication with --creds", []registry.Option{registry.WithBasicAuth("u", "p:w")}, func(_ *testing.T, e *env) {
			insecure(e.req).Creds = "u:p:w"
		}},
		{"basic authentication with auth.json", []registry.Option{registry.WithBasicAuth("u", "p")}, func(t *testing.T, e *env) {
			insecure(e.req)
			write(t, e.cfg.AuthFiles[0], auth(e.reg.Host, "u", "p"))
		}},
		{"authentication for a repository in auth.json", []registry.Option{registry.WithBasicAuth("u", "p")}, func(t *testing.T, e *env) {
			insecure(e.req)
			write(t, e.cfg.AuthFiles[0], auth(e.reg.Host+"/team", "u", "p"))
		}},
		{"authentication with --authfile", []registry.Option{registry.WithBasicAuth("u", "p")}, func(t *testing.T, e *env) {
			insecure(e.req)
			write(t, e.cfg.AuthFiles[0], auth(e.reg.Host, "u", "wrong"))
			e.req.AuthFile = write(t, filepath.Join(e.dir, "mine.json"), auth(e.reg.Host, "u", "p"))
		}},
		{"token for a user", []registry.Option{registry.WithTokenAuth("u", "p")}, func(_ *testing.T, e *env) { insecure(e.req).Creds = "u:p" }},
		{"token for anybody", []registry.Option{registry.WithTokenAuth("", "")}, func(_ *testing.T, e *env) { insecure(e.req) }},
		{"token over HTTPS", []registry.Option{registry.WithTLS(), registry.WithTokenAuth("u", "p")}, func(_ *testing.T, e *env) {
			e.req.CertDir, e.req.Creds = filepath.Dir(e.reg.CA), "u:p"
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t, "64m")
			reg := registry.Start(t, c.opts...)
			ref, _ := reg.Push(t, "team/tool:1", simple(t))
			e := &env{reg: reg, req: request(ref), dir: t.TempDir()}
			p := newPuller(t, s, func(cfg *image.Config) { e.cfg = cfg; c.setup(t, e) })
			_, err := p.Pull(s.ctx, e.req, nil)
			require.NoError(t, err)
		})
	}
}

func TestMirrors(t *testing.T) {
	for _, kind := range []string{"hosts.toml", "registries.conf"} {
		t.Run(kind, func(t *testing.T) {
			s := newStore(t, "64m")
			mirror, origin := registry.Start(t), registry.Start(t)
			built := simple(t)
			mirror.Push(t, "team/tool:1", built)
			ref, _ := origin.Push(t, "team/tool:1", built)
			p := newPuller(t, s, func(cfg *image.Config) {
				if kind == "hosts.toml" {
					write(t, filepath.Join(cfg.HostsDirs[0], origin.Host, "hosts.toml"),
						fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", origin.Host, mirror.Host))
				} else {
					write(t, cfg.RegistriesConf, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n",
						origin.Host, mirror.Host))
				}
			})
			req := request(ref)
			req.Creds = "for:the-origin-only"
			_, err := p.Pull(s.ctx, req, nil)
			require.NoError(t, err)
			require.Empty(t, origin.Faults.Seen(), "the mirror has all")
			require.NoError(t, p.Delete(s.ctx, ref))

			// A layer that the mirror has not comes from the origin.
			mirror.Faults.Status(layerPath(built, 0), -1, 404)
			_, err = p.Pull(s.ctx, req, nil)
			require.NoError(t, err)
			require.Equal(t, 1, origin.Faults.Count(layerPath(built, 0)))
			require.NoError(t, p.Delete(s.ctx, ref))

			// A mirror that is away does not matter.
			mirror.Faults.Status("/v2/", -1, 503)
			_, err = p.Pull(s.ctx, req, nil)
			require.NoError(t, err)
		})
	}
}

// TestErrorsNameWhereTheyComeFrom: of a registry with a mirror, the error names the host
// that sent the wrong content; of a file and of the store it names the path.
func TestErrorsNameWhereTheyComeFrom(t *testing.T) {
	s := newStore(t, "64m")
	mirror, origin := registry.Start(t), registry.Start(t)
	built := simple(t)
	mirror.Push(t, "team/tool:1", built)
	ref, _ := origin.Push(t, "team/tool:1", built)
	mirror.Faults.Corrupt(layerPath(built, 0), -1, 20)
	p := newPuller(t, s, func(cfg *image.Config) {
		write(t, cfg.RegistriesConf, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n",
			origin.Host, mirror.Host))
	})
	_, err := p.Pull(s.ctx, request(ref), nil)
	require.Equal(t, fault.Digest, fault.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "(host "+mirror.Host+")")
	require.ErrorContains(t, err, ref)

	dir := t.TempDir()
	built.WriteLayout(t, dir, "latest")
	write(t, filepath.Join(dir, "blobs/sha256", digest.FromBytes(built.Layers[0].Blob).Encoded()), strings.Repeat("x", len(built.Layers[0].Blob)))
	_, err = p.Pull(s.ctx, &image.Request{Original: "oci:" + dir, Transport: image.OCI, Path: dir}, nil)
	require.Equal(t, fault.Digest, fault.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "(file "+dir+")")

	full := newStore(t, "6m")
	ref, _ = origin.Push(t, "team/large:1", large(t))
	_, err = newPuller(t, full).Pull(full.ctx, insecure(request(ref)), nil)
	require.Equal(t, fault.Space, fault.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "(store "+full.root+")")
}

func TestRegistriesConf(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	reg.Push(t, "team/tool:1", simple(t))
	conf := ""
	p := newPuller(t, s, func(cfg *image.Config) { conf = cfg.RegistriesConf })

	write(t, conf, fmt.Sprintf("[[registry]]\nlocation = %q\nblocked = true\n", reg.Host))
	_, err := p.Pull(s.ctx, request(reg.Host+"/team/tool:1"), nil)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "%v", err)

	write(t, conf, fmt.Sprintf("unqualified-search-registries = [\"127.0.0.1:1\", %q]\n[[registry]]\nlocation = %q\ninsecure = true\n", reg.Host, reg.Host))
	req := request("team/tool:1")
	no := 0
	req.Retry = &no
	img, err := p.Pull(s.ctx, req, nil)
	require.NoError(t, err)
	require.Equal(t, reg.Host+"/team/tool:1", img.Name)

	write(t, conf, "this is not TOML")
	_, err = p.Pull(s.ctx, request(reg.Host+"/team/other:1"), nil)
	require.Equal(t, fault.BadConfig, fault.CodeOf(err), "%v", err)
}

func TestBrokenFilesAreErrors(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t, registry.WithBasicAuth("u", "p"))
	ref, _ := reg.Push(t, "team/tool:1", simple(t))
	var cfg *image.Config
	p := newPuller(t, s, func(c *image.Config) { cfg = c })

	hosts := write(t, filepath.Join(cfg.HostsDirs[0], reg.Host, "hosts.toml"), "server = \n")
	_, err := p.Pull(s.ctx, insecure(request(ref)), nil)
	require.Equal(t, fault.BadConfig, fault.CodeOf(err), "%v", err)
	require.NoError(t, os.Remove(hosts))

	write(t, cfg.AuthFiles[0], "{")
	_, err = p.Pull(s.ctx, insecure(request(ref)), nil)
	require.Equal(t, fault.BadConfig, fault.CodeOf(err), "%v", err)

	req := insecure(request(ref))
	req.AuthFile = "/no/such/file"
	_, err = p.Pull(s.ctx, req, nil)
	require.Equal(t, fault.BadOption, fault.CodeOf(err), "%v", err)
}

// TestCredentialsStayWithTheirHost redirects a layer to another server, as
// registries that keep layers in an object store do.
func TestCredentialsStayWithTheirHost(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t, registry.WithBasicAuth("u", "p"))
	built := simple(t)
	ref, _ := reg.Push(t, "team/tool:1", built)
	var seen http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		_, _ = w.Write(built.Layers[0].Blob)
	}))
	t.Cleanup(other.Close)
	reg.Faults.Do("GET /v2/team/tool"+layerPath(built, 0), -1, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		// localhost and 127.0.0.1 are different hosts to a client.
		http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)+"/blob", http.StatusTemporaryRedirect)
	})
	req := insecure(request(ref))
	req.Creds = "u:p"
	_, err := newPuller(t, s).Pull(s.ctx, req, nil)
	require.NoError(t, err)
	require.NotNil(t, seen)
	require.Empty(t, seen.Get("Authorization"))
}

// TestTokenRealmInClearText does not send credentials that came over HTTPS to a
// token server without it.
func TestTokenRealmInClearText(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t, registry.WithTLS())
	ref, _ := reg.Push(t, "team/tool:1", simple(t))
	reg.Faults.Status("/v2/", -1, 401, "WWW-Authenticate", `Bearer realm="http://127.0.0.1:1/token",service="x"`)
	req := request(ref)
	req.CertDir, req.Creds = filepath.Dir(reg.CA), "u:p"
	_, err := newPuller(t, s).Pull(s.ctx, req, nil)
	require.Equal(t, fault.Auth, fault.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "clear text")
}

func TestProxy(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, _ := reg.Push(t, "team/tool:1", simple(t))
	through := 0
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) { through++ }})
	t.Cleanup(proxy.Close)
	at, err := url.Parse(proxy.URL)
	require.NoError(t, err)

	p := newPuller(t, s, func(c *image.Config) {
		write(t, c.RegistriesConf, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", reg.Host))
		write(t, filepath.Join(c.HostsDirs[0], reg.Host, "hosts.toml"), fmt.Sprintf("server = \"http://%s\"\n", reg.Host))
		c.Proxy = func(u *url.URL) (*url.URL, error) {
			if u.Scheme == "http" {
				return at, nil
			}
			return nil, nil
		}
	})
	_, err = p.Pull(s.ctx, request(ref), nil)
	require.NoError(t, err)
	require.Positive(t, through)

	gone := newPuller(t, s, func(c *image.Config) {
		c.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse("http://127.0.0.1:1") }
	})
	req := request(ref)
	req.Policy = image.Always
	_, err = gone.Pull(s.ctx, req, nil)
	require.Equal(t, fault.Proxy, fault.CodeOf(err), "%v", err)
}

func TestFiles(t *testing.T) {
	s := newStore(t, "64m")
	p := newPuller(t, s)
	built, dir := simple(t), t.TempDir()
	built.WriteLayout(t, filepath.Join(dir, "layout"), "1")
	built.WriteOCIArchive(t, filepath.Join(dir, "oci.tar"), "1")
	streams := [][]byte{
		registry.Tar(t, registry.Dir("etc"), registry.File("etc/a", "one"), registry.File("gone", "x")),
		registry.Tar(t, registry.File("etc/b", "two"), registry.File(".wh.gone", "")),
	}
	built.WriteDockerArchive(t, filepath.Join(dir, "docker.tar"), "docker.io/library/tool:1", streams)
	write(t, filepath.Join(dir, "junk"), "not a tar at all, but long enough to be read as the header of one, if it were one")

	chain := ""
	for _, c := range []struct {
		transport image.Transport
		path, tag string
		want      fault.Code
	}{
		{image.OCI, "layout", "", ""}, {image.OCI, "layout", "1", ""}, {image.OCI, "layout", "2", fault.ImageNotFound},
		{image.OCI, "absent", "", fault.ImageNotFound}, {image.OCI, "junk", "", fault.BadImage},
		{image.OCIArchive, "oci.tar", "", ""}, {image.OCIArchive, "oci.tar", "1", ""}, {image.OCIArchive, "junk", "", fault.BadImage},
		{image.OCIArchive, "docker.tar", "", fault.ImageNotFound}, {image.OCIArchive, "layout", "", fault.BadImage},
		{image.DockerArchive, "docker.tar", "", ""}, {image.DockerArchive, "docker.tar", "tool:1", ""},
		{image.DockerArchive, "docker.tar", "other:1", fault.ImageNotFound}, {image.DockerArchive, "absent", "", fault.ImageNotFound},
	} {
		name := fmt.Sprintf("%s:%s:%s", c.transport, c.path, c.tag)
		req := &image.Request{Original: name, Transport: c.transport, Path: filepath.Join(dir, c.path), Tag: c.tag, Policy: image.Always}
		img, err := p.Pull(s.ctx, req, nil)
		if c.want != "" {
			require.Equal(t, c.want, fault.CodeOf(err), "%s: %v", name, err)
			continue
		}
		require.NoError(t, err, name)
		if chain == "" {
			chain = img.ChainID
		}
		require.Equal(t, chain, img.ChainID, name)
	}
}

func TestIndexAndPlatforms(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, top := reg.Push(t, "team/multi:1", registry.NewIndex(t, map[string]*registry.Image{
		"linux/amd64": platformImage(t, "amd64", ""), "linux/arm64": platformImage(t, "arm64", ""), "linux/arm/v7": platformImage(t, "arm", "v7"),
	}))
	p := newPuller(t, s)
	for _, c := range []struct {
		platform image.Platform
		want     string
		code     fault.Code
	}{
		{platform: image.Platform{OS: "linux", Arch: "amd64"}, want: "linux/amd64"},
		{platform: image.Platform{Arch: "arm64"}, want: "linux/arm64"},
		{platform: image.Platform{OS: "linux", Arch: "arm", Variant: "v7"}, want: "linux/arm/v7"},
		// What is there runs on arm64 as well, but was not asked for.
		{platform: image.Platform{Arch: "arm64"}, want: "linux/arm64"},
		{platform: image.Platform{Arch: "386"}, code: fault.Platform},
		{platform: image.Platform{Arch: "x86_64"}, want: "linux/amd64"},
		{platform: image.Platform{Arch: "s390x"}, code: fault.Platform},
		{platform: image.Platform{OS: "windows", Arch: "amd64"}, code: fault.Platform},
	} {
		req := insecure(request(ref))
		req.Platform = c.platform
		img, err := p.Pull(s.ctx, req, nil)
		if c.code != "" {
			require.Equal(t, c.code, fault.CodeOf(err), "%v: %v", c.platform, err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, img.Platform)
		require.Equal(t, top.String(), img.IndexDigest)
		require.NotEqual(t, img.IndexDigest, img.Digest)
	}
	byDigest := request(reg.Host + "/team/multi@" + top.String())
	img, err := p.Pull(s.ctx, insecure(byDigest), nil)
	require.NoError(t, err)
	require.Equal(t, top.String(), img.TargetDigest())
}

func TestPolicies(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	ref, _ := reg.Push(t, "team/tool:1", simple(t))
	p := newPuller(t, s)
	pullAs := func(policy image.Policy) (*image.Image, error) {
		req := insecure(request(ref))
		req.Policy = policy
		return p.Pull(s.ctx, req, nil)
	}
	_, err := pullAs(image.Never)
	require.Equal(t, fault.ImageNotFound, fault.CodeOf(err))
	_, err = pullAs("sometimes")
	require.Equal(t, fault.BadOption, fault.CodeOf(err))
	first, err := pullAs(image.Missing)
	require.NoError(t, err)

	asked := len(reg.Faults.Seen())
	for _, policy := range []image.Policy{image.Never, image.Missing} {
		img, err := pullAs(policy)
		require.NoError(t, err)
		require.True(t, img.FromCache)
	}
	require.Len(t, reg.Faults.Seen(), asked, "nobody was asked")
	for _, policy := range []image.Policy{image.Always, image.Newer} {
		img, err := pullAs(policy)
		require.NoError(t, err)
		require.True(t, img.FromCache)
	}
	require.Zero(t, reg.Faults.Count("GET /v2/team/tool/blobs/")-3, "layers and configuration came once")

	reg.Push(t, "team/tool:1", large(t))
	img, err := pullAs(image.Missing)
	require.NoError(t, err)
	require.Equal(t, first.Digest, img.Digest)
	img, err = pullAs(image.Newer)
	require.NoError(t, err)
	require.NotEqual(t, first.Digest, img.Digest)
	require.False(t, img.FromCache)

	reg.Faults.Status("/v2/", -1, 503)
	img, err = pullAs(image.Newer)
	require.NoError(t, err)
	require.True(t, img.FromCache)
	_, err = pullAs(image.Always)
	require.Equal(t, fault.Registry, fault.CodeOf(err))
}

func platformImage(t testing.TB, arch, variant string) *registry.Image {
	return registry.NewImage(t, []registry.Layer{registry.NewLayer(t, registry.Tar(t, registry.File("arch", arch+variant)), registry.Gzip)},
		registry.WithPlatform("linux", arch, variant))
}
