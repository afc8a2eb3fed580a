package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/authorities"
)

// The values of a check's status. Only an error keeps containers from running.
const (
	StatusOK      = "ok"
	StatusWarning = "warning"
	StatusError   = "error"
)

// Options are the options of [Run].
type Options struct {
	// Prepare are the agent's options of [rootfs.Prepare].
	Prepare rootfs.PrepareOptions
	// Registries are asked for an answer. Each is host or host:port, with or without
	// http:// or https://. Without any, nothing is contacted.
	Registries []string
	// Getenv returns the agent's variables, for the proxies; nil is os.Getenv.
	Getenv func(string) string
	// BuildTime is the time of the binary's build: a correct clock is not earlier. Zero
	// stands for [rootfs.BuildTime].
	BuildTime time.Time
	// Timeout limits each registry; 0 is ten seconds.
	Timeout time.Duration
	// ResolvConf is the file with the name servers; "" is /etc/resolv.conf.
	ResolvConf string
	// CertDirs hold one directory per registry with CA files and client certificates; nil
	// stands for /etc/containers/certs.d and /etc/docker/certs.d.
	CertDirs []string
	// Authorities are trusted in addition to the system's.
	Authorities []authorities.Source
	// ClockRepair says that a pull corrects a clock that is behind.
	ClockRepair bool
}

// examination collects the findings.
type examination struct {
	opts   Options
	checks []api.Check
	extra  *authorities.Bundle // of Authorities
}

func (d *examination) ok(name, format string, args ...any) {
	d.checks = append(d.checks, api.Check{Name: name, Status: StatusOK, Detail: fmt.Sprintf(format, args...)})
}

func (d *examination) warn(name, remedy, format string, args ...any) {
	d.checks = append(d.checks, api.Check{Name: name, Status: StatusWarning, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (d *examination) fail(name, remedy, format string, args ...any) {
	d.checks = append(d.checks, api.Check{Name: name, Status: StatusError, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Run examines everything that containers need. What the agent mounts and loads at start
// is no finding. Run tries things out where it can (an overlay, a pivot_root, a request to
// a registry) and leaves nothing behind. The checks have a fixed order and stable names.
// Run takes about a second, or Timeout where a registry does not answer.
func Run(ctx context.Context, opts Options) []api.Check {
	opts.Prepare = opts.Prepare.WithDefaults()
	d := &examination{opts: opts.withDefaults()}
	d.extra = authorities.New(func() []authorities.Source { return opts.Authorities }, nil).Bundle()
	for _, check := range []func(){
		d.kernel, d.privileges, d.namespaces, d.seccomp, d.keyring,
		d.mounts, d.cgroups, d.cgroupDevices, d.pivot, d.overlay, d.store, d.memory,
		d.clock, d.dns, d.authorities, d.proxies,
		d.modulesDir, d.devMem, d.ipmi, d.lockdown,
	} {
		if ctx.Err() != nil {
			break
		}
		check()
	}
	d.registries(ctx)
	return d.checks
}

// registries asks all registries at the same time: one may not answer until the timeout.
func (d *examination) registries(ctx context.Context) {
	results := make([]api.Check, len(d.opts.Registries))
	var wg sync.WaitGroup
	for i, name := range d.opts.Registries {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
			defer cancel()
			results[i] = d.registry(ctx, name)
		})
	}
	wg.Wait()
	d.checks = append(d.checks, results...)
}

// kernel warns about kernels that are older than any tested one.
func (d *examination) kernel() {
	release := rootfs.KernelRelease()
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		d.warn("kernel", "", "unknown version: Linux %s", release)
		return
	}
	if major < 4 || major == 4 && minor < 18 {
		d.warn("kernel", "Use a kernel of 4.18 or later", "Linux %s is older than any that careen is tested with", release)
		return
	}
	d.ok("kernel", "Linux %s", release)
}

// oneLine returns an error's text on one line.
func oneLine(err error) string { return fault.OneLine(err.Error(), fault.MaxLine) }
