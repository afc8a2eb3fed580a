package push_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/push"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestURL(t *testing.T) {
	for url, why := range map[string]string{
		"": "no URL of https or http", "logs.example/{run}": "no URL of https or http", "ftp://logs.example/{run}": "no URL of https or http",
		"https:///{run}": "with a host", "https://me:hunter2@logs.example/{run}": "authorization_file", "https://logs.example/{node}": "lacks {run}",
		"https://logs.example/{uuid}/{run}": "there is no {uuid}", "https://logs.example:port/{run}": "port", "https://logs.example/{run}/%zz": "escape",
	} {
		_, err := push.New(push.Options{URL: url}, push.Config{})
		require.ErrorContains(t, err, why, url)
		require.Equal(t, fault.BadConfig, fault.CodeOf(err))
		require.NotContains(t, err.Error(), "hunter2")
	}
	p, err := push.New(push.Options{URL: "https://logs.example/b/{node}/{run}.tar.gz?token=hunter2"}, push.Config{})
	require.NoError(t, err)
	require.Equal(t, "https://logs.example/b/{node}/{run}.tar.gz?***", p.Shown())
	for names, want := range map[[2]string]string{
		{"a-b", "r1"}: "https://logs.example/b/a-b/r1.tar.gz", {"../x", "r"}: "https://logs.example/b/..%2Fx/r.tar.gz",
		{"..", "r"}: "https://logs.example/b/__/r.tar.gz", {"a b\n?", "r"}: "https://logs.example/b/a%20b%0A%3F/r.tar.gz",
	} {
		require.Equal(t, want, p.Target(names[0], names[1]))
	}
}

// FuzzTarget: whatever a node is called, its bundles go below the place that is configured.
func FuzzTarget(f *testing.F) {
	f.Add("node", "run")
	f.Add("../..", "..")
	f.Add("a?b#c", "%2e%2e")
	f.Fuzz(func(t *testing.T, node, run string) {
		p, err := push.New(push.Options{URL: "https://logs.example/b/{node}/{run}.tar.gz"}, push.Config{})
		require.NoError(t, err)
		target := p.Target(node, run)
		require.True(t, strings.HasPrefix(target, "https://logs.example/b/"), target)
		require.Equal(t, 5, strings.Count(target, "/"), target)
		require.NotContains(t, target, "/../")
	})
}

func TestPut(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "auth")
	require.NoError(t, os.WriteFile(secret, []byte("Bearer s3cret\n"), 0o600))
	var got *http.Request
	var body []byte
	answer := http.StatusCreated
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		if answer == http.StatusTemporaryRedirect {
			w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		}
		w.WriteHeader(answer)
	})
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	p, err := push.New(push.Options{URL: server.URL + "/{node}/{run}?k=hunter2", AuthorizationFile: secret},
		push.Config{UserAgent: "careen/1", Roots: func() *x509.CertPool { return trusted }})
	require.NoError(t, err)
	put := func() error { return p.Put(t.Context(), "n 1", "r1", bytes.NewReader([]byte("bundle")), 6) }

	require.NoError(t, put())
	require.Equal(t, "PUT /n%201/r1?k=hunter2", got.Method+" "+got.RequestURI)
	require.Equal(t, "bundle", string(body))
	require.EqualValues(t, 6, got.ContentLength, "many servers take nothing else")
	require.Equal(t, []string{"Bearer s3cret", "careen/1", "application/gzip"},
		[]string{got.Header.Get("Authorization"), got.Header.Get("User-Agent"), got.Header.Get("Content-Type")})

	var refused *push.Refused
	for code, final := range map[int]bool{500: false, 503: false, 429: false, 408: false, 400: true, 401: true, 404: true, 307: true} {
		answer = code
		err := put()
		require.ErrorContains(t, err, "the server answers "+strconv.Itoa(code))
		require.Equal(t, final, errors.As(err, &refused), "%d", code)
		require.NotContains(t, err.Error(), "hunter2")
	}
	trusted = nil
	err = put()
	require.ErrorContains(t, err, "certificate")
	require.NotContains(t, err.Error(), "hunter2")
	require.NoError(t, os.Remove(secret))
	require.ErrorIs(t, put(), os.ErrNotExist, "nothing is sent without the credentials that are configured")
}

func TestPutEndsWithItsContext(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	p, err := push.New(push.Options{URL: server.URL + "/{run}"}, push.Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.Put(ctx, "n", "r", strings.NewReader("x"), 1), context.DeadlineExceeded)
}
