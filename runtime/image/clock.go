package image

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// Clock lets a pull set a clock that is behind: one without a battery begins at 1970,
// when no certificate was valid.
type Clock struct {
	// Floor is a time that has certainly passed, such as careen's build time. An earlier
	// date from a server is false.
	Floor time.Time
	// Set sets the node's clock. It is called at most once.
	Set func(time.Time) error
}

// clockRepair makes sure that the clock is set only once.
type clockRepair struct {
	mu   sync.Mutex
	done bool
}

// repairClock sets the node's clock by the registry's, if err says that a certificate is not
// valid yet. It returns nil when the request may be made once more.
//
// The server has to prove that it is the registry: the chain and name of its certificate
// are verified as usual, but at the date of its answer, which has to be later than the
// node's clock and than the floor. So the clock never goes back, and never beyond the end
// of that certificate. The owner of the key of an expired certificate can set the clock to
// a time at which that was valid, but not to one before the floor.
func (r *registry) repairClock(ctx context.Context, err error) error {
	var invalid x509.CertificateInvalidError
	clock, repair := r.p.cfg.Clock, &r.p.clock
	if !errors.As(err, &invalid) || invalid.Cert == nil {
		return err
	}
	repair.mu.Lock()
	defer repair.mu.Unlock()
	now := r.p.cfg.Now()
	early := strings.Contains(invalid.Detail, " is before ") // the certificate had not begun
	switch {
	case clock == nil && early:
		return notRepaired(err, "", "Set the node's clock, or let careen do it by the registry's: [clock] repair = true in careen.toml")
	case clock == nil, !early && !now.Before(clock.Floor):
		return err
	case repair.done && early && !invalid.Cert.NotBefore.After(now):
		return nil // set for another request, after this one had begun
	case repair.done:
		return notRepaired(err, "that was done once already", "")
	}
	e := r.endpoints[len(r.endpoints)-1] // the error is that of the last endpoint
	date, why := r.askDate(ctx, e, now)
	if why == nil {
		why = clock.Set(date)
	}
	if why != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return notRepaired(err, fault.OneLine(why.Error(), 300), "")
	}
	repair.done = true
	text := fmt.Sprintf("the node's clock was at %s and was set to %s, as %s told", now.UTC().Format(time.RFC3339),
		date.UTC().Format(time.RFC3339), e.Host)
	if r.onWarn != nil {
		r.onWarn(text)
	}
	return nil
}

// notRepaired adds to an error about the clock why the clock was not set.
func notRepaired(err error, why, remedy string) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	named := *f
	if why != "" {
		named.Reason += "; the clock was not set by the registry's: " + why
	}
	if remedy != "" {
		named.Remedy = remedy
	}
	return &named
}

// askDate asks the server of an endpoint for the date. It sends nothing secret.
func (r *registry) askDate(ctx context.Context, e *endpoint, now time.Time) (time.Time, error) {
	bounded, ok := e.Client.Transport.(*boundedTransport)
	if !ok {
		return time.Time{}, errors.New("the registry need not prove who it is")
	}
	transport, ok := bounded.next.(*http.Transport)
	if !ok || transport.TLSClientConfig == nil {
		return time.Time{}, errors.New("no TLS")
	}
	transport = transport.Clone()
	transport.DisableKeepAlives = true
	transport.TLSClientConfig.InsecureSkipVerify = true // verified below, at another time
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	target := &url.URL{Scheme: "https", Host: e.Host, Path: strings.TrimSuffix(e.Path, "/") + "/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, target.String(), nil)
	if err != nil {
		return time.Time{}, err
	}
	req.Header.Set("User-Agent", r.p.cfg.UserAgent)
	resp, err := client.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close()
	date, err := http.ParseTime(resp.Header.Get("Date"))
	switch {
	case err != nil:
		return time.Time{}, errors.New("the answer has no date")
	case date.Before(r.p.cfg.Clock.Floor):
		return time.Time{}, fmt.Errorf("it tells %s, before careen was built", date.UTC().Format(time.RFC3339))
	case !date.After(now):
		return time.Time{}, fmt.Errorf("it tells %s, no later than the node", date.UTC().Format(time.RFC3339))
	case resp.TLS == nil || len(resp.TLS.PeerCertificates) == 0:
		return time.Time{}, errors.New("no TLS")
	}
	opts := x509.VerifyOptions{
		Roots: transport.TLSClientConfig.RootCAs, Intermediates: x509.NewCertPool(), DNSName: target.Hostname(), CurrentTime: date,
	}
	for _, c := range resp.TLS.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := resp.TLS.PeerCertificates[0].Verify(opts); err != nil {
		return time.Time{}, fmt.Errorf("its certificate was not valid at the %s that it tells: %w", date.UTC().Format(time.RFC3339), err)
	}
	return date, nil
}
