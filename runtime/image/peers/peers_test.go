package peers_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/peers"
)

// keep puts a layer into kept.
func keep(t testing.TB, kept *peers.Kept, body string) digest.Digest {
	id := digest.FromString(body)
	w := kept.Create(t.TempDir(), id, int64(len(body)))
	_, err := io.WriteString(w, body)
	require.NoError(t, err)
	w.Commit()
	return id
}

func serve(t testing.TB, kept *peers.Kept, s peers.Serving) *peers.Server {
	if s.Address == "" {
		s.Address = "127.0.0.1:0"
	}
	server, err := peers.Serve(s, kept)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	return server
}

func group(t testing.TB, from ...string) *peers.Group {
	g, err := peers.NewGroup(from)
	require.NoError(t, err)
	t.Cleanup(g.CloseIdle)
	return g
}

func TestServerGivesLayersAndNothingElse(t *testing.T) {
	kept := peers.NewKept(1<<20, time.Hour)
	t.Cleanup(func() { require.NoError(t, kept.Close()) })
	body := strings.Repeat("layer ", 100)
	id := keep(t, kept, body)
	blob := "/v2/team/fw/blobs/" + id.String()
	server := serve(t, kept, peers.Serving{})
	url := "http://" + server.Address().String()
	for _, c := range []struct {
		method, path, ranges, body string
		status                     int
		want                       string
	}{
		{method: "GET", path: blob, status: 200, want: body},
		{method: "HEAD", path: blob, status: 200},
		{method: "GET", path: blob, ranges: "bytes=6-", status: 206, want: body[6:]},
		{method: "GET", path: blob, ranges: "bytes=9999-", status: 416, want: "invalid range: failed to overlap\n"},
		{method: "GET", path: "/v2/x/blobs/" + id.String() + "?ns=docker.io", status: 200, want: body},
		{method: "GET", path: "/v2/team/fw/blobs/" + digest.FromString("x").String(), status: 404},
		{method: "GET", path: "/", status: 404}, {method: "GET", path: "/v2/", status: 404},
		{method: "GET", path: "/v2/_catalog", status: 404}, {method: "GET", path: "/v2/team/fw/tags/list", status: 404},
		{method: "GET", path: "/v2/team/fw/manifests/" + id.String(), status: 404},
		{method: "GET", path: "/v2/team/fw/blobs/../blobs/" + id.String(), status: 404},
		{method: "GET", path: "/v2/team/fw/blobs/uploads/", status: 404},
		{method: "POST", path: blob, status: 405}, {method: "DELETE", path: blob, status: 405},
		{method: "PUT", path: blob, body: "x", status: 400}, {method: "GET", path: blob, body: "x", status: 400},
	} {
		req, err := http.NewRequest(c.method, url+c.path, strings.NewReader(c.body))
		require.NoError(t, err)
		if c.ranges != "" {
			req.Header.Set("Range", c.ranges)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, c.status, resp.StatusCode, "%s %s", c.method, c.path)
		require.Equal(t, c.want, string(got), "%s %s", c.method, c.path)
	}
	require.Equal(t, int64(3*len(body)-6), server.Sent())
}

func TestOnlyTheAllowedMayAsk(t *testing.T) {
	kept := peers.NewKept(1<<20, time.Hour)
	id := keep(t, kept, "layer")
	for allow, status := range map[string]int{"127.0.0.0/8": 200, "192.0.2.0/24": 0, "::/0": 0, "0.0.0.0/0": 200} {
		server := serve(t, kept, peers.Serving{Allow: []string{allow}})
		resp, err := http.Get("http://" + server.Address().String() + "/v2/x/blobs/" + id.String())
		if status == 0 {
			require.Error(t, err, allow)
			continue
		}
		require.NoError(t, err, allow)
		require.Equal(t, status, resp.StatusCode, allow)
		require.NoError(t, resp.Body.Close())
	}
	require.NoError(t, kept.Close())
}

func TestServing(t *testing.T) {
	for _, c := range []struct {
		s    peers.Serving
		want string
	}{
		{s: peers.Serving{Address: "10.0.0.5:5100"}}, {s: peers.Serving{Address: "[fd00::5]:5100"}},
		{s: peers.Serving{Address: ":5100", Allow: []string{"10.0.0.0/8", "fd00::/8"}}},
		{s: peers.Serving{Address: ":5100"}, want: "allow must name"},
		{s: peers.Serving{Address: "0.0.0.0:5100"}, want: "allow must name"},
		{s: peers.Serving{Address: "5100"}, want: "not an address"}, {s: peers.Serving{Address: "host:5100"}, want: "not an address"},
		{s: peers.Serving{Address: "10.0.0.5:70000"}, want: "not an address"},
		{s: peers.Serving{Address: ":5100", Allow: []string{"10.0.0.1"}}, want: "not a network"},
	} {
		err := c.s.Check()
		if c.want == "" {
			require.NoError(t, err, "%v", c.s)
		} else {
			require.ErrorContains(t, err, c.want, "%v", c.s)
		}
	}
	_, err := peers.Serve(peers.Serving{Address: "192.0.2.1:5100"}, peers.NewKept(1, 1))
	require.Equal(t, fault.Node, fault.CodeOf(err), "%v", err)
}

// TestAServerIsBounded holds as many transfers as there may be; the next is sent away.
func TestAServerIsBounded(t *testing.T) {
	kept := peers.NewKept(64<<20, time.Hour)
	id := keep(t, kept, strings.Repeat("x", 32<<20)) // more than a connection's buffers
	server := serve(t, kept, peers.Serving{})
	url := "http://" + server.Address().String() + "/v2/x/blobs/" + id.String()
	for range 16 {
		resp, err := http.Get(url)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		defer resp.Body.Close()
	}
	resp, err := http.Get(url)
	require.NoError(t, err)
	require.Equal(t, 503, resp.StatusCode)
	require.NoError(t, resp.Body.Close())

	// What is dropped is gone at once, whoever reads it.
	require.Equal(t, int64(32<<20), kept.Drop())
	require.Zero(t, kept.Size())
	resp, err = http.Get(url)
	require.NoError(t, err)
	require.Equal(t, 404, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
}

func TestRate(t *testing.T) {
	kept := peers.NewKept(1<<20, time.Hour)
	id := keep(t, kept, strings.Repeat("x", 128<<10))
	server := serve(t, kept, peers.Serving{MaxRate: 512 << 10})
	start := time.Now()
	resp, err := http.Get("http://" + server.Address().String() + "/v2/x/blobs/" + id.String())
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.Equal(t, int64(128<<10), n)
	require.Greater(t, time.Since(start), 150*time.Millisecond, "a quarter of a second but for the first block")
	require.NoError(t, resp.Body.Close())
}

func TestGroup(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.5:5100", "ftp://x", "http://", "http://u:p@x", "http://x/path", "http://x?q", "http://x:port"} {
		_, err := peers.NewGroup([]string{bad})
		require.ErrorContains(t, err, "is not a URL", bad)
	}
	ctx := context.Background()
	id := digest.FromString("x")
	count := func(g *peers.Group) (n int) {
		for a := g.Ask(ctx); a.Next() != nil; n++ {
			continue
		}
		return n
	}
	require.Zero(t, count(nil))

	// A peer that has nothing stays one; one that fails is left alone, one that lied for good.
	answer := 404
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(answer) }))
	defer fake.Close()
	for _, c := range []struct{ status, left int }{{404, 1}, {503, 1}, {429, 1}, {500, 0}, {302, 0}, {401, 0}} {
		answer = c.status
		g := group(t, fake.URL)
		_, err := g.Ask(ctx).Next().Get(ctx, "x", id, 0)
		require.Error(t, err)
		require.Equal(t, c.left, count(g), "%d", c.status)
	}
	g := group(t, fake.URL)
	g.Ask(ctx).Next().Lied()
	require.Zero(t, count(g))
	dead := group(t, "http://127.0.0.1:1")
	_, err := dead.Ask(ctx).Next().Get(ctx, "x", id, 0)
	require.Error(t, err)
	require.Zero(t, count(dead))

	// A pull that is aborted is not the peer's fault.
	g = group(t, fake.URL)
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, err = g.Ask(ctx).Next().Get(over, "x", id, 0)
	require.Error(t, err)
	require.Equal(t, 1, count(g))

	// Every address of a name is a peer, this node itself is none.
	_, port, err := net.SplitHostPort(strings.TrimPrefix(fake.URL, "http://"))
	require.NoError(t, err)
	g = group(t, "http://localhost:"+port)
	require.Positive(t, count(g))
	own := group(t, fake.URL)
	own.SetOwn(netip.MustParseAddrPort("[::]:" + port))
	require.Zero(t, count(own))

	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("http://10.0.0.%d", i))
	}
	require.Equal(t, 32, count(group(t, many...)), "not all of hundreds are asked")
}

// TestHTTPS trusts whom it is told to, at the time that it is told.
func TestHTTPS(t *testing.T) {
	fake := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }))
	fake.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer fake.Close()
	pool := x509.NewCertPool()
	pool.AddCert(fake.Certificate())
	for _, c := range []struct {
		pool *x509.CertPool
		at   time.Time
		want string
	}{{nil, time.Now(), "unknown authority"}, {pool, time.Now(), ""}, {pool, time.Unix(-1e6, 0), "not yet valid"}} {
		g := group(t, fake.URL)
		g.Verify(func() time.Time { return c.at }, func() *x509.CertPool { return c.pool })
		resp, err := g.Ask(t.Context()).Next().Get(t.Context(), "x", digest.FromString("x"), 0)
		if c.want != "" {
			require.ErrorContains(t, err, c.want)
			continue
		}
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
}

func TestKept(t *testing.T) {
	dir := t.TempDir()
	kept := peers.NewKept(10, time.Hour)
	var none *peers.Kept
	require.Nil(t, none.Create(dir, digest.FromString("x"), 1))
	require.Zero(t, none.Size()+none.Drop())
	none.Guard(nil)
	require.NoError(t, none.Close())

	a, b := keep(t, kept, "aaaaaa"), keep(t, kept, "bbbb")
	require.Equal(t, int64(10), kept.Size())
	require.Nil(t, kept.Create(dir, a, 6), "it is there")
	require.Nil(t, kept.Create(dir, digest.FromString("x"), 11), "more than there may be")
	keep(t, kept, "c")
	_, ok := kept.Open(a)
	require.False(t, ok, "the oldest gives way")
	_, ok = kept.Open(b)
	require.True(t, ok)

	// What is not whole, or not committed, is not given away.
	short := kept.Create(dir, digest.FromString("dd"), 2)
	_, _ = short.Write([]byte("d"))
	short.Commit()
	dropped := kept.Create(dir, digest.FromString("ee"), 2)
	kept.Drop()
	_, err := dropped.Write([]byte("ee"))
	require.NoError(t, err)
	dropped.Commit()
	dropped.Discard()
	require.Zero(t, kept.Size())
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)
	require.NoError(t, kept.Close())
	require.Nil(t, kept.Create(dir, digest.FromString("f"), 1))
}

// TestKeptAtOnce reads, writes and drops at the same time: run with -race.
func TestKeptAtOnce(t *testing.T) {
	kept := peers.NewKept(1<<10, time.Hour)
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 100 {
				body := fmt.Sprint(i, j%10, strings.Repeat("x", 100))
				id := digest.FromString(body)
				w := kept.Create(dir, id, int64(len(body)))
				_, _ = io.WriteString(w, body)
				w.Commit()
				if r, ok := kept.Open(id); ok {
					if got, err := io.ReadAll(r); err == nil {
						require.Equal(t, body, string(got))
					}
				}
				if j%7 == 0 {
					kept.Drop()
				}
			}
		})
	}
	all.Wait()
	kept.Drop()
	require.Zero(t, kept.Size())
	require.NoError(t, kept.Close())
}

// FuzzPath: whatever is asked for, only a layer that is there is given.
func FuzzPath(f *testing.F) {
	kept := peers.NewKept(1<<20, time.Hour)
	f.Cleanup(func() { _ = kept.Close() })
	id := keep(f, kept, "layer")
	server := serve(f, kept, peers.Serving{})
	for _, path := range []string{"/", "/v2/", "/v2/x/blobs/" + id.String(), "/v2//blobs/" + id.String(), "/v2/x/blobs/sha256:12",
		"/v2/X/blobs/" + id.String(), "/v2/a/blobs/b/blobs/" + id.String(), "/v2/x/blobs/md5:12", "//v2/x/blobs/" + id.String()} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		req := httptest.NewRequest(http.MethodGet, "http://x/", http.NoBody)
		req.URL.Path = path
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		if w.Code == http.StatusOK {
			require.Equal(t, "layer", w.Body.String())
			require.True(t, strings.HasPrefix(path, "/v2/") && strings.HasSuffix(path, "/blobs/"+id.String()), "%q", path)
		} else {
			require.Equal(t, http.StatusNotFound, w.Code, "%q", path)
		}
	})
}
