package oci

import (
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/careen-project/careen/agent/fault"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// workDir makes sure that the working directory exists: a missing one that the
// operator named is an error, the image's own is created.
func (b *builder) workDir() error {
	cwd := b.spec.Process.Cwd
	remedy := "Name a directory of the image with --workdir"
	if !path.IsAbs(cwd) {
		return exitFault(fault.BadOption, ExitDenied, b.in.Image.Reference,
			fmt.Sprintf("the working directory %s is not an absolute path", quote(cwd)), remedy, fs.ErrNotExist)
	}
	if b.in.Image.Files == nil || b.onMount(cwd, b.mounts) {
		return nil
	}
	resolved, err := b.in.Image.Files.Resolve(cwd)
	if err != nil {
		resolved = cwd
	}
	info, err := b.in.Image.Files.Stat(resolved)
	switch {
	case err == nil && info.IsDir(), b.onMount(resolved, b.bound()):
		return nil
	case err == nil:
		return exitFault(fault.BadOption, ExitDenied, b.in.Image.Reference,
			fmt.Sprintf("the working directory %s is not a directory", quote(cwd)), remedy, fs.ErrExist)
	case b.o.WorkDir != "":
		return exitFault(fault.BadOption, ExitDenied, b.in.Image.Reference,
			fmt.Sprintf("the working directory %s is not in the image", quote(cwd)), remedy, err)
	}
	b.plan.RootDirs = append(b.plan.RootDirs, resolved)
	return nil
}

// bound are the mounts that podman looks into when a link leads there: not those in
// memory.
func (b *builder) bound() []specs.Mount {
	return slices.DeleteFunc(slices.Clone(b.mounts), func(m specs.Mount) bool { return m.Type == "tmpfs" })
}

// onMount reports whether a path is, is inside, or is above a mount: all three
// exist once the mounts are made.
func (b *builder) onMount(file string, mounts []specs.Mount) bool {
	file = path.Clean(file)
	for _, m := range mounts {
		destination := path.Clean(m.Destination)
		if below(file, destination) || below(destination, file) && file != "/" {
			return true
		}
	}
	return false
}
