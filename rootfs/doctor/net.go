package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/rootfs/file"
)

// maxResolvConf limits the size of resolv.conf in bytes.
const maxResolvConf = 1 << 20

// dns reads the name servers of resolv.conf. It asks only servers on the loopback address,
// because the ramdisk may lack the daemon that resolv.conf expects there.
func (d *examination) dns() {
	const remedy = "Wait for DHCP, or write a nameserver line; registries given by address work without"
	data, err := file.ReadLimited(d.opts.ResolvConf, maxResolvConf)
	if err != nil {
		d.warn("dns", remedy, "no name server: %s", oneLine(err))
		return
	}
	servers := nameServers(data)
	if len(servers) == 0 {
		d.warn("dns", remedy, "no nameserver line in %s", d.opts.ResolvConf)
		return
	}
	for _, server := range servers {
		addr, err := netip.ParseAddr(server)
		if err != nil || !addr.IsLoopback() || askNameServer(addr) == nil {
			d.ok("dns", "%s", strings.Join(servers, ", "))
			return
		}
	}
	d.warn("dns", "Start the resolver that listens there, or write the network's own nameserver",
		"only %s, which does not answer", strings.Join(servers, ", "))
}

// nameServers returns the addresses in a resolv.conf(5).
func nameServers(data []byte) []string {
	var servers []string
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "nameserver" {
			servers = append(servers, fields[1])
		}
	}
	return servers
}

// askNameServer asks for the root's name servers. Any reply is a success.
func askNameServer(addr netip.Addr) error {
	conn, err := net.DialTimeout("udp", netip.AddrPortFrom(addr, 53).String(), time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	// Header: id, recursion desired, one question; question: ".", NS, IN.
	query := []byte{0xca, 0x4e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}
	if _, err := conn.Write(query); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 512))
	return err
}

// caFiles are the places of the authorities' certificates in distributions, the same as in
// Go's crypto/x509.
var caFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// authorities checks the system's bundle and the additional sources.
func (d *examination) authorities() {
	if faulty := d.extra.Faulty(); len(faulty) > 0 {
		d.warn("ca", "Correct the setting that names "+faulty[0].Name()+", or the file", "%s", d.extra)
		return
	}
	also := ""
	if len(d.extra.Certs) > 0 {
		also = ", " + d.extra.String()
	}
	files := caFiles
	if path := d.opts.Getenv("SSL_CERT_FILE"); path != "" {
		files = []string{path}
	}
	for _, path := range files {
		data, err := file.ReadLimited(path, 16<<20)
		if err != nil {
			continue
		}
		if n := countCertificates(data); n > 0 {
			d.ok("ca", "%d certificates in %s%s", n, path, also)
			return
		}
		d.warn("ca", "Install ca-certificates into the ramdisk", "no certificates in %s", path)
		return
	}
	if also != "" {
		d.ok("ca", "no system bundle%s", also)
		return
	}
	d.warn("ca", "Install ca-certificates into the ramdisk, or put the registry's CA into "+filepath.Join(d.opts.CertDirs[0], "HOST[:PORT]"),
		"no bundle of authorities: only the authorities in certs.d are trusted")
}

func countCertificates(data []byte) int {
	n := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			n++
		}
	}
	return n
}

// proxies checks the proxy variables, which careen and the containers use. Most programs
// ignore an invalid value and fail later.
func (d *examination) proxies() {
	var found, wrong []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		value := d.opts.Getenv(name)
		if value == "" {
			continue
		}
		shown, err := checkProxy(value)
		if err != nil {
			wrong = append(wrong, name+" "+err.Error())
			continue
		}
		found = append(found, name+"="+shown)
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		for _, entry := range strings.Split(d.opts.Getenv(name), ",") {
			if err := checkNoProxy(strings.TrimSpace(entry)); err != nil {
				wrong = append(wrong, name+" "+err.Error())
			}
		}
	}
	switch {
	case len(wrong) > 0:
		d.warn("proxy", "Correct the variables of careen's service", "%s", strings.Join(wrong, "; "))
	case len(found) > 0:
		d.ok("proxy", "%s", strings.Join(found, " "))
	default:
		d.ok("proxy", "none")
	}
}

// checkProxy returns a proxy's URL without its password.
func checkProxy(value string) (string, error) {
	text := value
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		// The error's text would repeat the value, and a password in it.
		return "", fmt.Errorf("is not a URL")
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return "", fmt.Errorf("has the scheme %q, which is not one of http, https, socks5", u.Scheme)
	}
	if u.Hostname() == "" {
		return "", fmt.Errorf("has no host")
	}
	return u.Redacted(), nil
}

func checkNoProxy(entry string) error {
	switch {
	case entry == "", entry == "*":
		return nil
	case strings.Contains(entry, "://"):
		return fmt.Errorf("has %q: an entry is a host, not a URL", entry)
	case strings.ContainsAny(entry, " \t"):
		return fmt.Errorf("has %q: entries are separated by commas", entry)
	case strings.Contains(entry, "/"):
		if _, err := netip.ParsePrefix(entry); err != nil {
			return fmt.Errorf("has %q, which is not a network", entry)
		}
	case strings.Contains(strings.TrimPrefix(entry, "*."), "*"):
		return fmt.Errorf("has %q: a star is only allowed alone or before a dot", entry)
	}
	return nil
}

// registry connects to a registry as a pull does and asks for the root of its API.
func (d *examination) registry(ctx context.Context, name string) api.Check {
	c := api.Check{Name: "registry " + name, Status: StatusError}
	scheme, host, ok := strings.Cut(name, "://")
	if !ok {
		scheme, host = "https", name
	}
	u := &url.URL{Scheme: scheme, Host: strings.TrimSuffix(host, "/"), Path: "/v2/"}
	if (scheme != "https" && scheme != "http") || u.Host == "" || strings.ContainsAny(u.Host, "/ ?#@") {
		c.Detail, c.Remedy = "not a registry's name", "Give HOST, HOST:PORT, or http:// before it"
		return c
	}
	client, proxy, err := d.client(u)
	if err != nil {
		c.Detail, c.Remedy = oneLine(err), "Correct the proxy variables or the files in certs.d"
		return c
	}
	defer client.CloseIdleConnections()
	started := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		c.Detail, c.Remedy = "not a registry's name", "Give HOST, HOST:PORT, or http:// before it"
		return c
	}
	res, err := client.Do(req)
	if err != nil {
		c.Detail, c.Remedy = explain(err, proxy)
		return c
	}
	defer res.Body.Close()
	// Only the headers count; a body that cannot be read changes nothing.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	took := time.Since(started).Round(time.Millisecond)
	switch {
	case res.StatusCode == http.StatusOK, res.StatusCode == http.StatusUnauthorized:
		c.Status = StatusOK
		c.Detail = fmt.Sprintf("answers in %s%s%s", took, map[bool]string{true: ", asks for credentials"}[res.StatusCode == http.StatusUnauthorized], expiry(res.TLS))
	case res.StatusCode == http.StatusProxyAuthRequired:
		c.Detail, c.Remedy = "the proxy asks for credentials", "Give them in the proxy's URL"
	case res.StatusCode >= 500, res.StatusCode == http.StatusTooManyRequests:
		c.Status = StatusWarning
		c.Detail, c.Remedy = "answers "+res.Status, "Try again later, or ask the registry's operator"
	default:
		c.Detail, c.Remedy = fmt.Sprintf("answers %s to /v2/: not a registry", res.Status), "Check the host and port"
	}
	return c
}

// client returns a client with the trust, certificates and proxy of a pull from u.
func (d *examination) client(u *url.URL) (client *http.Client, proxy string, err error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, c := range d.extra.Certs {
		pool.AddCert(c)
	}
	own, err := d.certificates(u.Host, pool)
	if err != nil {
		return nil, "", err
	}
	settings := httpproxy.Config{
		HTTPProxy: first(d.opts.Getenv, "HTTP_PROXY", "http_proxy"), HTTPSProxy: first(d.opts.Getenv, "HTTPS_PROXY", "https_proxy"),
		NoProxy: first(d.opts.Getenv, "NO_PROXY", "no_proxy"),
	}
	via, err := settings.ProxyFunc()(u)
	if err != nil {
		return nil, "", errors.New("a proxy variable is not a URL")
	}
	if via != nil {
		proxy = via.Redacted()
	}
	transport := &http.Transport{
		Proxy:             func(*http.Request) (*url.URL, error) { return via, nil },
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: own, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}
	keep := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: keep}, proxy, nil
}

// certificates adds the authorities in certs.d for a host to pool. It returns the client
// certificates for that host: NAME.cert with NAME.key.
func (d *examination) certificates(host string, pool *x509.CertPool) (own []tls.Certificate, err error) {
	for _, dir := range d.opts.CertDirs {
		entries, err := os.ReadDir(filepath.Join(dir, host))
		if err != nil {
			continue // there is none, as for most hosts
		}
		for _, entry := range entries {
			path := filepath.Join(dir, host, entry.Name())
			switch base, kind := strings.TrimSuffix(path, filepath.Ext(path)), filepath.Ext(path); kind {
			case ".crt":
				data, err := file.ReadLimited(path, 1<<20)
				if err != nil {
					return nil, err
				}
				pool.AppendCertsFromPEM(data)
			case ".cert":
				pair, err := tls.LoadX509KeyPair(path, base+".key")
				if err != nil {
					return nil, fmt.Errorf("%s: %w", path, err)
				}
				own = append(own, pair)
			}
		}
	}
	return own, nil
}

func first(getenv func(string) string, names ...string) string {
	for _, name := range names {
		if value := getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// expiry returns a note about a certificate that expires within two weeks, or "".
func expiry(state *tls.ConnectionState) string {
	if state == nil || len(state.PeerCertificates) == 0 {
		return ""
	}
	end := state.PeerCertificates[0].NotAfter
	if time.Until(end) > 14*24*time.Hour {
		return ""
	}
	return ", certificate ends on " + end.UTC().Format(time.DateOnly)
}

// explain returns the reason why a registry cannot be reached, and what to do.
func explain(err error, proxy string) (detail, remedy string) {
	var dnsErr *net.DNSError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var hostname x509.HostnameError
	var record tls.RecordHeaderError
	via := ""
	if proxy != "" {
		via = " through the proxy " + proxy
	}
	switch {
	case errors.As(err, &dnsErr):
		return fmt.Sprintf("the name %s does not resolve%s", dnsErr.Name, via), "Check the name and the name server"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("its certificate is valid from %s to %s, and it is %s here", invalid.Cert.NotBefore.UTC().Format(time.DateOnly),
				invalid.Cert.NotAfter.UTC().Format(time.DateOnly), time.Now().UTC().Format(time.RFC3339)),
			"Set the node's clock, or have the certificate renewed"
	case errors.As(err, &unknown):
		return "its certificate is signed by an authority that the node does not know",
			"Put the authority's certificate into /etc/containers/certs.d/HOST[:PORT]/ca.crt, or name it in careen.toml: [tls] ca_files"
	case strings.Contains(err.Error(), "certificate required"):
		return "it wants a client certificate", "Put it as client.cert and client.key into /etc/containers/certs.d/HOST[:PORT]"
	case errors.As(err, &hostname):
		return "its certificate is for another name", "Use the name that is in the certificate"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it speaks plain HTTP", "Pull with --tls-verify=false, or give http:// here"
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return "no answer in time" + via, "Check the route, firewalls, the MTU and the proxy"
	}
	return oneLine(errors.Unwrap(err)) + via, "Check the registry, the route and the proxy"
}
