package image_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

// unready is a node whose network is not up: this process, in a network namespace of
// its own with nothing but a loopback.
type unready struct {
	lo    netlink.Link
	ref   string // an image, without the registry before it
	port  string // of the registry, on every address of the node
	store *store
	// connect bounds the time that a connection may take.
	connect time.Duration
}

// TestNetworkWait pulls on a node whose network comes up late, or never does.
func TestNetworkWait(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	if os.Getenv("CAREEN_TEST_UNREADY") == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestNetworkWait$", "-test.v="+map[bool]string{true: "true", false: "false"}[testing.Verbose()])
		cmd.Env = append(os.Environ(), "CAREEN_TEST_UNREADY=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		t.Logf("%s", out)
		return
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	resolv := write(t, filepath.Join(t.TempDir(), "resolv.conf"), "nameserver 192.0.2.53\noptions timeout:1 attempts:1\n")
	require.NoError(t, unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, ""))
	n := &unready{store: newStore(t, "64m"), connect: 10 * time.Second}
	var err error
	n.lo, err = netlink.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(n.lo))
	reg := registry.Start(t)
	ref, _ := reg.Push(t, "team/tool:1", simple(t))
	n.ref = strings.TrimPrefix(ref, reg.Host)
	n.port = forward(t, reg.Host)
	t.Run("the route comes late", n.lateRoute)
	t.Run("link-local addresses first", n.linkLocal)
	t.Run("the name server comes late", n.lateNames)
	t.Run("never", n.never)
	t.Run("aborted", n.aborted)
	t.Run("ready", n.ready)
}

// forward serves a registry of the loopback on all of the node's addresses.
func forward(t *testing.T, to string) string {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// address gives a link an address until the test ends.
func address(t *testing.T, link netlink.Link, cidr string) {
	a, err := netlink.ParseAddr(cidr)
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(link, a))
	t.Cleanup(func() { _ = netlink.AddrDel(link, a) })
}

// pull pulls from host, and calls up with what the pull waits for, once.
func (n *unready) pull(t *testing.T, host string, wait time.Duration, up func(message string)) (img *image.Image, waited []string, err error) {
	p := newPuller(t, n.store, func(c *image.Config) {
		c.NetworkWait = wait
		c.Limits.Connect = n.connect
	})
	req, none := insecure(request(host+n.ref)), 0
	req.Retry = &none // a wait is no retry
	var once sync.Once
	var last image.Progress
	img, err = p.Pull(n.store.ctx, req, func(p image.Progress) {
		last = p
		if p.Status == "waiting" {
			waited = append(waited, p.Message)
			once.Do(func() { up(p.Message) })
		}
	})
	if err == nil {
		require.Equal(t, "done", last.Status)
		require.Empty(t, last.Message)
		require.Zero(t, last.Retries)
		require.NoError(t, p.Delete(n.store.ctx, img.Name))
	}
	return img, waited, err
}

func (n *unready) lateRoute(t *testing.T) {
	_, waited, err := n.pull(t, "192.0.2.7:"+n.port, time.Minute, func(string) { address(t, n.lo, "192.0.2.7/32") })
	require.NoError(t, err)
	require.Equal(t, "waiting for a route to 192.0.2.7: no address yet", waited[0])
}

// linkLocal is a node whose default route leads to a BMC's network card.
func (n *unready) linkLocal(t *testing.T) {
	card := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bmc0"}}
	if err := netlink.LinkAdd(card); err != nil {
		t.Skipf("this kernel has no bridges: %v", err)
	}
	defer func() { require.NoError(t, netlink.LinkDel(card)) }()
	require.NoError(t, netlink.LinkSetUp(card))
	address(t, card, "169.254.9.9/16")
	n.connect = time.Second // the first one goes nowhere
	defer func() { n.connect = 10 * time.Second }()
	_, all, err := net.ParseCIDR("0.0.0.0/0")
	require.NoError(t, err)
	require.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: card.Index, Dst: all, Scope: netlink.SCOPE_LINK}))
	_, waited, err := n.pull(t, "192.0.2.7:"+n.port, time.Minute, func(string) { address(t, n.lo, "192.0.2.7/32") })
	require.NoError(t, err)
	require.Equal(t, []string{"waiting for a route to 192.0.2.7: only link-local addresses"}, waited)
}

func (n *unready) lateNames(t *testing.T) {
	var server *nameServer
	_, waited, err := n.pull(t, "registry.test:"+n.port, time.Minute, func(string) {
		address(t, n.lo, "192.0.2.53/32")
		server = startNameServer(t)
	})
	require.NoError(t, err)
	require.Equal(t, "waiting for the address of registry.test: no address yet", waited[0])
	// A name that does not exist is told at once, by a server that is there.
	_, waited, err = n.pull(t, "nowhere.test:"+n.port, time.Minute, func(string) {})
	require.Equal(t, fault.DNS, fault.CodeOf(err), "%v", err)
	require.Empty(t, waited)
	server.stop()
	// No server, and no time left for it.
	_, waited, err = n.pull(t, "elsewhere.test:"+n.port, 200*time.Millisecond, func(string) {})
	require.Equal(t, fault.DNS, fault.CodeOf(err), "%v", err)
	require.Contains(t, err.Error(), "no answer from the name server 192.0.2.53")
	require.NotEmpty(t, waited)
}

func (n *unready) never(t *testing.T) {
	_, _, err := n.pull(t, "192.0.2.7:"+n.port, 50*time.Millisecond, func(string) {})
	require.Equal(t, fault.Network, fault.CodeOf(err), "%v", err)
	require.Contains(t, err.Error(), "not ready within 50ms: it waited for a route to 192.0.2.7: no address yet")
	require.Contains(t, fault.RemedyOf(err), "[network] wait")
	// Switched off.
	_, waited, err := n.pull(t, "192.0.2.7:"+n.port, 0, func(string) {})
	require.Equal(t, fault.Network, fault.CodeOf(err), "%v", err)
	require.Empty(t, waited)
}

func (n *unready) aborted(t *testing.T) {
	ctx, cancel := context.WithCancel(n.store.ctx)
	p := newPuller(t, n.store, func(c *image.Config) { c.NetworkWait = time.Hour })
	_, err := p.Pull(ctx, insecure(request("192.0.2.7:"+n.port+n.ref)), func(p image.Progress) {
		if p.Status == "waiting" {
			cancel()
		}
	})
	require.Equal(t, fault.Aborted, fault.CodeOf(err), "%v", err)
}

// ready is a node that is ready while the registry is not: nothing is waited for.
func (n *unready) ready(t *testing.T) {
	address(t, n.lo, "192.0.2.9/32")
	_, waited, err := n.pull(t, "192.0.2.9:1", time.Hour, func(string) {})
	require.Equal(t, fault.Network, fault.CodeOf(err), "%v", err)
	require.Empty(t, waited)
}

// nameServer knows one name.
type nameServer struct {
	conn net.PacketConn
	done chan struct{}
}

func startNameServer(t *testing.T) *nameServer {
	conn, err := net.ListenPacket("udp4", "192.0.2.53:53")
	require.NoError(t, err)
	s := &nameServer{conn: conn, done: make(chan struct{})}
	t.Cleanup(s.stop)
	go s.serve()
	return s
}

func (s *nameServer) stop() {
	_ = s.conn.Close()
	<-s.done
}

func (s *nameServer) serve() {
	defer close(s.done)
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var q dnsmessage.Message
		if q.Unpack(buf[:n]) != nil || len(q.Questions) != 1 {
			continue
		}
		a := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RCode: dnsmessage.RCodeNameError}, Questions: q.Questions}
		if q.Questions[0].Name.String() == "registry.test." {
			a.RCode = dnsmessage.RCodeSuccess
			if q.Questions[0].Type == dnsmessage.TypeA {
				a.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 60},
					Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
				}}
			}
		}
		if packed, err := a.Pack(); err == nil {
			_, _ = s.conn.WriteTo(packed, from)
		}
	}
}
