package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/careen-project/careen/runtime"
	"github.com/careen-project/careen/runtime/pull"
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

// result is what one pull took.
type result struct {
	Seconds float64
	PeakRSS int64 // bytes
}

// pullOnce is one cold pull in a process of its own: the embedded containerd as
// the agent has it, on an empty store. It prints a result.
func pullOnce(args []string) error {
	flags := flag.NewFlagSet("pull", flag.ContinueOnError)
	root := flags.String("root", "", "store")
	times := flags.Int("times", 1, "pulls at once")
	profile := flags.String("cpuprofile", "", "write a profile of the pull")
	if err := flags.Parse(args); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	ctx := context.Background()
	for _, dir := range []string{"root", "state"} {
		if err := os.MkdirAll(filepath.Join(*root, dir), 0o700); err != nil {
			return err
		}
	}
	engine, err := runtime.Open(ctx, runtime.Config{Root: filepath.Join(*root, "root"), State: filepath.Join(*root, "state"),
		Binary: binary, StoreInMemory: true})
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
	ref := flags.Arg(0)
	req := func() *pull.Request {
		if dir, ok := strings.CutPrefix(ref, "oci:"); ok {
			return &pull.Request{Original: ref, Transport: pull.OCI, Path: dir}
		}
		cut := strings.LastIndex(ref, ":")
		return &pull.Request{Original: ref, Name: ref[:cut], Tag: ref[cut+1:], TLSVerify: &no}
	}
	took, err := pullAll(*times, func(int) error {
		_, err := engine.Images().Pull(ctx, req(), nil)
		return err
	})
	if err != nil {
		return err
	}
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return json.NewEncoder(os.Stdout).Encode(result{Seconds: took.Seconds(), PeakRSS: usage.Maxrss << 10})
}
