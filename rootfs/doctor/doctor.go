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

// Options are the options of [Doctor].
type Options struct {
	// Prepare are the options that the agent prepares the node with.
	Prepare rootfs.PrepareOptions
	// Registries to reach, as host, host:port, or with http:// or https:// before
	// it. Nothing is contacted when there are none.
	Registries []string
	// Getenv returns the agent's variables, for the proxies; nil is os.Getenv.
	Getenv func(string) string
	// BuildTime is when the binary was made: the clock cannot be earlier. Zero
	// stands for what the Go toolchain recorded.
	BuildTime time.Time
	// Timeout limits each registry; 0 is ten seconds.
	Timeout time.Duration
	// ResolvConf is the file with the name servers; "" is /etc/resolv.conf.
	ResolvConf string
	// CertDirs have a directory of CA files and client certificates for each registry;
	// nil stands for /etc/containers/certs.d and /etc/docker/certs.d.
	CertDirs []string
	// Authorities are trusted beside the system's.
	Authorities []authorities.Source
	// ClockRepair says that a pull sets a clock that is behind.
	ClockRepair bool
}

// doctor collects the findings.
type examination struct {
	opts   Options
	checks []api.Check
	told   *authorities.Bundle // what Authorities hold
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

// Doctor looks at everything that a container's run depends on, and answers as
// the agent would find the node: what the agent mounts and loads by itself is no
// finding. It tries things out where it can (an overlay, a pivot_root, a request
// to a registry) and leaves nothing behind. Checks come in a fixed order; their
// names are stable. It takes a second, or Timeout where a registry hangs.
func Run(ctx context.Context, opts Options) []api.Check {
	opts.Prepare = opts.Prepare.WithDefaults()
	d := &examination{opts: opts.withDefaults()}
	d.told = authorities.New(func() []authorities.Source { return opts.Authorities }, nil).Bundle()
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

// registries are asked all at once, since one that hangs is what is looked for.
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

// kernel warns of kernels that nobody tests careen with.
func (d *examination) kernel() {
	release := rootfs.KernelRelease()
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		d.warn("kernel", "", "Linux %s: cannot tell how old it is", release)
		return
	}
	if major < 4 || major == 4 && minor < 18 {
		d.warn("kernel", "Use a kernel of 4.18 or later", "Linux %s is older than any that careen is tested with", release)
		return
	}
	d.ok("kernel", "Linux %s", release)
}

// oneLine makes any error's text fit a line of a table.
func oneLine(err error) string { return fault.OneLine(err.Error(), fault.MaxLine) }
