package netready

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAnswersAreNoReasonToWait: what somebody answered is not the node's fault, however
// its network may be. What is, is tested with pulls in package image.
func TestAnswersAreNoReasonToWait(t *testing.T) {
	to := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 443}
	for _, err := range []error{
		errors.New("anything"), io.ErrUnexpectedEOF,
		&net.OpError{Op: "dial", Addr: to, Err: syscall.ECONNREFUSED},
		&net.OpError{Op: "read", Addr: to, Err: syscall.ECONNRESET},
		&net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Addr: to, Err: syscall.ECONNREFUSED}},
		&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, Err: syscall.ETIMEDOUT},
		&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}, // to where?
		&net.DNSError{Err: "no such host", Name: "a", IsNotFound: true},
	} {
		require.Empty(t, Missing(err), "%v", err)
		require.Empty(t, Missing(fmt.Errorf("pull: %w", err)), "%v", err)
	}
	addr, ok := peer(fmt.Errorf("x: %w", &net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Addr: to, Err: syscall.ENETUNREACH}}))
	require.True(t, ok)
	require.Equal(t, netip.MustParseAddr("192.0.2.7"), addr, "the proxy's")
}

// FuzzNameServers: at most three addresses, each of which stands in the file.
func FuzzNameServers(f *testing.F) {
	f.Add("nameserver 192.0.2.53\n# nameserver 1\nnameserver fe80::1%eth0\nnameserver x\n")
	f.Fuzz(func(t *testing.T, text string) {
		servers := parseNameServers(text)
		if len(servers) > 3 {
			t.Fatalf("%q: %v", text, servers)
		}
		for _, s := range servers {
			if addr, err := netip.ParseAddr(s); err != nil || strings.Count(text, "nameserver") == 0 || addr.String() != s {
				t.Fatalf("%q: %q", text, s)
			}
		}
	})
}
