package push

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// Options are the table [push] of careen.toml.
type Options struct {
	// URL is the target of PUT. {node} stands for the node, {run} for the run. Plain HTTP is
	// used only for a URL with the scheme http.
	URL string `toml:"url"`
	// AuthorizationFile names a file whose one line is sent as the header Authorization,
	// such as "Bearer TOKEN". It is read at each attempt.
	AuthorizationFile string `toml:"authorization_file"`
}

// Config are the settings of a [Pusher] beside its options. The zero value is valid.
type Config struct {
	// UserAgent names the program to the server.
	UserAgent string
	// Roots returns the authorities that are trusted, nil for the system's.
	Roots func() *x509.CertPool
}

// Limits of one attempt.
const (
	dialTime   = 10 * time.Second
	headerTime = 30 * time.Second
	maxFile    = 1 << 20
	maxAnswer  = 64 << 10
)

// Pusher puts files to one server. Its methods may be called from several goroutines.
type Pusher struct {
	opts Options
	cfg  Config
}

var placeholder = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\{[^}]*\}`) })

// New checks the options. Errors have the code [fault.BadConfig].
func New(opts Options, cfg Config) (*Pusher, error) {
	bad := func(key, value string, err error) error {
		return &fault.Error{Code: fault.BadConfig, Op: "use", Subject: "push." + key + " = " + value, Err: err,
			Remedy: `For example: url = "https://logs.example/{node}/{run}.tar.gz"`}
	}
	u, err := url.Parse(fill(opts.URL, "node", "run"))
	if err != nil {
		return nil, bad("url", "...", errors.Unwrap(err)) // url.Error has the whole of it
	}
	shown := u.Redacted()
	switch unknown := placeholder().FindString(fill(opts.URL, "", "")); {
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, bad("url", shown, errors.New("it is no URL of https or http with a host"))
	case u.User != nil:
		return nil, bad("url", shown, errors.New("it has a user in it: use authorization_file, which is not shown"))
	case unknown != "":
		return nil, bad("url", shown, fmt.Errorf("there is no %s, only {node} and {run}", unknown))
	case !strings.Contains(opts.URL, "{run}"):
		return nil, bad("url", shown, errors.New("it lacks {run}: each run would replace the one before it"))
	}
	return &Pusher{opts, cfg}, nil
}

// client makes the client of one attempt: the authorities may change, and no connection
// stays open.
func (p *Pusher) client() *http.Client {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.cfg.Roots != nil {
		secure.RootCAs = p.cfg.Roots()
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTime}).DialContext,
			TLSHandshakeTimeout: dialTime, ResponseHeaderTimeout: headerTime, TLSClientConfig: secure, DisableKeepAlives: true,
		},
		// Credentials are for the server that is configured, and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fill puts names into a URL, each as one segment of a path.
func fill(text, node, run string) string {
	return strings.NewReplacer("{node}", segment(node), "{run}", segment(run)).Replace(text)
}

// segment escapes a name. One of dots alone would lead to another directory.
func segment(name string) string {
	if name != "" && strings.Trim(name, ".") == "" {
		return strings.ReplaceAll(name, ".", "_")
	}
	return url.PathEscape(name)
}

// Target returns the URL for a run without its query, which may hold a secret.
func (p *Pusher) Target(node, run string) string {
	u, err := url.Parse(fill(p.opts.URL, node, run))
	if err != nil {
		return "the server"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.String()
}

// Shown returns the configured URL without its query, which may hold a secret.
func (p *Pusher) Shown() string {
	text, _, secret := strings.Cut(p.opts.URL, "?")
	if secret {
		text += "?***"
	}
	return text
}

// Refused is an answer that a repeated request would get again.
type Refused struct {
	// Status is the answer's status, as in "403 Forbidden".
	Status string
}

// Error says what the server answered.
func (r *Refused) Error() string { return "the server answers " + r.Status }

// Put sends size bytes of body to the URL for a run. The error has no fault code: it is a
// [Refused], for which another attempt is of no use, ctx's error, or one of the network.
func (p *Pusher) Put(ctx context.Context, node, run string, body io.Reader, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, fill(p.opts.URL, node, run), io.NopCloser(body))
	if err != nil {
		return errors.Unwrap(err) // url.Error has the whole URL
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/gzip")
	if p.cfg.UserAgent != "" {
		req.Header.Set("User-Agent", p.cfg.UserAgent)
	}
	if p.opts.AuthorizationFile != "" {
		data, err := read(p.opts.AuthorizationFile)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", strings.TrimSpace(string(data)))
	}
	answer, err := p.client().Do(req)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			return withURL.Err
		}
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	s := answer.StatusCode
	status := strings.TrimSpace(fmt.Sprintf("%d %s", s, http.StatusText(s)))
	switch {
	case s >= 200 && s < 300:
		return nil
	case s >= 500, s == http.StatusTooManyRequests, s == http.StatusRequestTimeout:
		return fmt.Errorf("the server answers %s", status)
	default:
		return &Refused{Status: status}
	}
}

// read reads a small file.
func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}
