package netready

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
)

// resolvConf names the name servers, resolv.conf(5).
const resolvConf = "/etc/resolv.conf"

// Missing returns what the node lacks to reach the address or name in err, such as
// "a route to 192.0.2.7: only link-local addresses". It returns "" if the node is not the
// reason: another host answered, even with a refusal, or the node has a route with a source
// address that other hosts can answer to.
func Missing(err error) string {
	var name *net.DNSError
	if errors.As(err, &name) {
		return missingName(name)
	}
	if !silent(err) {
		return ""
	}
	if addr, ok := peer(err); ok {
		return missingRoute(addr)
	}
	return ""
}

// silent reports whether there was no answer at all.
func silent(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN,
		syscall.EADDRNOTAVAIL, syscall.ETIMEDOUT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// peer is the destination of a failed connection: the registry or the proxy.
func peer(err error) (netip.Addr, bool) {
	var op *net.OpError
	for errors.As(err, &op) {
		if tcp, ok := op.Addr.(*net.TCPAddr); ok {
			return tcp.AddrPort().Addr().Unmap(), true
		}
		err = op.Err // a proxy's: the address is in the error below
	}
	return netip.Addr{}, false
}

// missingRoute asks the kernel for the source address of packets to addr. It sends nothing.
func missingRoute(addr netip.Addr) string {
	if addr.IsLoopback() {
		return ""
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 9)))
	switch {
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.ENETDOWN):
		why := addresses()
		if why == "" {
			why = "no default route"
		}
		return "a route to " + addr.String() + ": " + why
	case err != nil:
		return ""
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if ok && local.IP.IsLinkLocalUnicast() && !addr.IsLinkLocalUnicast() {
		why := addresses()
		if why == "" {
			why = "the only route has the link-local source address " + local.IP.String()
		}
		return "a route to " + addr.String() + ": " + why
	}
	return ""
}

// missingName returns what is missing to resolve a name.
func missingName(err *net.DNSError) string {
	why := addresses()
	switch {
	case err.IsNotFound:
		return "" // a name server answered
	case strings.Contains(err.Err, "misbehaving") || !err.Temporary():
		// A resolver on the node answers so as long as it has no name server itself.
		if why == "" {
			return ""
		}
	}
	what := "the address of " + err.Name
	servers := nameServers()
	switch {
	case why != "":
		return what + ": " + why
	case len(servers) == 0:
		return what + ": no name server in " + resolvConf
	default:
		return what + ": no answer from the name server " + strings.Join(servers, ", ")
	}
}

// addresses returns why the node cannot reach hosts beyond its links, "" if it has an
// address for that.
func addresses() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	why := "no address yet"
	for _, a := range all {
		prefix, ok := a.(*net.IPNet)
		switch {
		case !ok, prefix.IP.IsLoopback():
		case prefix.IP.IsLinkLocalUnicast():
			why = "only link-local addresses"
		default:
			return ""
		}
	}
	return why
}

// nameServers are those of resolv.conf, for a message.
func nameServers() []string {
	file, err := os.Open(resolvConf)
	if err != nil {
		return nil
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return nil
	}
	return parseNameServers(string(data))
}

// parseNameServers returns at most three addresses, the number that resolvers use.
func parseNameServers(text string) []string {
	var servers []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(servers) == 3 {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, addr.String())
		}
	}
	return servers
}
