package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

// Kernel is a kernel on the host that a guest can boot.
type Kernel struct {
	// Image is the file to boot, as in /boot/vmlinuz-6.1.0-1-cloud-amd64.
	Image string
	// Release is what uname -r prints, as in 6.1.0-1-cloud-amd64.
	Release string
	// Modules is the directory with modules.dep. It may be "" for a guest that boots
	// its own image, without the harness's network.
	Modules string
}

// FindKernel returns the newest of Debian's cloud kernels below the directory
// that CAREEN_VM_ROOT names, or below /.
func FindKernel() (Kernel, error) {
	root := os.Getenv("CAREEN_VM_ROOT")
	if root == "" {
		root = "/"
	}
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*-cloud-*"))
	if err != nil {
		return Kernel{}, err
	}
	sort.Strings(images)
	slices.Reverse(images)
	for _, image := range images {
		release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
		modules := filepath.Join(root, "lib", "modules", release)
		if _, err := os.Stat(filepath.Join(modules, "modules.dep")); err == nil {
			return Kernel{Image: image, Release: release, Modules: modules}, nil
		}
	}
	return Kernel{}, fmt.Errorf("find a kernel: no boot/vmlinuz-*-cloud-* with modules below %s", root)
}

// files returns the module files that names need, in the order to load them, as
// paths below the modules directory. A module that is built in needs none.
func (k Kernel) files(names ...string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	data, err := os.ReadFile(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{}
	for _, line := range strings.Split(string(data), "\n") {
		if file, deps, ok := strings.Cut(line, ":"); ok {
			needs[moduleName(file)] = append([]string{file}, strings.Fields(deps)...)
		}
	}
	builtin, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		list, ok := needs[moduleName(name)]
		if !ok && !strings.Contains(string(builtin), "/"+name+".ko") {
			return nil, fmt.Errorf("find module %s: not in %s", name, k.Modules)
		}
		// A dependency stands after what needs it.
		for i := len(list) - 1; i >= 0; i-- {
			if !slices.Contains(files, list[i]) {
				files = append(files, list[i])
			}
		}
	}
	return files, nil
}

func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

const (
	qemuCommand = "qemu-system-x86_64"
	busyboxName = "busybox"
)

// Missing returns what this machine lacks for guests, one line each.
func Missing() []string {
	var missing []string
	for _, command := range []string{qemuCommand, busyboxName} {
		if _, err := exec.LookPath(command); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if _, err := FindKernel(); err != nil {
		missing = append(missing, err.Error())
	}
	return missing
}

// Require skips the test on a machine that lacks what guests need, and fails it
// where tests must not be skipped: in CI.
func Require(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a virtual machine, not with -short")
	}
	missing := Missing()
	if len(missing) == 0 {
		return
	}
	text := "needs the Debian packages of integration/vm/packages.txt: " + strings.Join(missing, "; ")
	if os.Getenv("CI") != "" {
		t.Fatal(text)
	}
	t.Skip(text)
}
