package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/careen-project/careen/runtime"
	"github.com/careen-project/careen/runtime/image"
)

// top reads what an OCI layout holds.
func top(dir string) (ocispec.Descriptor, error) {
	var index ocispec.Index
	body, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(body, &index)
	}
	if err == nil && len(index.Manifests) != 1 {
		err = fmt.Errorf("%s holds %d images", dir, len(index.Manifests))
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return index.Manifests[0], nil
}

// layersOf returns the files of an image's layers.
func layersOf(dir string) ([]string, error) {
	desc, err := top(dir)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	body, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", desc.Digest.Encoded()))
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	var files []string
	for _, l := range m.Layers {
		files = append(files, filepath.Join(dir, "blobs/sha256", l.Digest.Encoded()))
	}
	return files, err
}

// openEngine embeds containerd as the agent does, on a store in memory.
func openEngine(ctx context.Context, root string) (*runtime.Engine, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"root", "state"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return nil, err
		}
	}
	return runtime.Open(ctx, runtime.Config{Root: filepath.Join(root, "root"), State: filepath.Join(root, "state"),
		Binary: binary, StoreInMemory: true})
}

// pullOnce pulls images at once, in a process of its own that has nothing but
// the puller and its containerd. It prints a usage.
func pullOnce(args []string) error {
	flags := flag.NewFlagSet("pull", flag.ContinueOnError)
	root := flags.String("root", "", "store")
	profile := flags.String("cpuprofile", "", "write a profile of the pull")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx := context.Background()
	engine, err := openEngine(ctx, *root)
	if err != nil {
		return err
	}
	defer engine.Close()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	no := false
	return report(flags.Args(), func(ref string) error {
		req := &image.Request{Original: ref, TLSVerify: &no}
		if dir, ok := strings.CutPrefix(ref, "oci:"); ok {
			req.Transport, req.Path = image.OCI, dir
		} else {
			cut := strings.LastIndex(ref, ":")
			req.Name, req.Tag = ref[:cut], ref[cut+1:]
		}
		_, err := engine.Puller().Pull(ctx, req, nil)
		return err
	})
}

// pullPlain is containerd's own pull.
func pullPlain(args []string) error {
	flags := flag.NewFlagSet("containerd", flag.ContinueOnError)
	root := flags.String("root", "", "store")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx := namespaces.WithNamespace(context.Background(), "bench")
	engine, err := openEngine(ctx, *root)
	if err != nil {
		return err
	}
	defer engine.Close()
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts))})
	return report(flags.Args(), func(ref string) error {
		// What client.Pull with unpacking does, but for asking a daemon's
		// introspection service, which the embedded one does not have.
		ctx, done, err := engine.Client().WithLease(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = done(ctx) }()
		unpacker, err := unpack.NewUnpacker(ctx, engine.Client().ContentStore(), unpack.WithUnpackPlatform(unpack.Platform{
			Platform: platforms.All, SnapshotterKey: "overlayfs",
			Snapshotter: engine.Client().SnapshotService("overlayfs"), Applier: engine.Client().DiffService(),
		}))
		if err != nil {
			return err
		}
		_, err = engine.Client().Fetch(ctx, ref, containerd.WithResolver(resolver), containerd.WithPlatformMatcher(platforms.Default()),
			containerd.WithImageHandlerWrapper(unpacker.Unpack))
		_, unpackErr := unpacker.Wait()
		return errors.Join(err, unpackErr)
	})
}

// report pulls all images at once and prints what that took.
func report(refs []string, one func(ref string) error) error {
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	var group sync.WaitGroup
	errs := make([]error, len(refs))
	start := time.Now()
	for i, ref := range refs {
		group.Go(func() { errs[i] = one(ref) })
	}
	group.Wait()
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	spent := func(u syscall.Rusage) float64 {
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	return json.NewEncoder(os.Stdout).Encode(usage{Seconds: took.Seconds(), Processor: spent(after) - spent(before), PeakRSS: after.Maxrss << 10})
}
