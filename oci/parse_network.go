package oci

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
)

// noBridge names the alternatives to a podman network.
const noBridge = "Use --network=host for the node's network, --network=none for loopback only," +
	" or --network=ns:PATH for a namespace that exists"

func (p *runParser) network() {
	o := p.o
	o.Network = Namespace{Mode: NamespaceHost}
	items := p.items("network")
	if len(items) > 0 {
		p.networkMode(items[0])
	}
	if len(items) > 1 {
		p.badItem("network", items[1], "only one network is possible without bridges")
	}
	o.Hostname = p.text("hostname", "")
	o.NoHosts, o.NoHostname = p.bool("no-hosts", false), p.bool("no-hostname", false)
	for _, it := range p.items("add-host") {
		if err := checkHost(it.value); err != nil {
			p.badItem("add-host", it, err.Error())
			continue
		}
		o.AddHosts = append(o.AddHosts, it.value)
	}
	if o.HostsFile = p.text("hosts-file", ""); o.HostsFile != "" && o.HostsFile != "none" && o.HostsFile != "image" {
		o.HostsFile = p.path(o.HostsFile)
		p.readFile(item{written: p.written("hosts-file")}, o.HostsFile)
	}
	p.dns()
}

func (p *runParser) networkMode(it item) {
	o := p.o
	path, isPath := strings.CutPrefix(it.value, "ns:")
	switch {
	case it.value == "host", it.value == "": // an empty one is the default
	case it.value == "none":
		o.Network = Namespace{Mode: NamespaceNone}
	case isPath:
		o.Network = p.namespacePath("network", path)
	case it.value == "default" || it.value == "private" || strings.HasPrefix(it.value, "bridge"):
		p.fail(unsupported(it.written, "careen has no bridge networks", noBridge))
	case strings.HasPrefix(it.value, "slirp4netns"), strings.HasPrefix(it.value, "pasta"):
		p.fail(unsupported(it.written, "careen has no user-mode network", noBridge))
	case strings.HasPrefix(it.value, "container:"), it.value == "pod":
		p.fail(unsupported(it.written, "there is no other container to share a network with", noBridge))
	default:
		p.fail(unsupported(it.written, "careen has no named networks", noBridge))
	}
}

// checkHost checks one NAME:IP.
func checkHost(text string) error {
	name, address, ok := strings.Cut(text, ":")
	switch {
	case !ok || name == "":
		return fmt.Errorf("it is not NAME:IP")
	case address == "host-gateway":
		return fmt.Errorf("host-gateway needs a bridge network; on the node's network the node is localhost")
	case net.ParseIP(strings.TrimSpace(address)) == nil:
		return fmt.Errorf("%s is not an IP address", quote(address))
	}
	return nil
}

var (
	letterPattern = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`[a-zA-Z]`)
	})
	// domainPattern is podman's, which also allows colons before a label.
	domainPattern = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^:?(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])` +
			`(?::?\.:?(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*\.?\s*$`)
	})
)

func (p *runParser) dns() {
	o := p.o
	servers := p.items("dns")
	for _, it := range servers {
		switch {
		case it.value == "none" && len(servers) > 1:
			p.badItem("dns", it, "none cannot be given together with name servers")
		case it.value == "none":
			o.ImageResolvConf = true
		case net.ParseIP(it.value) == nil:
			p.badItem("dns", it, quote(it.value)+" is not an IP address")
		default:
			o.DNS = append(o.DNS, net.ParseIP(it.value).String())
		}
	}
	o.DNSOptions = p.list("dns-option")
	searches := p.items("dns-search")
	for _, it := range searches {
		valid := letterPattern().MatchString(it.value) && domainPattern().MatchString(it.value) && len(it.value) < 255
		switch {
		case it.value == "." && len(searches) > 1:
			p.badItem("dns-search", it, ". cannot be given together with other domains")
		case it.value != "." && !valid:
			p.badItem("dns-search", it, quote(it.value)+" is not a domain")
		default:
			o.DNSSearch = append(o.DNSSearch, it.value)
		}
	}
}
