package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/careen-project/careen/runtime/netready"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// Puller pulls images into one containerd. Its methods may be called concurrently.
type Puller struct {
	client    *containerd.Client
	cfg       Config
	unpacking singleFlight
	dirs      snapshotDirs
	clock     clockRepair
	// background bounds the sum of all background pulls while a step runs.
	background *rate.Limiter
}

// New returns a puller that stores images through client. It makes no call.
func New(client *containerd.Client, cfg Config) *Puller {
	return &Puller{client: client, cfg: cfg.withDefaults(), unpacking: singleFlight{running: map[string]*layerCall{}},
		background: rate.NewLimiter(backgroundRate, backgroundBurst)}
}

// Pull makes the image of req present, as its policy asks, and describes it. It calls
// progress, if that is not nil, at each change of the status and five times a second while
// bytes arrive: one call at a time, none after Pull has returned.
//
// When ctx ends, the pull ends at once and leaves nothing behind. Layers that several
// pulls need at the same time are unpacked once.
//
// Errors name the image, and the host, file or store that caused them. Their codes:
//   - [fault.BadOption], [fault.BadReference], [fault.BadConfig]: the request or a
//     configuration file is wrong.
//   - [fault.ImageNotFound], [fault.Platform], [fault.Auth], [fault.Policy]: there is no such
//     image, none for the platform, or it may not be pulled or used.
//   - [fault.Network], [fault.DNS], [fault.Proxy], [fault.TLS], [fault.TLSCA], [fault.Clock],
//     [fault.Registry], [fault.RateLimited], [fault.Stalled]: the registry cannot be reached,
//     or does not answer as a registry does.
//   - [fault.Digest], [fault.BadImage], [fault.Unsupported]: the image is damaged, malformed,
//     or of a kind that cannot be unpacked.
//   - [fault.Space], [fault.Memory], [fault.Node], [fault.Unreachable]: the store, the node
//     or containerd.
//   - [fault.Timeout], [fault.Aborted]: Limits.Total is over, or ctx has ended.
//   - [fault.Internal]: a defect.
func (p *Puller) Pull(ctx context.Context, req *Request, progress func(Progress)) (*Image, error) {
	ctx = namespaces.WithNamespace(ctx, p.cfg.Namespace)
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.Limits.Total, failure.ErrTotal)
	defer cancel()
	j := &job{p: p, req: req, progress: newReporter(progress)}
	defer j.progress.stop()
	j.hooks = newHooks(j)
	j.network = netready.New(p.cfg.NetworkWait, j.hooks.onWait)
	img, err := j.run(ctx)
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), failure.ErrTotal) && fault.CodeOf(err) != fault.Timeout {
			err = &fault.Error{Code: fault.Timeout, Op: "pull image", Subject: req.Original, Err: err,
				Reason: fmt.Sprintf("it took longer than %s", p.cfg.Limits.Total), Remedy: "Check the speed of the registry"}
		}
		return nil, withImage(failure.Classify(err, "pull image", req.Original), req.Original)
	}
	j.hooks.onStatus("done")
	return img, nil
}

// withImage adds the image's reference to an error that names only a part of the image.
func withImage(err error, image string) error {
	var f *fault.Error
	if !errors.As(err, &f) || f.Code == fault.BadOption || strings.Contains(err.Error(), image) {
		return err
	}
	return &fault.Error{Code: f.Code, Op: "pull image", Subject: image, Err: err, Attrs: f.Attrs}
}

// job is one pull.
type job struct {
	p        *Puller
	req      *Request
	hooks    hooks
	progress *reporter
	// network waits for a node without a network; the limit is that of the whole pull.
	network *netready.Waiter
	want    ocispec.Platform

	jittered bool // has waited for Config.Jitter
}

// run is the pull: see the package comment for its steps.
func (j *job) run(ctx context.Context) (*Image, error) {
	names, err := j.prepare()
	if err != nil {
		return nil, err
	}
	if j.req.Policy == Missing || j.req.Policy == Never {
		for _, name := range names {
			local, err := j.p.find(ctx, name, j.fits())
			if err != nil {
				return nil, err
			}
			if local != nil {
				return local, j.hooks.onPresent(ctx, local)
			}
		}
	}
	if j.req.Policy == Never {
		return nil, notPresent(j.req)
	}
	j.hooks.onStatus("resolving")
	for i, name := range names {
		img, err := j.pullName(ctx, name)
		if err == nil || ctx.Err() != nil || i == len(names)-1 {
			return img, err
		}
		// A short name that no search registry has gets the error of the last one.
		switch fault.CodeOf(err) {
		case fault.ImageNotFound, fault.Auth, fault.Network, fault.DNS, fault.TLS, fault.TLSCA:
			log.G(ctx).WithError(err).WithField("name", name).Info("trying the next search registry")
		default:
			return nil, err
		}
	}
	return nil, notPresent(j.req)
}

// prepare checks the request and returns the names that its reference may mean.
func (j *job) prepare() ([]string, error) {
	var err error
	if j.want, err = platformOf(j.req.Platform); err != nil {
		return nil, err
	}
	setDefault(&j.req.Policy, Missing)
	switch j.req.Policy {
	case Always, Missing, Never, Newer:
	default:
		return nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--pull=" + fault.OneLine(string(j.req.Policy), 40),
			Remedy: "Use always, missing, never or newer"}
	}
	if err := checkTransport(j.req); err != nil {
		return nil, err
	}
	if !fromRegistry(j.req) {
		return []string{j.req.Original}, nil
	}
	candidates, err := j.p.candidates(j.req)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(candidates))
	for i, c := range candidates {
		names[i] = c.String()
	}
	return names, nil
}

func notPresent(req *Request) error {
	return &fault.Error{Code: fault.ImageNotFound, Op: "find image", Subject: req.Original,
		Reason: "it is not present and may not be pulled", Remedy: "Pull it first, or use another --pull policy"}
}

// pullName asks the source what a name means now, and fetches the image if that is not
// the present one.
func (j *job) pullName(ctx context.Context, name string) (*Image, error) {
	local, err := j.p.find(ctx, name, j.fits())
	if err != nil {
		return nil, err
	}
	src, err := j.open(ctx, name, local != nil)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if local == nil {
		return j.fetch(ctx, src, name)
	}
	now, err := src.digest(ctx)
	if err == nil && now.String() != local.TargetDigest() {
		var img *Image
		if img, err = j.fetch(ctx, src, name); err == nil {
			return img, nil
		}
	}
	switch {
	case err == nil:
		if err := j.hooks.onPresent(ctx, local); err != nil {
			return nil, err
		}
		local.PulledAt = j.p.cfg.Now()
		return local, j.p.touch(ctx, local)
	case j.req.Policy == Newer && fromRegistry(j.req) && ctx.Err() == nil:
		log.G(ctx).WithError(err).WithField("image", name).Warn("cannot pull a newer image; using the present one")
		return local, j.hooks.onPresent(ctx, local)
	default:
		return nil, err
	}
}

// resolvedImage is an image whose manifest and configuration are known, before its layers
// are fetched.
type resolvedImage struct {
	name     string
	index    digest.Digest
	manifest *document
	config   *ocispec.Image
	raw      []byte // the configuration as it was sent
	accepted *verify.Accepted
}

// fetch gets manifest, configuration and layers, and records the image.
func (j *job) fetch(ctx context.Context, src source, name string) (*Image, error) {
	img, err := j.resolve(ctx, src, name)
	if err != nil {
		return nil, err
	}
	return j.p.store(ctx, j, src, img)
}

// resolve goes from the reference to the configuration.
func (j *job) resolve(ctx context.Context, src source, name string) (*resolvedImage, error) {
	img := &resolvedImage{name: name}
	if err := j.chooseManifest(ctx, src, img); err != nil {
		return nil, err
	}
	if err := j.hooks.postManifest(ctx, src, img); err != nil {
		return nil, err
	}
	manifest := img.manifest.manifest
	err := checkManifest(manifest, j.p.cfg.Limits)
	if err != nil {
		return nil, src.from(nil, err)
	}
	if img.raw, err = readBlob(ctx, src, manifest.Config); err != nil {
		return nil, err
	}
	if img.config, err = parseConfig(img.raw, manifest); err != nil {
		return nil, src.from(nil, err)
	}
	has := img.config.Platform
	if has.Architecture != "" && !platforms.Only(j.want).Match(platforms.Normalize(has)) {
		return nil, &fault.Error{Code: fault.Platform, Op: "pull image", Subject: j.req.Original,
			Reason: fmt.Sprintf("it is for %s, not for %s", fault.OneLine(platforms.Format(has), 60), platforms.Format(j.want)),
			Remedy: "Build the image for this platform, or name another one with --platform"}
	}
	return img, nil
}

// chooseManifest goes from the reference to the manifest for the platform.
func (j *job) chooseManifest(ctx context.Context, src source, img *resolvedImage) error {
	doc, err := src.root(ctx)
	if err != nil {
		return err
	}
	// An index may name another one. Real ones do so once at most.
	for depth := 0; doc.index != nil; depth++ {
		if depth == 3 {
			return failure.BadImage("index", "indexes are nested too deeply")
		}
		setDefault(&img.index, doc.desc.Digest)
		chosen, err := choose(doc.index, j.want, img.name)
		if err != nil {
			return err
		}
		if err := checkDescriptor(chosen, "manifest", j.p.cfg.Limits.MaxManifest); err != nil {
			return src.from(nil, err)
		}
		if doc, err = src.manifest(ctx, chosen); err != nil {
			return err
		}
	}
	img.manifest = doc
	return nil
}

// cleanupTimeout bounds the clean-up after a failure, when the pull's own context may have
// ended already.
const cleanupTimeout = 30 * time.Second

func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
}
