package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/runtime"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/careen-project/careen/runtime/pull"
)

// runner is package runtime as package agent wants it. It translates, nothing
// else: what happens when is the agent's, how is the engine's.
type runner struct {
	engine *runtime.Engine
	// own are directories whose mounts are careen's.
	own []string
}

func newRunner(engine *runtime.Engine, own ...string) *runner {
	return &runner{engine: engine, own: own}
}

var (
	_ agent.Runner   = (*runner)(nil)
	_ agent.Expecter = (*runner)(nil)
)

func (r *runner) Expect() { r.engine.Expect() }

func (r *runner) Image(ctx context.Context, p *oci.Pull, progress func(api.PullProgress)) (agent.ImageInfo, error) {
	req := pullRequest(p)
	req.Admit = admission(verify.File, p.Image)
	image, err := r.engine.Images().Pull(ctx, req, progress)
	if err != nil {
		return agent.ImageInfo{}, err
	}
	return agent.ImageInfo{
		Reference: image.Name, Digest: image.Digest, ID: image.ID, Pulled: !image.FromCache, Handle: image,
		SignedBy: signedBy(image.Accepted),
	}, nil
}

func (r *runner) Create(ctx context.Context, spec agent.CreateSpec) (agent.Created, error) {
	image, ok := spec.Image.Handle.(*pull.Image)
	if !ok {
		return agent.Created{}, &fault.Error{Code: fault.Internal, Op: "create container", Subject: spec.Container.Run,
			Reason: "its image did not come from this runner"}
	}
	// Before the node is looked at: a module that is loaded may bring a device.
	loaded, err := requirements(ctx, spec.Run, image)
	if err != nil {
		return agent.Created{}, err
	}
	node, err := rootfs.GatherNode()
	if err != nil {
		return agent.Created{}, err
	}
	in := runtime.CreateSpec{
		ID: spec.ID, RunID: spec.Container.Run, Run: spec.Run, Image: image, Node: node, Host: rootfs.Host(),
		Dir: spec.Dir, Previous: spec.Previous, Environ: spec.Environ, LogLimit: spec.LogLimit, Stdin: spec.Stdin,
	}
	if spec.TerminalSize != nil {
		in.Columns, in.Rows = spec.TerminalSize.Columns, spec.TerminalSize.Rows
	}
	if err := takeBefore(spec.Dir, r.own); err != nil {
		return agent.Created{}, dirError(container.Dir(spec.Dir).Before(), err)
	}
	created, err := r.engine.Create(ctx, in)
	if err != nil {
		return agent.Created{}, err
	}
	if err := writeSpec(spec.Dir, created.Plan); err != nil {
		return agent.Created{}, errors.Join(err, r.engine.Delete(context.WithoutCancel(ctx), spec.ID, spec.Dir))
	}
	grace := created.Plan.StopTimeout
	return agent.Created{
		Warnings: append(loaded, created.Plan.Warnings...), StopSignal: syscall.Signal(created.Plan.StopSignal),
		StopTimeout: &grace, Timeout: created.Plan.Timeout,
	}, nil
}

// requirements holds the node against what the image says that it needs; the operator's
// --label stands before the image's own. Modules are loaded for a container that could
// load any by itself, and for no other: an image's word is not enough for that.
func requirements(ctx context.Context, run *oci.Run, image *pull.Image) (loaded []string, err error) {
	label, own := run.Options.Labels[rootfs.RequiresLabel]
	if !own {
		label = image.Config.Config.Labels[rootfs.RequiresLabel]
	}
	return rootfs.Require(ctx, rootfs.RequireOptions{Image: image.Name, Label: label, Load: run.Options.Privileged})
}

// writeSpec keeps the runtime-spec where GET /v1/runs/{id}/spec finds it.
func writeSpec(dir string, plan *oci.Plan) error {
	data, err := json.Marshal(plan.Spec)
	if err == nil {
		err = os.WriteFile(container.Dir(dir).Spec(), data, 0o600)
	}
	if err != nil {
		return dirError(container.Dir(dir).Spec(), err)
	}
	return nil
}

// dirError is a file of the run's directory that cannot be written.
func dirError(path string, err error) error {
	return &fault.Error{Code: fault.Space, Op: "write", Subject: path, Err: err,
		Remedy: "Make room on the file system that holds the run directory"}
}

func (r *runner) Start(ctx context.Context, c agent.Container) (int, error) {
	return r.engine.Start(ctx, c.ID)
}

func (r *runner) Wait(ctx context.Context, c agent.Container) (agent.Exit, error) {
	return r.engine.Wait(ctx, c.ID, c.Dir)
}

func (r *runner) Signal(ctx context.Context, c agent.Container, sig syscall.Signal, all bool) error {
	return r.engine.Signal(ctx, c.ID, sig, all)
}

func (r *runner) Delete(ctx context.Context, c agent.Container) (agent.Leftovers, error) {
	if err := r.engine.Delete(ctx, c.ID, c.Dir); err != nil || c.Dir == "" {
		return agent.Leftovers{}, err
	}
	return leftSince(c.Dir, r.own), nil
}

func (r *runner) Existing(ctx context.Context) ([]agent.Existing, error) {
	found, err := r.engine.Existing(ctx)
	if err != nil {
		return nil, err
	}
	var out []agent.Existing
	for _, c := range found {
		e := agent.Existing{
			Container: agent.Container{Run: c.RunID, ID: c.ID, Dir: c.Dir},
			State:     agent.ContainerStopped, Pid: c.Pid,
		}
		switch {
		case c.Running:
			e.State = agent.ContainerRunning
		case c.Created:
			e.State = agent.ContainerCreated
		}
		if exit, err := container.Dir(c.Dir).ReadExit(c.ID); err == nil {
			e.Exit = &exit
		}
		out = append(out, e)
	}
	return out, nil
}

func (r *runner) Stdin(ctx context.Context, c agent.Container) (io.WriteCloser, error) {
	return r.engine.Stdin(ctx, c.ID, c.Dir)
}

func (r *runner) Resize(ctx context.Context, c agent.Container, size api.TerminalSize) error {
	return r.engine.Resize(ctx, c.ID, size.Columns, size.Rows)
}

func (r *runner) Images(ctx context.Context) ([]api.Image, error) {
	images, err := r.engine.Images().List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Image, 0, len(images))
	for _, i := range images {
		image := api.Image{
			Name: i.Name, Digest: i.Digest, ID: i.ID, Size: i.Size, Platform: i.Platform, PulledAt: i.PulledAt,
		}
		if i.Config.Created != nil {
			image.CreatedAt = *i.Config.Created
		}
		out = append(out, image)
	}
	return out, nil
}

func (r *runner) RemoveImage(ctx context.Context, ref string) error {
	return r.engine.RemoveImage(ctx, ref)
}

// pullRequest is a pull's options as package pull takes them.
func pullRequest(p *oci.Pull) *pull.Request {
	name := p.Image.Name
	if p.Image.Digest != "" {
		name, _, _ = strings.Cut(name, "@")
	}
	if p.Image.Tag != "" {
		name = strings.TrimSuffix(name, ":"+p.Image.Tag)
	}
	var delay *time.Duration
	if p.RetryDelay > 0 {
		delay = &p.RetryDelay
	}
	var retry *int
	if p.Retry >= 0 {
		retry = &p.Retry
	}
	return &pull.Request{
		Original: p.Image.Original, Transport: pull.Transport(p.Image.Transport),
		Name: name, Tag: p.Image.Tag, Digest: p.Image.Digest, Path: p.Image.Path,
		Policy: pull.Policy(p.Policy), Creds: p.Creds, AuthFile: p.AuthFile, CertDir: p.CertDir, TLSVerify: p.TLSVerify,
		Retry: retry, RetryDelay: delay, Platform: pull.Platform(p.Platform),
	}
}
