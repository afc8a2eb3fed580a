package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type unixRusage = syscall.Rusage

// machine names what the figures were measured on.
func machine() string {
	model := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(info), "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d x %s, Linux %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)))
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
