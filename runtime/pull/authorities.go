package pull

import (
	"crypto/x509"
	"errors"
	"net/http"
	"sync"

	"github.com/careen-project/careen/agent/fault"
)

// Authorities are certificates that servers' are verified with, beside the system's
// and those of the registry's own directory.
type Authorities struct {
	// Certs may be empty. A caller that returns the same slice again spares the work of
	// making a pool of it.
	Certs []*x509.Certificate
	// Sources says, as a part of a sentence, where they are from, and from where none
	// could be had; "" for nowhere.
	Sources string
}

// trusted is the system's pool with the authorities added, for as long as these stay.
type trusted struct {
	mu    sync.Mutex
	certs []*x509.Certificate
	pool  *x509.CertPool
}

func (p *Puller) authorities() Authorities {
	if p.cfg.Authorities == nil {
		return Authorities{}
	}
	return p.cfg.Authorities()
}

// roots are what peers' certificates are verified with, nil for the system's alone.
func (p *Puller) roots() *x509.CertPool {
	certs := p.authorities().Certs
	if len(certs) == 0 {
		return nil
	}
	return p.trusted.poolOf(certs)
}

// trustAuthorities adds the node's authorities to what transports trust.
func (p *Puller) trustAuthorities(transports []*http.Transport) {
	certs := p.authorities().Certs
	if len(certs) == 0 {
		return
	}
	for _, t := range transports {
		switch {
		case t.TLSClientConfig == nil:
		case t.TLSClientConfig.RootCAs == nil:
			t.TLSClientConfig.RootCAs = p.trusted.poolOf(certs)
		default: // of this registry alone
			for _, c := range certs {
				t.TLSClientConfig.RootCAs.AddCert(c)
			}
		}
	}
}

// poolOf returns a pool that is shared and must not be changed.
func (t *trusted) poolOf(certs []*x509.Certificate) *x509.CertPool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pool != nil && len(t.certs) == len(certs) && &t.certs[0] == &certs[0] {
		return t.pool
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, c := range certs {
		pool.AddCert(c)
	}
	t.certs, t.pool = certs, pool
	return pool
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
		told.Remedy += "; beside the system's there are " + oneLine(sources, 600)
	}
	return &told
}
