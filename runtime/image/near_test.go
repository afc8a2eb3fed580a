package image_test

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/peers"
)

// few bounds what a test's image must leave free.
func few(c *image.Config) { c.Limits.Reserve = 1 << 20 }

func keeps(kept *peers.Kept) func(*image.Config) {
	return func(c *image.Config) { c.Kept = kept }
}

// asks has a puller ask the peers at the hosts.
func asks(t testing.TB, hosts ...string) func(*image.Config) {
	var from []string
	for _, host := range hosts {
		from = append(from, "http://"+host)
	}
	group, err := peers.NewGroup(from)
	require.NoError(t, err)
	return func(c *image.Config) { c.Peers = group }
}

// gives serves what is kept.
func gives(t testing.TB, kept *peers.Kept, allow ...string) string {
	server, err := peers.Serve(peers.Serving{Address: "127.0.0.1:0", Allow: allow}, kept)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	return server.Address().String()
}

// closedPort is an address where nobody listens.
func closedPort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func layerRequests(reg *registry.Registry, built *registry.Image) int {
	n := 0
	for i := range built.Layers {
		n += reg.Faults.Count(layerPath(built, i))
	}
	return n
}

// twoLayers is an image of two layers of a megabyte.
func twoLayers(t testing.TB) *registry.Image {
	return registry.NewImage(t, []registry.Layer{
		registry.NewLayer(t, registry.Tar(t, registry.File("a", string(noise(1<<20)))), registry.Gzip),
		registry.NewLayer(t, registry.Tar(t, registry.File("b", string(noise(1 << 20)[7:]))), registry.Gzip),
	})
}

// TestPeers boots three nodes: the first has the layers from the registry, the others
// have them from each other.
func TestPeers(t *testing.T) {
	reg := registry.Start(t)
	built := twoLayers(t)
	ref, _ := reg.Push(t, "team/fw:1", built)
	total := int64(len(built.Layers[0].Blob) + len(built.Layers[1].Blob))
	kept := []*peers.Kept{peers.NewKept(64<<20, time.Hour), peers.NewKept(64<<20, time.Hour)}

	first := newStore(t, "64m")
	want, err := newPuller(t, first, few, keeps(kept[0])).Pull(first.ctx, insecure(request(ref)), nil)
	require.NoError(t, err)
	require.Equal(t, 2, layerRequests(reg, built))
	require.Equal(t, total, kept[0].Size())
	at := gives(t, kept[0])
	reg.Faults.Status(layerPath(built, 0), -1, 503)
	reg.Faults.Status(layerPath(built, 1), -1, 503)

	for _, c := range []struct {
		name   string
		change func(*image.Config)
		kept   *peers.Kept
	}{
		{name: "directly", kept: kept[1]},
		{name: "through containerd's content store", change: func(c *image.Config) { c.Indirect = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t, "64m")
			p := newPuller(t, s, few, asks(t, closedPort(t), at), keeps(c.kept), func(cfg *image.Config) {
				if c.change != nil {
					c.change(cfg)
				}
			})
			before := s.usage(t)
			var last api.PullProgress
			got, err := p.Pull(s.ctx, insecure(request(ref)), func(p api.PullProgress) { last = p })
			require.NoError(t, err)
			require.Equal(t, want.ChainID, got.ChainID)
			require.Empty(t, last.Warnings)
			require.Equal(t, total, last.FromPeers)
			require.Equal(t, total, last.Done)
			require.Equal(t, 2, layerRequests(reg, built), "the registry sent the layers once")
			if c.kept != nil {
				require.Equal(t, total, c.kept.Size())
			}
			require.NoError(t, p.Delete(s.ctx, got.Name))
			require.NoError(t, c.kept.Close())
			require.Empty(t, s.contents(t))
			require.Less(t, s.usage(t)-before, int64(256<<10))
		})
	}
}

// TestBadPeers has a peer that does each thing that it should not. The image comes all
// the same, and is right.
func TestBadPeers(t *testing.T) {
	built := twoLayers(t)
	size := int64(len(built.Layers[0].Blob))
	bomb := registry.NewLayer(t, registry.Tar(t, registry.File("big", strings.Repeat("x", 40<<20))), registry.Gzip).Blob
	bomb = append(bomb, make([]byte, size-int64(len(bomb)))...)
	reg, peer := registry.Start(t), registry.Start(t)
	ref, _ := reg.Push(t, "team/fw:1", built)
	peer.Push(t, "team/fw:1", built)
	for _, c := range []struct {
		name string
		do   func(f *registry.Faults)
		// liar says that the peer is named and not asked again; resumed that the registry
		// gave the rest of a layer only.
		liar, resumed bool
		stall         time.Duration // how long is waited for the peer; the test's default if 0
	}{
		{name: "lies", liar: true, do: func(f *registry.Faults) { f.Corrupt("/blobs/", -1, size-30) }},
		{name: "sends noise", liar: true, do: func(f *registry.Faults) {
			f.Do("/blobs/", -1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { whole(w, noise(int(size))) })
		}},
		{name: "sends a bomb", liar: true, do: func(f *registry.Faults) {
			f.Do(layerPath(built, 0), -1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { whole(w, bomb) })
		}},
		{name: "has another size", do: func(f *registry.Faults) {
			f.Do("/blobs/", -1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { whole(w, noise(1000)) })
		}},
		{name: "cuts", resumed: true, do: func(f *registry.Faults) { f.Cut("/blobs/", -1, 1<<18) }},
		{name: "stalls", resumed: true, stall: 300 * time.Millisecond, do: func(f *registry.Faults) { f.Stall("/blobs/", -1, 1<<18) }},
		{name: "trickles noise", liar: true, resumed: true, stall: 300 * time.Millisecond, do: func(f *registry.Faults) {
			f.Do("/blobs/", -1, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				w.Header().Set("Content-Length", strconv.Itoa(int(size)))
				for tick := time.NewTicker(10 * time.Millisecond); r.Context().Err() == nil; <-tick.C {
					_, _ = w.Write([]byte("x"))
					w.(http.Flusher).Flush()
				}
			})
		}},
		{name: "does not answer", stall: 300 * time.Millisecond, do: func(f *registry.Faults) { f.Stall("/blobs/", -1, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t, "32m")
			peer.Faults.Clear()
			c.do(peer.Faults)
			seen := len(reg.Faults.Seen())
			p := newPuller(t, s, few, asks(t, peer.Host), func(cfg *image.Config) {
				if c.stall > 0 {
					cfg.Limits.Stall = c.stall
				}
			})
			req := insecure(request(ref))
			var last api.PullProgress
			tell := func(p api.PullProgress) { last = p }
			got, err := p.Pull(s.ctx, req, tell)
			require.NoError(t, err)
			s.view(t, "overlayfs", got.ChainID, func(root string) { require.FileExists(t, root+"/b") })
			if c.liar {
				require.Contains(t, strings.Join(last.Warnings, "\n"), "peer "+peer.Host)
			} else {
				require.Empty(t, last.Warnings)
			}
			ranges := 0
			for _, line := range reg.Faults.Seen()[seen:] {
				if strings.Contains(line, "bytes=") {
					ranges++
				}
			}
			if c.resumed {
				require.Positive(t, ranges, "%v", reg.Faults.Seen()[seen:])
			}

			// It is left alone from now on.
			asked := len(peer.Faults.Seen())
			require.NoError(t, p.Delete(s.ctx, got.Name))
			_, err = p.Pull(s.ctx, req, tell)
			require.NoError(t, err)
			require.Empty(t, last.Warnings)
			require.Len(t, peer.Faults.Seen(), asked)
			require.NoError(t, p.Delete(s.ctx, got.Name))
			require.Empty(t, s.contents(t))
		})
	}
}

func whole(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// TestTheNextPeerGoesOn: where one peer ends another goes on, and the registry is not
// asked.
func TestTheNextPeerGoesOn(t *testing.T) {
	s, reg := newStore(t, "64m"), registry.Start(t)
	built := registry.NewImage(t, []registry.Layer{
		registry.NewLayer(t, registry.Tar(t, registry.File("a", string(noise(1<<20)))), registry.Gzip)})
	ref, _ := reg.Push(t, "team/fw:1", built)
	reg.Faults.Status(layerPath(built, 0), -1, 503)
	ranged := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Header.Get("Range") == "" {
			w = &half{ResponseWriter: w, left: 1 << 19}
		}
		next.ServeHTTP(w, r)
	}
	var hosts []string
	for range 2 {
		peer := registry.Start(t)
		peer.Push(t, "team/fw:1", built)
		peer.Faults.Do("/blobs/", -1, ranged)
		hosts = append(hosts, peer.Host)
	}
	var last api.PullProgress
	_, err := newPuller(t, s, few, asks(t, hosts...)).Pull(s.ctx, insecure(request(ref)), func(p api.PullProgress) { last = p })
	require.NoError(t, err)
	require.Equal(t, int64(len(built.Layers[0].Blob)), last.FromPeers)
	require.Zero(t, layerRequests(reg, built))
}

// half ends a body in its middle.
type half struct {
	http.ResponseWriter
	left int
}

func (h *half) Write(b []byte) (int, error) {
	if h.left -= len(b); h.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return h.ResponseWriter.Write(b)
}

// TestPeersAreNotTrustedWithMore asks nobody but the registry what a tag means, and
// gives nobody else its credentials.
func TestPeersAreNotTrustedWithMore(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t, registry.WithBasicAuth("u", "p"))
	built, asked := twoLayers(t), make(chan *http.Request, 100)
	ref, _ := reg.Push(t, "team/fw:1", built)
	peer := registry.Start(t)
	peer.Push(t, "team/fw:1", twoLayers(t))
	peer.Faults.Do("/", -1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		asked <- r
		next.ServeHTTP(w, r)
	})
	p := newPuller(t, s, few, asks(t, peer.Host))
	req := insecure(request(ref))
	_, err := p.Pull(s.ctx, req, nil)
	require.Equal(t, fault.Auth, fault.CodeOf(err), "%v", err)
	require.Empty(t, asked, "no manifest, no layer")
	req.Creds = "u:p"
	_, err = p.Pull(s.ctx, req, nil)
	require.NoError(t, err)
	close(asked)
	require.Len(t, asked, 2)
	for r := range asked {
		require.Contains(t, r.URL.Path, "/blobs/")
		require.Empty(t, r.Header.Get("Authorization"))
	}
}

// TestKeptGivesWay keeps layers for others only in room that nobody else wants.
func TestKeptGivesWay(t *testing.T) {
	reg := registry.Start(t)
	built := twoLayers(t)
	ref, _ := reg.Push(t, "team/fw:1", built)
	total := int64(len(built.Layers[0].Blob) + len(built.Layers[1].Blob))
	pulled := func(t *testing.T, s *store, kept *peers.Kept, ref string, change func(*image.Config)) error {
		_, err := newPuller(t, s, few, keeps(kept), change).Pull(s.ctx, insecure(request(ref)), nil)
		return err
	}
	none := func(*image.Config) {}
	t.Run("more than the bound", func(t *testing.T) {
		s, kept := newStore(t, "64m"), peers.NewKept(total-1, time.Hour)
		require.NoError(t, pulled(t, s, kept, ref, none))
		require.Less(t, kept.Size(), total)
	})
	t.Run("too little room for both", func(t *testing.T) {
		s, kept := newStore(t, "12m"), peers.NewKept(64<<20, time.Hour)
		require.NoError(t, pulled(t, s, kept, ref, none))
		require.Zero(t, kept.Size())
	})
	t.Run("the next image needs the room", func(t *testing.T) {
		s, kept := newStore(t, "32m"), peers.NewKept(64<<20, time.Hour)
		require.NoError(t, pulled(t, s, kept, ref, none))
		require.Equal(t, total, kept.Size())
		next := registry.NewImage(t, []registry.Layer{
			registry.NewLayer(t, registry.Tar(t, registry.File("c", string(noise(24<<20)))), registry.None)})
		big, _ := reg.Push(t, "team/big:1", next)
		require.NoError(t, pulled(t, s, kept, big, none))
		require.Zero(t, kept.Size())
	})
	t.Run("an image that unpacks to more than was likely", func(t *testing.T) {
		s, kept := newStore(t, "32m"), peers.NewKept(64<<20, time.Hour)
		require.NoError(t, pulled(t, s, kept, ref, none))
		require.Equal(t, total, kept.Size())
		next := registry.NewImage(t, []registry.Layer{
			registry.NewLayer(t, registry.Tar(t, registry.File("c", strings.Repeat("again ", 27<<20/6))), registry.Gzip)})
		big, _ := reg.Push(t, "team/dense:1", next)
		require.NoError(t, pulled(t, s, kept, big, none))
		require.Zero(t, kept.Size())
	})
	t.Run("memory gets scarce", func(t *testing.T) {
		s, kept := newStore(t, "64m"), peers.NewKept(64<<20, time.Hour)
		var mu sync.Mutex
		free := int64(1 << 30)
		memory := func(c *image.Config) {
			c.MemAvailable = func() int64 { mu.Lock(); defer mu.Unlock(); return free }
		}
		require.NoError(t, pulled(t, s, kept, ref, memory))
		require.Equal(t, total, kept.Size())
		mu.Lock()
		free = 1 << 20
		mu.Unlock()
		require.Eventually(t, func() bool { return kept.Size() == 0 }, 10*time.Second, 20*time.Millisecond)
	})
	t.Run("time is over", func(t *testing.T) {
		s, kept := newStore(t, "64m"), peers.NewKept(64<<20, time.Millisecond)
		require.NoError(t, pulled(t, s, kept, ref, none))
		require.Eventually(t, func() bool { return kept.Size() == 0 }, 10*time.Second, 20*time.Millisecond)
	})
	t.Run("a pull that fails", func(t *testing.T) {
		s, kept := newStore(t, "64m"), peers.NewKept(64<<20, time.Hour)
		reg.Faults.Corrupt(layerPath(built, 1), 1, 1000)
		require.Error(t, pulled(t, s, kept, ref, none))
		require.LessOrEqual(t, kept.Size(), int64(len(built.Layers[0].Blob)))
		require.NoError(t, kept.Close())
		require.Empty(t, s.contents(t))
	})
}

// TestJitter waits before layers are fetched, and only then.
func TestJitter(t *testing.T) {
	s := newStore(t, "64m")
	reg := registry.Start(t)
	built := simple(t)
	ref, _ := reg.Push(t, "team/fw:1", built)
	short := newPuller(t, s, func(c *image.Config) { c.Jitter = time.Millisecond })
	long := newPuller(t, s, func(c *image.Config) { c.Jitter = 1000 * time.Hour })

	ctx, abort := context.WithCancel(s.ctx)
	said := ""
	_, err := long.Pull(ctx, insecure(request(ref)), func(p api.PullProgress) {
		if p.Status == "waiting" {
			said = p.Message
			abort()
		}
	})
	require.Equal(t, fault.Aborted, fault.CodeOf(err), "%v", err)
	require.Contains(t, said, "its turn")
	require.Zero(t, layerRequests(reg, built))
	require.Empty(t, s.contents(t))

	var states []string
	_, err = short.Pull(s.ctx, insecure(request(ref)), func(p api.PullProgress) {
		if len(states) == 0 || states[len(states)-1] != p.Status {
			states = append(states, p.Status)
		}
	})
	require.NoError(t, err)
	require.Equal(t, []string{"resolving", "waiting"}, states[:2])
	require.Equal(t, "done", states[len(states)-1])

	// What is present is not waited for, nor what is on the node.
	req := insecure(request(ref))
	req.Policy = image.Always
	_, err = long.Pull(s.ctx, req, nil)
	require.NoError(t, err)
	dir := t.TempDir()
	twoLayers(t).WriteLayout(t, dir, "1")
	_, err = long.Pull(s.ctx, &image.Request{Original: "oci:" + dir, Transport: image.OCI, Path: dir}, nil)
	require.NoError(t, err)
}
