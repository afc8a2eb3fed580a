package image

import (
	"crypto/x509"
	"errors"
	"net/http"

	"github.com/careen-project/careen/agent/fault"
)

// Authorities are the certificates of authorities that are trusted beside the system's and
// those of the registry's own directory.
type Authorities struct {
	// Certs may be empty.
	Certs []*x509.Certificate
	// Pool has Certs and the system's, and is nil if there are no Certs. It is only read.
	Pool *x509.CertPool
	// Sources is a part of a sentence with the places that they come from, and the places
	// that could not be read; "" for none.
	Sources string
}

func (p *Puller) authorities() Authorities {
	if p.cfg.Authorities == nil {
		return Authorities{}
	}
	return p.cfg.Authorities()
}

// trustAuthorities adds the node's authorities to those of the transports.
func (p *Puller) trustAuthorities(transports []*http.Transport) {
	own := p.authorities()
	if len(own.Certs) == 0 {
		return
	}
	for _, t := range transports {
		switch {
		case t.TLSClientConfig == nil:
		case t.TLSClientConfig.RootCAs == nil:
			t.TLSClientConfig.RootCAs = own.Pool
		default: // this registry has its own pool
			for _, c := range own.Certs {
				t.TLSClientConfig.RootCAs.AddCert(c)
			}
		}
	}
}

// withSources adds the sources of the known authorities to an error about an unknown one.
func (p *Puller) withSources(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.TLSCA {
		return err
	}
	named := *f
	named.Remedy += ", or name it in careen.toml: [tls] ca_files"
	if sources := p.authorities().Sources; sources != "" {
		named.Remedy += "; beside the system's there are " + fault.OneLine(sources, 600)
	}
	return &named
}
