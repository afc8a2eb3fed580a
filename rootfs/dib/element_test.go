package dib_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const element = "ironic-python-agent-careen"

// image is a directory that a build has as the ramdisk's root.
type image struct {
	t    *testing.T
	tmp  string
	root string
}

func newImage(t *testing.T, files ...string) *image {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("installing files as root needs root")
	}
	tmp := t.TempDir()
	i := &image{t: t, tmp: tmp, root: filepath.Join(tmp, "mnt")}
	for _, file := range append(files, "usr/bin/env") {
		path := filepath.Join(i.root, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, nil, 0o755))
	}
	return i
}

// run runs the element's scripts as diskimage-builder does: each on its own, in
// the order of their names, with the variables that the operator set.
func (i *image) run(env ...string) (string, error) {
	i.t.Helper()
	return i.runWith(func(*exec.Cmd, string) {}, env...)
}

// runWith has a test change how each script is started; bin is the first directory of
// its PATH.
func (i *image) runWith(change func(cmd *exec.Cmd, bin string), env ...string) (string, error) {
	i.t.Helper()
	bin := filepath.Join(i.tmp, "bin")
	require.NoError(i.t, os.MkdirAll(bin, 0o755))
	// The scripts call sudo, which a machine where all is root may not have.
	require.NoError(i.t, os.WriteFile(filepath.Join(bin, "sudo"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755))
	scripts, err := filepath.Glob(filepath.Join(element, "pre-finalise.d", "[0-9]*"))
	require.NoError(i.t, err)
	require.Len(i.t, scripts, 3)
	var all strings.Builder
	for _, script := range scripts {
		path, err := filepath.Abs(script)
		require.NoError(i.t, err)
		cmd := exec.CommandContext(i.t.Context(), path)
		cmd.Env = append([]string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "TMP_BUILD_DIR=" + i.tmp}, env...)
		change(cmd, bin)
		out, err := cmd.CombinedOutput()
		all.Write(out)
		if err != nil {
			return all.String(), err
		}
	}
	return all.String(), nil
}

func (i *image) must(env ...string) string {
	i.t.Helper()
	out, err := i.run(env...)
	require.NoError(i.t, err, out)
	return out
}

func (i *image) read(path string) string {
	i.t.Helper()
	data, err := os.ReadFile(filepath.Join(i.root, path))
	require.NoError(i.t, err)
	return string(data)
}

func (i *image) link(path string) string {
	i.t.Helper()
	target, err := os.Readlink(filepath.Join(i.root, path))
	require.NoError(i.t, err)
	return target
}

// binary makes what the element takes for a static program.
func binary(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "careen")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
	return path
}

const staticELF = "\x7fELF and so on"

const configuration = "etc/ironic-python-agent.d/ironic_python_agent.conf"

func TestDefaults(t *testing.T) {
	i := newImage(t, "usr/lib/systemd/systemd")
	i.must("DIB_CAREEN_BINARY=" + binary(t, staticELF))
	require.Equal(t, `[container]
allow_arbitrary_containers="false"
allowed_containers=""
container_steps_file="/etc/ironic-python-agent.d/mysteps.yaml"
runner="podman"
pull_options="--tls-verify=true"
run_options="--rm,--network=host,--tls-verify=true"
`, i.read(configuration))
	require.Equal(t, "[engine]\nno_pivot_root = true\n", i.read("etc/containers/containers.conf"))
	require.Equal(t, staticELF, i.read("usr/bin/careen"))
	require.Equal(t, "careen", i.link("usr/bin/podman"))
	require.Equal(t, "/etc/systemd/system/careen.service", i.link("etc/systemd/system/multi-user.target.wants/careen.service"))
	require.NoFileExists(t, filepath.Join(i.root, "etc/ironic-python-agent.d/mysteps.yaml"), "an absent steps file is no failure")
	// The same build twice is the same image.
	i.must("DIB_CAREEN_BINARY=" + binary(t, staticELF))
}

func TestVariables(t *testing.T) {
	i := newImage(t, "usr/lib/systemd/systemd")
	steps := filepath.Join(t.TempDir(), "steps.yaml")
	require.NoError(t, os.WriteFile(steps, []byte("steps: []\n"), 0o600))
	i.must("DIB_CAREEN_BINARY="+binary(t, staticELF), "DIB_ALLOW_ARBITRARY_CONTAINERS=true",
		"DIB_ALLOWED_CONTAINERS=registry.example/a:1,docker://registry.example/b", "DIB_CONTAINER_STEPS_FILE=/etc/other.yaml",
		"DIB_RUNNER=docker", "DIB_PULL_OPTIONS=--tls-verify=false  --quiet", "DIB_RUN_OPTIONS= --rm, --network=host --env=A=*",
		"DIB_STEPS_FILE_PATH="+steps, "DIB_IPA_PODMAN_CONF_FILE="+i.root+"/etc/elsewhere.conf", "DIB_CAREEN_CONFIG_FILE="+steps)
	require.Equal(t, `[container]
allow_arbitrary_containers="true"
allowed_containers="registry.example/a:1,docker://registry.example/b"
container_steps_file="/etc/other.yaml"
runner="docker"
pull_options="--tls-verify=false,--quiet"
run_options="--rm,--network=host,--env=A=*"
`, i.read(configuration))
	require.Equal(t, "steps: []\n", i.read("etc/ironic-python-agent.d/mysteps.yaml"))
	require.Equal(t, "steps: []\n", i.read("etc/careen/careen.toml"))
	require.FileExists(t, filepath.Join(i.root, "etc/elsewhere.conf"))
	require.Equal(t, "careen", i.link("usr/bin/docker"))
	require.NoFileExists(t, filepath.Join(i.root, "usr/bin/podman"))
}

func TestServices(t *testing.T) {
	for _, tt := range []struct{ name, has, env, path, target string }{
		{"systemd with a split /usr", "lib/systemd/systemd", "", "etc/systemd/system/multi-user.target.wants/careen.service", "/etc/systemd/system/careen.service"},
		{"openrc", "sbin/openrc-run", "", "etc/runlevels/default/careen", "/etc/init.d/careen"},
		{"no init system", "bin/sh", "", "careen-init", "/usr/bin/careen"},
		{"as told", "usr/lib/systemd/systemd", "DIB_CAREEN_SERVICE=openrc", "etc/runlevels/default/careen", "/etc/init.d/careen"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newImage(t, tt.has)
			i.must("DIB_CAREEN_BINARY="+binary(t, staticELF), tt.env)
			require.Equal(t, tt.target, i.link(tt.path))
		})
	}
}

// TestBases runs the element on roots of the shape that each distribution gives them,
// with no network and no program but the few that copy and write files: it cannot
// matter which packages, or which package manager, a base has.
func TestBases(t *testing.T) {
	systemd := "usr/lib/systemd/systemd"
	for _, base := range []struct {
		name  string
		files []string
		links map[string]string
	}{
		{"Debian", []string{systemd, "usr/bin/apt-get", "usr/bin/dpkg"}, merged},
		{"Ubuntu", []string{systemd, "usr/bin/apt-get", "etc/netplan/50-cloud-init.yaml"}, merged},
		{"CentOS Stream", []string{systemd, "usr/bin/dnf", "usr/bin/rpm", "etc/selinux/config"}, merged},
		{"Fedora", []string{systemd, "usr/bin/dnf5", "usr/bin/rpm"},
			map[string]string{"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "usr/sbin": "bin"}},
		{"openSUSE", []string{systemd, "usr/bin/zypper", "usr/etc/login.defs", "usr/lib/sysimage/rpm/Packages.db"}, merged},
	} {
		t.Run(base.name, func(t *testing.T) {
			i := newImage(t, base.files...)
			for name, target := range base.links {
				require.NoError(t, os.MkdirAll(filepath.Join(i.root, filepath.Dir(name)), 0o755))
				require.NoError(t, os.Symlink(target, filepath.Join(i.root, name)))
			}
			before := i.tree()
			out, err := i.runWith(func(cmd *exec.Cmd, bin string) {
				for _, program := range []string{"bash", "dirname", "grep", "head", "install", "ln", "mkdir", "tail", "tee"} {
					path, err := exec.LookPath(program)
					require.NoError(t, err)
					_ = os.Symlink(path, filepath.Join(bin, program)) // there from the script before
				}
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
				cmd.Path, cmd.Args = "/bin/bash", append([]string{"/bin/bash"}, cmd.Args...)
				cmd.Env[0] = "PATH=" + bin
			}, "DIB_CAREEN_BINARY="+binary(t, staticELF))
			require.NoError(t, err, out)
			added := i.tree()
			for path := range before {
				delete(added, path)
			}
			require.Equal(t, map[string]string{
				"usr/bin/careen": "-rwxr-xr-x", "usr/bin/podman": "careen",
				"etc/systemd/system/careen.service":                         "-rw-r--r--",
				"etc/systemd/system/multi-user.target.wants/careen.service": "/etc/systemd/system/careen.service",
				"etc/ironic-python-agent.d/ironic_python_agent.conf":        "-rw-r--r--",
				"etc/containers/containers.conf":                            "-rw-r--r--",
			}, added)
		})
	}
}

// merged are the links of a root whose programs and libraries are all below /usr.
var merged = map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

// tree returns the files of the image with their modes, and links with their targets.
func (i *image) tree() map[string]string {
	i.t.Helper()
	found := map[string]string{}
	require.NoError(i.t, filepath.WalkDir(i.root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(i.root, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			found[name] = info.Mode().String()
		}
		if entry.Type() == os.ModeSymlink {
			found[name], err = os.Readlink(path)
		}
		return err
	}))
	return found
}

func TestRefused(t *testing.T) {
	good := "DIB_CAREEN_BINARY=" + binary(t, staticELF)
	for _, tt := range []struct {
		name, has string
		env       []string
		want      string
	}{
		{"no binary", "", nil, "no binary"},
		{"a binary that is not there", "", []string{"DIB_CAREEN_BINARY=/absent"}, "no binary at /absent"},
		{"a script", "", []string{"DIB_CAREEN_BINARY=" + binary(t, "#!/bin/sh")}, "not a program"},
		{"a linked binary", "", []string{"DIB_CAREEN_BINARY=" + binary(t, staticELF+"\x00/lib64/ld-linux-x86-64.so.2\x00")}, "not static"},
		{"a podman in the image", "usr/bin/podman", []string{good}, "podman of its own"},
		{"an unknown service", "", []string{good, "DIB_CAREEN_SERVICE=runit"}, "runit is not one of"},
		{"an unknown runner", "", []string{good, "DIB_RUNNER=crictl"}, "crictl is not podman or docker"},
		{"a quote that ends the value", "", []string{good, `DIB_ALLOWED_CONTAINERS=a" b="c`}, "double quote"},
		{"a line that would be an option", "", []string{good, "DIB_ALLOWED_CONTAINERS=a\nallow_arbitrary_containers=true"}, "line break"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var files []string
			if tt.has != "" {
				files = append(files, tt.has)
			}
			out, err := newImage(t, files...).run(tt.env...)
			require.Error(t, err)
			require.Contains(t, out, tt.want)
		})
	}
	t.Run("a podman that is to stay", func(t *testing.T) {
		newImage(t, "usr/bin/podman").must(good, "DIB_CAREEN_PODMAN_LINK=false")
	})
	t.Run("a steps file that is not there", func(t *testing.T) {
		require.Contains(t, newImage(t).must(good, "DIB_STEPS_FILE_PATH=/absent.yaml"), "WARNING")
	})
}

// TestSameFiles keeps the element's copies equal to those that careen appends.
func TestSameFiles(t *testing.T) {
	for _, name := range []string{"careen.service", "careen.openrc"} {
		a, err := os.ReadFile(filepath.Join(element, "pre-finalise.d", "careen-files", name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join("..", "ramdisk", "files", name))
		require.NoError(t, err)
		require.Equal(t, string(b), string(a))
	}
}
