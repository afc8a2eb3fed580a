package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/verify"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// errTotal is the cause of a pull that took longer than Limits.Total.
var errTotal = errors.New("the pull took longer than its limit")

// Puller pulls images into one containerd. Its methods may be called at once.
type Puller struct {
	client  *containerd.Client
	cfg     Config
	flights flights
	reach   reach
	clock   clockRepair
	// background bounds what all background pulls do together while a step runs.
	background *rate.Limiter
}

// New returns a puller that stores images through client. It makes no call.
func New(client *containerd.Client, cfg Config) *Puller {
	return &Puller{client: client, cfg: cfg.withDefaults(), flights: flights{running: map[string]*flight{}},
		background: rate.NewLimiter(backgroundRate, backgroundBurst)}
}

// Pull makes the image of req present, as its policy asks, and describes it.
// Progress goes to the function, if it is not nil: at each change of the status and five
// times a second while bytes arrive, one call at a time, none after Pull has returned.
//
// When ctx ends, the pull ends at once with [fault.Aborted] and nothing of it
// stays. Layers that several pulls need at the same time are unpacked once.
func (p *Puller) Pull(ctx context.Context, req *Request, progress func(Progress)) (*Image, error) {
	ctx = namespaces.WithNamespace(ctx, p.cfg.Namespace)
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.Limits.Total, errTotal)
	defer cancel()
	j := &job{p: p, req: req, progress: newReporter(progress)}
	defer j.progress.stop()
	img, err := j.run(ctx)
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), errTotal) && fault.CodeOf(err) != fault.Timeout {
			err = &fault.Error{Code: fault.Timeout, Op: "pull image", Subject: req.Original, Err: err,
				Reason: fmt.Sprintf("it took longer than %s", p.cfg.Limits.Total), Remedy: "Check the speed of the registry"}
		}
		return nil, naming(classify(err, "pull image", req.Original), req.Original)
	}
	j.progress.done()
	return img, nil
}

// naming gives err, which may be about one layer of many, the image it is about.
func naming(err error, image string) error {
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
	progress *reporter
	want     ocispec.Platform

	jitterDone bool // has waited its part of Config.Jitter
}

// source is where an image's parts come from.
type source interface {
	// root is what the reference means: a manifest or an index.
	root(ctx context.Context) (*document, error)
	// manifest is one that an index names.
	manifest(ctx context.Context, desc ocispec.Descriptor) (*document, error)
	// small returns a whole blob, verified.
	small(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	// blob streams a blob, not verified.
	blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	// probe reads a part of a blob, not verified, if that is cheap.
	probe(ctx context.Context, desc ocispec.Descriptor, at int64, b []byte) error
	Close() error
}

func (j *job) run(ctx context.Context) (*Image, error) {
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
	switch j.req.Transport {
	case "", Docker:
		return j.fromRegistry(ctx)
	case OCI, OCIArchive, DockerArchive:
		return j.fromFile(ctx)
	default:
		return nil, &fault.Error{Code: fault.BadReference, Op: "read image reference", Subject: j.req.Original,
			Reason: "unknown transport " + fault.OneLine(string(j.req.Transport), 40),
			Remedy: "Use docker://, oci:, oci-archive: or docker-archive:"}
	}
}

func notPresent(req *Request) error {
	return &fault.Error{Code: fault.ImageNotFound, Op: "find image", Subject: req.Original,
		Reason: "it is not present and may not be pulled", Remedy: "Pull it first, or use another --pull policy"}
}

// fromRegistry tries the names that the reference may mean. With one name, its
// error is the pull's; a short name that is nowhere has the last one's.
func (j *job) fromRegistry(ctx context.Context) (*Image, error) {
	names, err := j.p.candidates(j.req)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		local, err := j.p.find(ctx, name.String(), j.fits())
		if err != nil {
			return nil, err
		}
		if local != nil && (j.req.Policy == Missing || j.req.Policy == Never) {
			return j.present(ctx, local)
		}
	}
	if j.req.Policy == Never {
		return nil, notPresent(j.req)
	}
	j.progress.status("resolving")
	gate := j.gate()
	for i, name := range names {
		src, err := j.p.openRegistry(ctx, j.req, name, j.progress.retried)
		if err != nil {
			return nil, err
		}
		src.gate, src.warn = gate, j.progress.warn
		img, err := j.refresh(ctx, src, name.String())
		_ = src.Close()
		if err == nil || ctx.Err() != nil || i == len(names)-1 {
			return img, err
		}
		switch fault.CodeOf(err) {
		case fault.ImageNotFound, fault.Auth, fault.Network, fault.DNS, fault.TLS, fault.TLSCA:
			log.G(ctx).WithError(err).WithField("name", name.String()).Info("trying the next search registry")
		default:
			return nil, err
		}
	}
	return nil, notPresent(j.req)
}

// refresh asks the registry what the name means now, and pulls only if that is
// not what is present.
func (j *job) refresh(ctx context.Context, src *registry, name string) (*Image, error) {
	local, err := j.p.find(ctx, name, j.fits())
	if err != nil {
		return nil, err
	}
	if local == nil {
		return j.fetch(ctx, src, name)
	}
	if j.req.Policy == Newer {
		src.gate = nil // what is present will do
	}
	now, err := src.head(ctx)
	if err == nil && now == "" {
		var doc *document
		if doc, err = src.root(ctx); err == nil {
			now = doc.desc.Digest
		}
	}
	if err == nil && now.String() != local.TargetDigest() {
		var img *Image
		if img, err = j.fetch(ctx, src, name); err == nil {
			return img, nil
		}
	}
	if err != nil {
		if j.req.Policy == Newer && ctx.Err() == nil {
			log.G(ctx).WithError(err).WithField("image", name).Warn("the registry cannot be asked for a newer image; the present one is used")
			return j.present(ctx, local)
		}
		return nil, err
	}
	if local, err = j.present(ctx, local); err != nil {
		return nil, err
	}
	local.PulledAt = j.p.cfg.Now()
	return local, j.p.touch(ctx, local)
}

func (j *job) fromFile(ctx context.Context) (*Image, error) {
	local, err := j.p.find(ctx, j.req.Original, j.fits())
	if err != nil {
		return nil, err
	}
	if local != nil && (j.req.Policy == Missing || j.req.Policy == Never) {
		return j.present(ctx, local)
	}
	if j.req.Policy == Never {
		return nil, notPresent(j.req)
	}
	j.progress.status("resolving")
	src, err := j.p.openFile(ctx, j.req)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return j.fetch(ctx, src, j.req.Original)
}

// picture is all that is known of an image before its layers are fetched.
type picture struct {
	name     string
	index    digest.Digest
	manifest *document
	config   *ocispec.Image
	raw      []byte // the configuration as it was sent
	accepted *verify.Accepted
}

// fetch gets manifest, configuration and layers, and records the image.
func (j *job) fetch(ctx context.Context, src source, name string) (*Image, error) {
	pic, err := j.resolve(ctx, src, name)
	if err != nil {
		return nil, err
	}
	return j.p.store(ctx, j, src, pic)
}

// resolve goes from the reference to the configuration.
func (j *job) resolve(ctx context.Context, src source, name string) (*picture, error) {
	doc, err := src.root(ctx)
	if err != nil {
		return nil, err
	}
	pic := &picture{name: name}
	// An index may name another one. Real ones do so once at most.
	for depth := 0; doc.index != nil; depth++ {
		if depth == 3 {
			return nil, badImage("index", "indexes are nested too deeply")
		}
		setDefault(&pic.index, doc.desc.Digest)
		chosen, err := choose(doc.index, j.want, name)
		if err != nil {
			return nil, err
		}
		if err := checkDescriptor(chosen, "manifest", j.p.cfg.Limits.MaxManifest); err != nil {
			return nil, err
		}
		if doc, err = src.manifest(ctx, chosen); err != nil {
			return nil, err
		}
	}
	pic.manifest = doc
	if err := j.admit(ctx, src, pic); err != nil {
		return nil, err
	}
	if err := checkManifest(doc.manifest, j.p.cfg.Limits); err != nil {
		return nil, err
	}
	if pic.raw, err = src.small(ctx, doc.manifest.Config); err != nil {
		return nil, err
	}
	if pic.config, err = parseConfig(pic.raw, doc.manifest); err != nil {
		return nil, err
	}
	has := pic.config.Platform
	if has.Architecture != "" && !platforms.Only(j.want).Match(platforms.Normalize(has)) {
		return nil, &fault.Error{Code: fault.Platform, Op: "pull image", Subject: j.req.Original,
			Reason: fmt.Sprintf("it is for %s, not for %s", fault.OneLine(platforms.Format(has), 60), platforms.Format(j.want)),
			Remedy: "Build the image for this platform, or name another one with --platform"}
	}
	return pic, nil
}

// cleanupTimeout bounds what is undone after a failure, when the pull's own
// context may be over already.
const cleanupTimeout = 30 * time.Second

func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
}
