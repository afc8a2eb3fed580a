package doctor_test

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
	"github.com/careen-project/careen/rootfs/doctor"
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
	checks := doctor.Run(t.Context(), doctor.Options{Prepare: rootfs.PrepareOptions{StoreDir: store}})
	seen := map[string]bool{}
	for _, c := range checks {
		require.False(t, seen[c.Name], "%s twice", c.Name)
		seen[c.Name] = true
		require.Contains(t, []string{doctor.StatusOK, doctor.StatusWarning, doctor.StatusError}, c.Status)
		require.NotEmpty(t, c.Detail, c.Name)
		require.NotContains(t, c.Detail, "\n")
		require.Equal(t, c.Status == doctor.StatusOK, c.Remedy == "", "%+v", c)
	}
	left, err := os.ReadDir(store)
	require.NoError(t, err)
	require.Empty(t, left, "a trial has to leave nothing")
	if os.Getuid() == 0 {
		for _, name := range []string{"privileges", "namespaces", "pivot_root", "overlay", "store"} {
			require.Equal(t, doctor.StatusOK, check(t, checks, name).Status, "%+v", check(t, checks, name))
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
		opts                        doctor.Options
	}{
		{"year before the build", "clock", doctor.StatusWarning, "built on", doctor.Options{BuildTime: time.Now().AddDate(1, 0, 0)}},
		{"long after the build", "clock", doctor.StatusWarning, "expired", doctor.Options{BuildTime: time.Now().AddDate(-20, 0, 0)}},
		{"no resolv.conf", "dns", doctor.StatusWarning, "no such file", doctor.Options{ResolvConf: filepath.Join(dir, "absent")}},
		{"empty resolv.conf", "dns", doctor.StatusWarning, "no nameserver line", doctor.Options{ResolvConf: file("empty", "search example\n")}},
		{"no resolver on the loopback address", "dns", doctor.StatusWarning, "does not answer", doctor.Options{ResolvConf: file("lo", "nameserver 127.99.99.99\n")}},
		{"a name server", "dns", doctor.StatusOK, "192.0.2.53", doctor.Options{ResolvConf: file("one", "nameserver 192.0.2.53\n")}},
		{"no bundle", "ca", doctor.StatusWarning, "no bundle", doctor.Options{Getenv: env("SSL_CERT_FILE", filepath.Join(dir, "absent"))}},
		{"empty bundle", "ca", doctor.StatusWarning, "no certificates", doctor.Options{Getenv: env("SSL_CERT_FILE", file("ca", "nothing"))}},
		{"no proxy", "proxy", doctor.StatusOK, "none", doctor.Options{Getenv: env()}},
		{"a proxy", "proxy", doctor.StatusOK, "HTTPS_PROXY=http://me:xxxxx@proxy.example:1", doctor.Options{Getenv: env("HTTPS_PROXY", "http://me:pw@proxy.example:1")}},
		{"bad proxy", "proxy", doctor.StatusWarning, "scheme", doctor.Options{Getenv: env("HTTP_PROXY", "gopher://x")}},
		{"bad no_proxy", "proxy", doctor.StatusWarning, "not a network", doctor.Options{Getenv: env("NO_PROXY", "a, 1.2.3.4/77")}},
		{"no modules", "modules", doctor.StatusWarning, "no kernel modules", doctor.Options{Prepare: rootfs.PrepareOptions{ModulesDir: dir}}},
		{"store too large", "store", doctor.StatusError, "bytes of memory in all", doctor.Options{Prepare: rootfs.PrepareOptions{
			StoreDir: filepath.Join(dir, "store"), Store: rootfs.StoreTmpfs, StoreSize: 1 << 60}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := check(t, doctor.Run(t.Context(), tt.opts), tt.check)
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
		{"open", plain(200), doctor.StatusOK, "answers in"},
		{"with credentials", plain(401), doctor.StatusOK, "asks for credentials"},
		{"broken", plain(503), doctor.StatusWarning, "503"},
		{"something else", plain(404), doctor.StatusError, "not a registry"},
		{"TLS", secure(now.Add(-time.Hour), now.AddDate(1, 0, 0), true), doctor.StatusOK, "answers in"},
		{"TLS that soon ends", secure(now.Add(-time.Hour), now.AddDate(0, 0, 2), true), doctor.StatusOK, "certificate ends on"},
		{"expired", secure(now.AddDate(-1, 0, 0), now.AddDate(0, 0, -1), true), doctor.StatusError, "valid from"},
		{"not yet valid", secure(now.AddDate(1, 0, 0), now.AddDate(2, 0, 0), true), doctor.StatusError, "valid from"},
		{"unknown authority", secure(now.Add(-time.Hour), now.AddDate(1, 0, 0), false), doctor.StatusError, "does not know"},
		{"plain HTTP asked for TLS", strings.TrimPrefix(plain(200), "http://"), doctor.StatusError, "plain HTTP"},
		{"no answer", hang.URL, doctor.StatusError, "no answer in time"},
		{"no listener", "127.0.0.1:1", doctor.StatusError, "refused"},
		{"not a host", "http://me:pw@host/x", doctor.StatusError, "not a registry's name"},
		{"no host", "https://", doctor.StatusError, "not a registry's name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got := check(t, doctor.Run(ctx, doctor.Options{
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
		return check(t, doctor.Run(t.Context(), doctor.Options{
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
	got := check(t, doctor.Run(t.Context(), doctor.Options{Registries: []string{"http://registry.example"}, Getenv: getenv}),
		"registry http://registry.example")
	require.Contains(t, got.Detail, "the proxy asks for credentials")
}
