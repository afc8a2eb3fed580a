package rootfs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/rootfs"
)

// check returns the one finding of that name.
func check(t *testing.T, checks []api.Check, name string) api.Check {
	t.Helper()
	for _, c := range checks {
		if c.Name == name {
			return c
		}
	}
	require.Failf(t, "no such check", "%s in %+v", name, checks)
	return api.Check{}
}

func TestDoctorNode(t *testing.T) {
	store := t.TempDir()
	checks := rootfs.Doctor(t.Context(), rootfs.DoctorOptions{Prepare: rootfs.PrepareOptions{StoreDir: store}})
	seen := map[string]bool{}
	for _, c := range checks {
		require.False(t, seen[c.Name], "%s twice", c.Name)
		seen[c.Name] = true
		require.Contains(t, []string{rootfs.StatusOK, rootfs.StatusWarning, rootfs.StatusError}, c.Status)
		require.NotEmpty(t, c.Detail, c.Name)
		require.NotContains(t, c.Detail, "\n")
		require.Equal(t, c.Status == rootfs.StatusOK, c.Remedy == "", "%+v", c)
	}
	left, err := os.ReadDir(store)
	require.NoError(t, err)
	require.Empty(t, left, "a trial has to leave nothing")
	if os.Getuid() == 0 {
		for _, name := range []string{"privileges", "namespaces", "pivot_root", "overlay", "store"} {
			require.Equal(t, rootfs.StatusOK, check(t, checks, name).Status, "%+v", check(t, checks, name))
		}
	}
}

func TestDoctorConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name, check, status, detail string
		opts                        rootfs.DoctorOptions
	}{
		{"year before the build", "clock", rootfs.StatusWarning, "built on", rootfs.DoctorOptions{BuildTime: time.Now().AddDate(1, 0, 0)}},
		{"long after the build", "clock", rootfs.StatusWarning, "expired", rootfs.DoctorOptions{BuildTime: time.Now().AddDate(-20, 0, 0)}},
		{"no resolv.conf", "dns", rootfs.StatusWarning, "no such file", rootfs.DoctorOptions{ResolvConf: filepath.Join(dir, "absent")}},
		{"empty resolv.conf", "dns", rootfs.StatusWarning, "no nameserver line", rootfs.DoctorOptions{ResolvConf: file("empty", "search example\n")}},
		{"nobody on the loopback", "dns", rootfs.StatusWarning, "nobody answers", rootfs.DoctorOptions{ResolvConf: file("lo", "nameserver 127.99.99.99\n")}},
		{"a name server", "dns", rootfs.StatusOK, "192.0.2.53", rootfs.DoctorOptions{ResolvConf: file("one", "nameserver 192.0.2.53\n")}},
		{"no bundle", "ca", rootfs.StatusWarning, "no bundle", rootfs.DoctorOptions{Getenv: env("SSL_CERT_FILE", filepath.Join(dir, "absent"))}},
		{"empty bundle", "ca", rootfs.StatusWarning, "no certificates", rootfs.DoctorOptions{Getenv: env("SSL_CERT_FILE", file("ca", "nothing"))}},
		{"no proxy", "proxy", rootfs.StatusOK, "none", rootfs.DoctorOptions{Getenv: env()}},
		{"a proxy", "proxy", rootfs.StatusOK, "HTTPS_PROXY=http://me:xxxxx@proxy.example:1", rootfs.DoctorOptions{Getenv: env("HTTPS_PROXY", "http://me:pw@proxy.example:1")}},
		{"bad proxy", "proxy", rootfs.StatusWarning, "scheme", rootfs.DoctorOptions{Getenv: env("HTTP_PROXY", "gopher://x")}},
		{"bad no_proxy", "proxy", rootfs.StatusWarning, "not a network", rootfs.DoctorOptions{Getenv: env("NO_PROXY", "a, 1.2.3.4/77")}},
		{"no modules", "modules", rootfs.StatusWarning, "no kernel modules", rootfs.DoctorOptions{Prepare: rootfs.PrepareOptions{ModulesDir: dir}}},
		{"store too large", "store", rootfs.StatusError, "bytes of memory in all", rootfs.DoctorOptions{Prepare: rootfs.PrepareOptions{
			StoreDir: filepath.Join(dir, "store"), Store: rootfs.StoreTmpfs, StoreSize: 1 << 60}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := check(t, rootfs.Doctor(t.Context(), tt.opts), tt.check)
			require.Equal(t, tt.status, got.Status, "%+v", got)
			require.Contains(t, got.Detail, tt.detail)
			require.NotContains(t, got.Detail, "pw")
		})
	}
}

// certificate returns one for 127.0.0.1, signed by itself.
func certificate(t *testing.T, from, to time.Time) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestDoctorRegistries(t *testing.T) {
	answer := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) })
	}
	plain := func(code int) string {
		s := httptest.NewServer(answer(code))
		t.Cleanup(s.Close)
		return s.URL
	}
	certs := t.TempDir()
	secure := func(from, to time.Time, trusted bool) string {
		s := httptest.NewUnstartedServer(answer(http.StatusOK))
		cert, text := certificate(t, from, to)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		host := strings.TrimPrefix(s.URL, "https://")
		if trusted {
			require.NoError(t, os.MkdirAll(filepath.Join(certs, host), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(certs, host, "ca.crt"), text, 0o600))
		}
		return host
	}
	hang := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hang.Close)
	now := time.Now()

	for _, tt := range []struct{ name, registry, status, detail string }{
		{"open", plain(200), rootfs.StatusOK, "answers in"},
		{"with credentials", plain(401), rootfs.StatusOK, "asks for credentials"},
		{"broken", plain(503), rootfs.StatusWarning, "503"},
		{"something else", plain(404), rootfs.StatusError, "not a registry"},
		{"TLS", secure(now.Add(-time.Hour), now.AddDate(1, 0, 0), true), rootfs.StatusOK, "answers in"},
		{"TLS that soon ends", secure(now.Add(-time.Hour), now.AddDate(0, 0, 2), true), rootfs.StatusOK, "certificate ends on"},
		{"expired", secure(now.AddDate(-1, 0, 0), now.AddDate(0, 0, -1), true), rootfs.StatusError, "valid from"},
		{"not yet valid", secure(now.AddDate(1, 0, 0), now.AddDate(2, 0, 0), true), rootfs.StatusError, "valid from"},
		{"unknown authority", secure(now.Add(-time.Hour), now.AddDate(1, 0, 0), false), rootfs.StatusError, "does not know"},
		{"plain HTTP asked for TLS", strings.TrimPrefix(plain(200), "http://"), rootfs.StatusError, "plain HTTP"},
		{"hanging", hang.URL, rootfs.StatusError, "no answer in time"},
		{"nobody there", "127.0.0.1:1", rootfs.StatusError, "refused"},
		{"no registry at all", "http://me:pw@host/x", rootfs.StatusError, "not the name"},
		{"no host", "https://", rootfs.StatusError, "not the name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got := check(t, rootfs.Doctor(ctx, rootfs.DoctorOptions{
				Registries: []string{tt.registry}, Timeout: 2 * time.Second, CertDirs: []string{certs}, Getenv: func(string) string { return "" },
			}), "registry "+tt.registry)
			require.Equal(t, tt.status, got.Status, "%+v", got)
			require.Contains(t, got.Detail, tt.detail)
		})
	}
}

// TestDoctorShowsItsCertificate: a registry that wants one is reached as a pull does.
func TestDoctorShowsItsCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	cert, text := certificate(t, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	certs := t.TempDir()
	write := func(name string, data []byte) {
		require.NoError(t, os.MkdirAll(filepath.Join(certs, host), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(certs, host, name), data, 0o600))
	}
	ask := func() api.Check {
		return check(t, rootfs.Doctor(t.Context(), rootfs.DoctorOptions{
			Registries: []string{host}, CertDirs: []string{certs}, Getenv: func(string) string { return "" },
		}), "registry "+host)
	}
	write("ca.crt", text)
	require.Contains(t, ask().Detail, "wants a client certificate")
	write("client.cert", text)
	require.Contains(t, ask().Detail, "client.key", "a certificate without its key")
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	write("client.key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}))
	require.Contains(t, ask().Detail, "answers in")
}

func TestDoctorGoesThroughTheProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "registry.example" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	t.Cleanup(proxy.Close)
	getenv := func(name string) string { return map[string]string{"http_proxy": proxy.URL}[name] }
	got := check(t, rootfs.Doctor(t.Context(), rootfs.DoctorOptions{Registries: []string{"http://registry.example"}, Getenv: getenv}),
		"registry http://registry.example")
	require.Contains(t, got.Detail, "the proxy asks for credentials")
}
