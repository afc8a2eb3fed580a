package shim

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"

	"github.com/careen-project/careen/runtime/container"
)

// scheme of the stdout address that carries a [Target].
const scheme = "careen"

// Target says where a container's output and exit record go. It travels to the
// shim as the task's stdout address, which containerd passes on untouched.
type Target struct {
	// Dir is the run's directory.
	Dir container.Dir
	// LogLimit bounds the log, in bytes; 0 is the default of package logs.
	LogLimit int64
	// Stdin says that Dir has a FIFO named stdin to read from.
	Stdin bool
	// SeccompDir is the cache of compiled seccomp programs, absolute; "" for none.
	SeccompDir string
}

// String returns the address, as in "careen:///run/careen/runs/42?log_limit=1048576".
func (t Target) String() string {
	q := url.Values{}
	if t.LogLimit > 0 {
		q.Set("log_limit", strconv.FormatInt(t.LogLimit, 10))
	}
	if t.Stdin {
		q.Set("stdin", "1")
	}
	if t.SeccompDir != "" {
		q.Set("seccomp", t.SeccompDir)
	}
	u := url.URL{Scheme: scheme, Path: string(t.Dir), RawQuery: q.Encode()}
	return u.String()
}

// ParseTarget reads an address that [Target.String] made.
func ParseTarget(address string) (Target, error) {
	u, err := url.Parse(address)
	if err != nil {
		return Target{}, fmt.Errorf("cannot parse stdout address: %w", err)
	}
	if u.Scheme != scheme || u.Host != "" || !filepath.IsAbs(u.Path) {
		return Target{}, fmt.Errorf("cannot use stdout address %q: it is not %s:///DIR", address, scheme)
	}
	t := Target{Dir: container.Dir(filepath.Clean(u.Path)), Stdin: u.Query().Get("stdin") == "1"}
	if dir := u.Query().Get("seccomp"); filepath.IsAbs(dir) {
		t.SeccompDir = filepath.Clean(dir)
	}
	if limit := u.Query().Get("log_limit"); limit != "" {
		if t.LogLimit, err = strconv.ParseInt(limit, 10, 64); err != nil || t.LogLimit <= 0 {
			return Target{}, fmt.Errorf("cannot use stdout address %q: bad log_limit", address)
		}
	}
	return t, nil
}
