package image

import (
	"crypto/x509"
	"errors"
	"net/http"

	"github.com/careen-project/careen/agent/fault"
)

// Authorities are certificates that servers' are verified with, beside the system's
// and those of the registry's own directory.
type Authorities struct {
	// Certs may be empty.
	Certs []*x509.Certificate
	// Pool has Certs and the system's, and is nil where there are no Certs. It is not
	// changed.
	Pool *x509.CertPool
	// Sources says, as a part of a sentence, where they are from, and from where none
	// could be had; "" for nowhere.
	Sources string
}

func (p *Puller) authorities() Authorities {
	if p.cfg.Authorities == nil {
		return Authorities{}
	}
	return p.cfg.Authorities()
}

// trustAuthorities adds the node's authorities to what transports trust.
func (p *Puller) trustAuthorities(transports []*http.Transport) {
	told := p.authorities()
	if len(told.Certs) == 0 {
		return
	}
	for _, t := range transports {
		switch {
		case t.TLSClientConfig == nil:
		case t.TLSClientConfig.RootCAs == nil:
			t.TLSClientConfig.RootCAs = told.Pool
		default: // of this registry alone
			for _, c := range told.Certs {
				t.TLSClientConfig.RootCAs.AddCert(c)
			}
		}
	}
}

// tellSources adds to an error about an unknown authority which ones are known.
func (p *Puller) tellSources(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.TLSCA {
		return err
	}
	told := *f
	told.Remedy += ", or name it in careen.toml: [tls] ca_files"
	if sources := p.authorities().Sources; sources != "" {
		told.Remedy += "; beside the system's there are " + fault.OneLine(sources, 600)
	}
	return &told
}
