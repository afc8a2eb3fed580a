package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/vm"
)

// TestDiskImageBuilder builds a Debian ramdisk with the element, by the real
// diskimage-builder, and boots it. It takes minutes, a mirror and root, so it has
// to be asked for with CAREEN_DIB_TEST=1. CAREEN_DIB_IMAGE names an image that was
// built before, without its suffix, to boot that one.
//
// The element that the real one depends on, ironic-python-agent-ramdisk, clones
// repositories; an empty one of that name stands in, on the real
// ironic-ramdisk-base, which makes the ramdisk.
func TestDiskImageBuilder(t *testing.T) {
	image := os.Getenv("CAREEN_DIB_IMAGE")
	if image == "" {
		if os.Getenv("CAREEN_DIB_TEST") == "" {
			t.Skip("builds a whole Debian: set CAREEN_DIB_TEST=1")
		}
		image = buildImage(t)
	}
	guest := vm.Start(t, vm.Config{
		Memory: 3072, Initramfs: image + ".initramfs", Kernel: vm.Kernel{Image: image + ".kernel"}, Network: vm.NetworkNone,
		Links: map[string]string{"/usr/bin/node": "careen"},
	})
	require.Equal(t, "systemd", guest.Await("[ -e /run/careen/ns/id ] && cat /proc/1/comm"))
	require.Equal(t, "active", guest.MustRun("systemctl is-active careen.service"))
	require.Equal(t, "careen", guest.MustRun("readlink /usr/bin/podman"))
	require.Contains(t, guest.MustRun("cat /etc/ironic-python-agent.d/ironic_python_agent.conf"), `allowed_containers="registry.example/a:1"`)
	p := prepare(t, guest, "")
	require.True(t, p.Layout.Entered && p.Layout.PivotRoot && p.Layout.Overlay && p.Layout.StoreTmpfs, "%+v", p.Layout)

	// Killed, the agent comes back into the same namespace.
	before := guest.MustRun("cat /run/careen/ns/id; systemctl show -p MainPID careen")
	guest.MustRun("systemctl kill -s KILL careen")
	guest.Await("[ \"$(cat /run/careen/ns/id; systemctl show -p MainPID careen)\" != '" + before + "' ] && systemctl is-active careen")
	require.Equal(t, strings.Fields(before)[0], guest.MustRun("cat /run/careen/ns/id"))
	guest.MustRun("systemctl stop careen")
}

// buildImage returns the path of what diskimage-builder made, without suffix.
func buildImage(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("debootstrap needs root")
	}
	dir := t.TempDir()
	venv := filepath.Join(dir, "venv")
	command(t, nil, "python3", "-m", "venv", venv)
	command(t, nil, filepath.Join(venv, "bin", "pip"), "install", "-q", "diskimage-builder", "ironic-python-agent-builder")

	elements := filepath.Join(dir, "elements")
	stand := filepath.Join(elements, "ironic-python-agent-ramdisk")
	require.NoError(t, os.MkdirAll(stand, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(stand, "element-deps"), []byte("ironic-ramdisk-base\n"), 0o600))
	ours, err := filepath.Abs(filepath.Join("..", "..", "rootfs", "dib", "ironic-python-agent-careen"))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(ours, filepath.Join(elements, "ironic-python-agent-careen")))
	require.NoError(t, os.Symlink(filepath.Join(venv, "share", "ironic-python-agent-builder", "dib", "ironic-ramdisk-base"),
		filepath.Join(elements, "ironic-ramdisk-base")))

	mirror, security := mirrors(t)
	out := filepath.Join(dir, "ramdisk")
	command(t, []string{
		"PATH=" + filepath.Join(venv, "bin") + ":" + os.Getenv("PATH"), "ELEMENTS_PATH=" + elements, "TMP_DIR=" + dir, "DIB_NO_TMPFS=1",
		"DIB_RELEASE=bookworm", "DIB_DISTRIBUTION_MIRROR=" + mirror, "DIB_DEBIAN_SECURITY_MIRROR=" + security, "DIB_CHECKSUM=0",
		"DIB_CAREEN_BINARY=" + buildNode(t), "DIB_ALLOWED_CONTAINERS=registry.example/a:1",
	}, "disk-image-create", "-o", out, "ironic-python-agent-careen", "debian-minimal")
	return out
}

// mirrors returns where this machine's apt gets Debian and its security updates.
func mirrors(t *testing.T) (debian, security string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "apt-get", "indextargets", "--format", "$(URI)", "Created-By: Packages").Output()
	require.NoError(t, err)
	find := func(suite string) string {
		found := regexp.MustCompile(`(?m)^(https?://\S+)/dists/` + suite + `/`).FindSubmatch(out)
		require.NotNil(t, found, "apt has no %s: %s", suite, out)
		return string(found[1])
	}
	return find("bookworm"), find("bookworm-security")
}

func command(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	for _, pair := range env {
		if path, ok := strings.CutPrefix(pair, "PATH="); ok {
			// The name is looked for in the new path, not in this process's.
			if found, err := exec.LookPath(filepath.Join(strings.Split(path, ":")[0], name)); err == nil {
				cmd.Path, cmd.Err = found, nil
			}
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out[max(0, len(out)-8000):])
	}
}
