package image

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/nerdctl/v2/pkg/imgutil/dockerconfigresolver"
	"github.com/distribution/reference"
	"github.com/pelletier/go-toml/v2"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
)

// endpoint is one host that may have the image: a mirror, or the registry itself, which
// comes last.
type endpoint struct {
	docker.RegistryHost
	// repository is the name there; registries.conf may rewrite it.
	repository string
	// namespace is the registry's name if this is a mirror of hosts.toml; it is sent to the
	// mirror as the parameter ns.
	namespace string
	// resolve says that this host may resolve tags.
	resolve bool
	// transports are those of all clients of this host, to be closed.
	transports *[]*http.Transport
}

func (e *endpoint) url(kind, object string) string {
	u := e.Scheme + "://" + e.Host + strings.TrimSuffix(e.Path, "/") + "/" + e.repository + "/" + kind + "/" + object
	if e.namespace != "" {
		u += "?ns=" + url.QueryEscape(e.namespace)
	}
	return u
}

// endpoints returns the hosts that may have ref, mirrors first: registries.conf names the
// registry and mirrors, hosts.toml may put more mirrors in front of each.
func (p *Puller) endpoints(ctx context.Context, ref reference.Named, req *Request, creds *credentials) ([]*endpoint, error) {
	sources, err := p.pullSources(ref)
	if err != nil {
		return nil, err
	}
	var all []*endpoint
	for _, source := range sources {
		insecure := source.Endpoint.Insecure
		if req.TLSVerify != nil {
			insecure = !*req.TLSVerify
		}
		found, err := p.hostEndpoints(ctx, source.Reference, req, creds, insecure)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "pull image", Subject: ref.String(),
			Reason: "hosts.toml leaves no host to pull it from", Remedy: "Name a server or a host in the registry's hosts.toml"}
	}
	return all, nil
}

func (p *Puller) pullSources(ref reference.Named) ([]sysregistriesv2.PullSource, error) {
	sys := p.systemContext()
	registry, err := sysregistriesv2.FindRegistry(sys, ref.Name())
	if err != nil {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "read", Subject: "registries.conf", Err: err,
			Remedy: "Correct the file, or remove it if no mirror is needed"}
	}
	if registry == nil {
		return []sysregistriesv2.PullSource{{Reference: ref}}, nil
	}
	if registry.Blocked {
		return nil, &fault.Error{Code: fault.Policy, Op: "pull image", Subject: ref.String(),
			Reason: fmt.Sprintf("registry %s is blocked in registries.conf", registry.Prefix),
			Remedy: "Use another registry, or change blocked in registries.conf"}
	}
	sources, err := registry.PullSourcesFromReference(ref)
	if err != nil {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "read", Subject: "registries.conf", Err: err,
			Remedy: "Correct the mirrors of " + registry.Prefix}
	}
	return sources, nil
}

// hostEndpoints expands one host by hosts.toml and the certificate directories. nerdctl's
// package finds the directory and the credentials' host, containerd's package reads it.
func (p *Puller) hostEndpoints(ctx context.Context, ref reference.Named, req *Request, creds *credentials,
	insecure bool,
) ([]*endpoint, error) {
	domain := reference.Domain(ref)
	options, err := dockerconfigresolver.NewHostOptions(ctx, domain,
		dockerconfigresolver.WithHostsDirs(append(append([]string{}, p.cfg.HostsDirs...), p.cfg.CertDirs...)),
		dockerconfigresolver.WithAuthCreds(creds.lookup))
	if err != nil {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "configure registry", Subject: domain, Err: err}
	}
	if req.CertDir != "" {
		options.HostDir = func(string) (string, error) { return req.CertDir, nil }
	}
	if dir, err := options.HostDir(domain); err == nil && dir != "" {
		if err := checkHostsFile(filepath.Join(dir, "hosts.toml")); err != nil {
			return nil, err
		}
	}
	// nerdctl's default for localhost is plain HTTP; podman and careen verify localhost as
	// any other registry.
	options.DefaultScheme, options.DefaultTLS = "https", nil
	if insecure {
		options.DefaultScheme = "http"                             // tries HTTPS first, see below
		options.DefaultTLS = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the operator asked for it
	}
	transports := new([]*http.Transport)
	options.UpdateClient = func(client *http.Client) error {
		if t, ok := client.Transport.(*http.Transport); ok {
			p.tuneTransport(t)
			*transports = append(*transports, t)
			client.Transport = &boundedTransport{next: t}
		}
		return nil
	}
	hosts, err := dockerconfig.ConfigureHosts(ctx, *options)(domain)
	if err != nil {
		return nil, &fault.Error{Code: fault.BadConfig, Op: "configure registry", Subject: domain, Err: err,
			Remedy: "Check the registry's directory below " + strings.Join(append(p.cfg.HostsDirs, p.cfg.CertDirs...), ", ")}
	}
	p.trustAuthorities(*transports)
	var out []*endpoint
	for _, host := range hosts {
		if !host.Capabilities.Has(docker.HostCapabilityPull) {
			continue
		}
		e := &endpoint{RegistryHost: host, repository: reference.Path(ref), transports: transports}
		e.resolve = host.Capabilities.Has(docker.HostCapabilityResolve)
		if host.Host != domain && (domain != "docker.io" || host.Host != "registry-1.docker.io") {
			e.namespace = domain
		}
		out = append(out, e)
	}
	return out, nil
}

// checkHostsFile refuses a hosts.toml that is not TOML. containerd only logs that and goes
// on without mirrors, which an operator would not notice.
func checkHostsFile(path string) error {
	data, err := file.ReadLimited(path, 1<<20)
	if os.IsNotExist(err) {
		return nil
	}
	if err == nil {
		var document map[string]any
		err = toml.Unmarshal(data, &document)
	}
	if err != nil {
		return &fault.Error{Code: fault.BadConfig, Op: "read", Subject: path, Err: err, Remedy: "Correct the file"}
	}
	return nil
}
