package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	// What distribution is asked for by name in its configuration.
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// Registry is a running registry. It stops with the test.
type Registry struct {
	// Host is "127.0.0.1:PORT".
	Host string
	// CA is the PEM file of the private CA, with [WithTLS].
	CA string
	// Faults stand between the client and the registry.
	Faults *Faults

	push http.Handler
}

type options struct {
	tls        bool
	notBefore  time.Time
	notAfter   time.Time
	user, pass string
	token      bool
	root       string
	names      []string
}

// Option changes what [Start] starts.
type Option func(*options)

// WithTLS serves HTTPS with a certificate of a CA made for the test.
func WithTLS() Option { return func(o *options) { o.tls = true } }

// WithValidity serves HTTPS with a certificate that is valid in this time only.
func WithValidity(from, to time.Time) Option {
	return func(o *options) { o.tls, o.notBefore, o.notAfter = true, from, to }
}

// WithNames issues the certificate for other names than the loopback address.
func WithNames(names ...string) Option {
	return func(o *options) { o.tls, o.names = true, names }
}

// WithBasicAuth asks for a user and password.
func WithBasicAuth(user, pass string) Option {
	return func(o *options) { o.user, o.pass = user, pass }
}

// WithTokenAuth asks for a bearer token, which a token server at /token of the
// same address gives for the user and password, or to anybody if user is empty.
func WithTokenAuth(user, pass string) Option {
	return func(o *options) { o.user, o.pass, o.token = user, pass, true }
}

// WithRoot keeps the content in a directory instead of one that goes with the
// test.
func WithRoot(dir string) Option { return func(o *options) { o.root = dir } }

// Start starts a registry on a free port of 127.0.0.1.
func Start(t testing.TB, opts ...Option) *Registry {
	t.Helper()
	o := options{notBefore: time.Now().Add(-time.Hour), notAfter: time.Now().Add(24 * time.Hour), names: []string{"127.0.0.1", "localhost"}}
	for _, opt := range opts {
		opt(&o)
	}
	dir := t.TempDir()
	if o.root == "" {
		o.root = filepath.Join(dir, "data")
	}
	r := &Registry{Faults: &Faults{}}
	server := httptest.NewUnstartedServer(nil)
	r.Host = server.Listener.Addr().String()

	// Two applications on one storage: pushes go past authentication and faults.
	open := config(o.root)
	r.push = handlers.NewApp(context.Background(), open)
	served := config(o.root)
	mux := http.NewServeMux()
	scheme := "http"
	if o.tls {
		scheme = "https"
	}
	switch {
	case o.token:
		tokens := newTokenServer(t, dir, o.user, o.pass)
		served.Auth = configuration.Auth{"token": configuration.Parameters{
			"realm": scheme + "://" + r.Host + "/token", "issuer": tokens.issuer, "service": tokens.service, "jwks": tokens.jwks,
		}}
		mux.Handle("/token", tokens)
	case o.user != "":
		served.Auth = configuration.Auth{"htpasswd": configuration.Parameters{
			"realm": "test", "path": htpasswd(t, dir, o.user, o.pass),
		}}
	}
	mux.Handle("/", handlers.NewApp(context.Background(), served))
	server.Config.Handler = r.Faults.wrap(mux)
	server.Config.ErrorLog = quietLog()
	if o.tls {
		cert, ca := certificate(t, o)
		r.CA = filepath.Join(dir, "ca.crt")
		require.NoError(t, os.WriteFile(r.CA, ca, 0o600))
		server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(func() {
		r.Faults.release()
		server.CloseClientConnections()
		server.Close()
	})
	return r
}

func config(root string) *configuration.Configuration {
	logrus.SetLevel(logrus.ErrorLevel)
	c := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem":  configuration.Parameters{"rootdirectory": root},
		"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		"delete":      configuration.Parameters{"enabled": true},
	}}
	c.HTTP.Secret = "test"
	c.Log.Level = "error"
	c.Log.AccessLog.Disabled = true
	// Foreign and absent layers are among the cases.
	c.Validation.Disabled = true
	return c
}

func htpasswd(t testing.TB, dir, user, pass string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(pass), bcrypt.MinCost)
	require.NoError(t, err)
	path := filepath.Join(dir, "htpasswd")
	require.NoError(t, os.WriteFile(path, []byte(user+":"+string(hash)+"\n"), 0o600))
	return path
}

// Push stores the image under "repository:tag" and returns the reference that a
// client uses, HOST/REPOSITORY:TAG, and the digest of its top document.
func (r *Registry) Push(t testing.TB, name string, image *Image) (string, digest.Digest) {
	t.Helper()
	repository, tag, ok := strings.Cut(name, ":")
	if !ok {
		tag = "latest"
	}
	for _, blob := range image.Blobs {
		r.pushBlob(t, repository, blob)
	}
	for _, m := range image.Manifests {
		r.PushManifest(t, repository, digest.FromBytes(m.Body).String(), m)
	}
	top := image.Manifests[len(image.Manifests)-1]
	r.PushManifest(t, repository, tag, top)
	return r.Host + "/" + repository + ":" + tag, digest.FromBytes(top.Body)
}

// PushManifest stores one manifest or index under a tag or digest.
func (r *Registry) PushManifest(t testing.TB, repository, reference string, m Manifest) {
	t.Helper()
	resp := r.do(http.MethodPut, "/v2/"+repository+"/manifests/"+reference, m.MediaType, m.Body)
	require.Equal(t, http.StatusCreated, resp.Code, "push manifest: %s", resp.Body)
}

func (r *Registry) pushBlob(t testing.TB, repository string, body []byte) {
	t.Helper()
	start := r.do(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil)
	require.Equal(t, http.StatusAccepted, start.Code, "start upload: %s", start.Body)
	location := start.Header().Get("Location")
	put := r.do(http.MethodPut, location+"&digest="+digest.FromBytes(body).String(), "application/octet-stream", body)
	require.Equal(t, http.StatusCreated, put.Code, "push blob: %s", put.Body)
}

func (r *Registry) do(method, target, contentType string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, target, io.NopCloser(bytes.NewReader(body)))
	req.ContentLength = int64(len(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	rec := httptest.NewRecorder()
	r.push.ServeHTTP(rec, req)
	return rec
}

// Reference returns HOST/NAME for a name pushed to this registry.
func (r *Registry) Reference(name string) string { return fmt.Sprintf("%s/%s", r.Host, name) }
