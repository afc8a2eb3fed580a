package podmandiff

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// podman is a podman with a store of its own and a runtime that only keeps specs.
type podman struct {
	dir string
	// hostV2 is true where the machine itself has cgroup2.
	hostV2 bool
}

// capture is what podman made of one option set.
type capture struct {
	refused bool
	code    int
	stderr  string
	// spec is config.json; files are hosts, resolv.conf and hostname, and passwd and
	// group of the container's root.
	spec  map[string]any
	files map[string]string
}

// keepSpec is the OCI runtime: it copies what podman wrote and fails. conmon gives
// it no environment, so the place is filled in. It is called crun, since podman
// knows by that name that a runtime can do without cgroups.
const keepSpec = `#!/bin/sh
bundle= previous= create=
for word in "$@"; do
	case "$previous" in --bundle|-b) bundle=$word ;; esac
	case "$word" in create) create=1 ;; esac
	previous=$word
done
[ -n "$create" ] || exit 0
out=@DIR@/capture
id=$(basename "$(dirname "$bundle")")
for name in hosts resolv.conf hostname; do
	cp "@DIR@/runroot/vfs-containers/$id/userdata/$name" $out/ 2>/dev/null
done
root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' "$bundle/config.json")
for name in passwd group; do
	cp "$root/etc/$name" $out/ 2>/dev/null
done
cp "$bundle/config.json" $out/config.json
exit 1
`

func newPodman(t *testing.T) *podman {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("podman as oracle needs root")
	}
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	if _, err := os.Stat("/usr/share/containers/containers.conf"); err != nil {
		t.Skip("podman has not the configuration that Debian ships")
	}
	// Not t.TempDir: what podman leaves behind it must not fail the test.
	dir, err := os.MkdirTemp("", "podmandiff-")
	require.NoError(t, err)
	p := &podman{dir: dir}
	// podman waits for the disk at every step of a container's life; memory is enough here.
	require.NoError(t, unix.Mount("tmpfs", p.dir, "tmpfs", 0, "size=512m"))
	t.Cleanup(p.end)
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs("/sys/fs/cgroup", &fs))
	p.hostV2 = fs.Type == unix.CGROUP2_SUPER_MAGIC
	shim := strings.ReplaceAll(keepSpec, "@DIR@", p.dir)
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "crun"), []byte(shim), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(p.dir, "capture"), 0o755))
	for _, image := range images {
		image.load(t, p)
	}
	return p
}

// end removes the store once nobody uses it: conmon calls podman to clean up after
// the test has got its answer, and that would make the directories anew.
func (p *podman) end() {
	for deadline := time.Now().Add(10 * time.Second); p.used() && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	_ = unix.Unmount(p.dir, unix.MNT_DETACH)
	_ = os.RemoveAll(p.dir)
}

// used reports whether a process has the store in its command line.
func (p *podman) used() bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(p.dir)) {
			return true
		}
	}
	return false
}

// commandTime is when a podman that hangs is killed, which then counts as refused
// and is tried again.
const commandTime = 2 * time.Minute

// command returns podman with its global options, in a mount namespace with
// cgroup2 if that is asked for.
func (p *podman) command(ctx context.Context, v2 bool, args ...string) *exec.Cmd {
	global := []string{
		"--root", filepath.Join(p.dir, "root"), "--runroot", filepath.Join(p.dir, "runroot"), "--tmpdir",
		filepath.Join(p.dir, "tmp"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
		"--runtime", filepath.Join(p.dir, "crun"),
	}
	args = append(global, args...)
	if !v2 || p.hostV2 {
		return exec.CommandContext(ctx, "podman", args...)
	}
	script := `mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec podman "$@"`
	return exec.CommandContext(ctx, "unshare", append([]string{"-m", "sh", "-c", script, "sh"}, args...)...)
}

// run gives one command line to podman. A container that podman failed to remove
// may hold its name; then all are removed first.
func (p *podman) run(t fataler, words []string, environ map[string]string, workDir string, v2 bool) capture {
	got := p.runOnce(t, words, environ, workDir, v2)
	if got.refused && strings.Contains(got.stderr, "is already in use") {
		ctx, cancel := context.WithTimeout(context.Background(), commandTime)
		defer cancel()
		_ = p.command(ctx, false, "rm", "--all", "--force", "--time=0").Run()
		got = p.runOnce(t, words, environ, workDir, v2)
	}
	return got
}

func (p *podman) runOnce(t fataler, words []string, environ map[string]string, workDir string, v2 bool) capture {
	out := filepath.Join(p.dir, "capture")
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatalf("reading captures: %v", err)
	}
	for _, entry := range entries {
		_ = os.Remove(filepath.Join(out, entry.Name()))
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	command := p.command(ctx, v2, append([]string{"run", "--rm"}, words...)...)
	command.WaitDelay = time.Second
	for name, value := range environ {
		command.Env = append(command.Env, name+"="+value)
	}
	command.Dir = workDir
	var stderr bytes.Buffer
	command.Stderr = &stderr
	_ = command.Run()
	got := capture{code: command.ProcessState.ExitCode(), stderr: stderr.String(), files: make(map[string]string)}
	content, err := os.ReadFile(filepath.Join(out, "config.json"))
	if err != nil {
		got.refused = true
		return got
	}
	if err := json.Unmarshal(content, &got.spec); err != nil {
		t.Fatalf("podman's config.json: %v", err)
	}
	for _, name := range []string{"hosts", "resolv.conf", "hostname", "passwd", "group"} {
		if content, err := os.ReadFile(filepath.Join(out, name)); err == nil {
			got.files[name] = string(content)
		}
	}
	return got
}

// fataler is what testing.T and rapid.T share.
type fataler interface {
	Fatalf(format string, args ...any)
}

// testImage is an image that both sides get.
type testImage struct {
	name   string
	config imageConfig
	// files maps a path to content; a path that ends in / is a directory, content
	// that begins with "-> " a link.
	files map[string]string
	root  string
}

type imageConfig struct {
	entrypoint, cmd, env, volumes []string
	workDir, user, stopSignal     string
	labels                        map[string]string
}

const passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n" +
	"svc:x:1000:1000:service user:/home/svc:/bin/sh\ndisktool:x:1001:6:disk tool:/:/bin/sh\n" +
	"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"

const group = "root:x:0:\ndaemon:x:1:\ndisk:x:6:svc\nkmem:x:15:\ndialout:x:20:svc,disktool\nvideo:x:44:svc\n" +
	"svc:x:1000:\nnogroup:x:65534:\n"

// Lines that other tools, or people, leave in such files.
const crookedPasswd = "# comment:x:1:1::/:\n\nroot:x:0:0:root:/root:/bin/sh\n1000:x:5:6:a number for a name:/n:/bin/sh\n" +
	"real:x:1000:1000::/real:/bin/sh\nshort:x:7\nnohome:x:8:9::\nbadid:x:abc:5::/:\n  spaced:x:11:11::/sp:/bin/sh\n" +
	"dup:x:13:13::/d1:\ndup:x:14:14::/d2:\nlast:x:99:98:last:/last:/bin/zsh"

const crookedGroup = "root:x:0:root\n# c:x:3:\n\ndisk:x:6:real,last\n6:x:66:real\nspaces:x:21:real, last ,dup\nshort:x:22\n" +
	"badid:x:zz:real\ndupg:x:24:\ndupg:x:25:real\n+::\ntail:x:26:last"

var images = []*testImage{
	{
		name:   "plain",
		config: imageConfig{cmd: []string{"/bin/true"}, env: []string{"PATH=/bin"}},
		files:  map[string]string{"/bin/true": "#!", "/tmp/": ""},
	},
	{
		name: "tool",
		config: imageConfig{
			entrypoint: []string{"/bin/fwtool", "--json"}, cmd: []string{"--help"}, workDir: "/work", stopSignal: "SIGINT",
			env:    []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "TOOL_VERSION=1.2.3", "EMPTY="},
			labels: map[string]string{"vendor": "acme"},
		},
		files: map[string]string{"/bin/fwtool": "#!", "/tmp/": "", "/etc/passwd": passwd, "/etc/group": group},
	},
	{
		name:   "user",
		config: imageConfig{cmd: []string{"/bin/sh"}, user: "svc", workDir: "/home/svc", env: []string{"HOME=/opt/svc"}},
		files: map[string]string{
			"/bin/sh": "#!", "/home/svc/": "", "/etc/passwd": passwd, "/etc/group": group, "/var/tmp/": "", "/run/": "",
			"/var/run": "-> /run", "/data": "-> var/tmp",
		},
	},
	{
		name:   "volumes",
		config: imageConfig{cmd: []string{"/sbin/init"}, volumes: []string{"/data", "/var/lib/db"}},
		files: map[string]string{
			"/sbin/init": "#!", "/data/seed": "x", "/root/": "", "/etc/passwd": passwd, "/etc/group": group,
			"/work/": "", "/etc/hosts": "192.0.2.1 image\n",
		},
	},
	{
		name:   "caps",
		config: imageConfig{cmd: []string{"/bin/x"}, labels: map[string]string{"io.containers.capabilities": "CHOWN,kill"}},
		files:  map[string]string{"/bin/x": "#!", "/etc/passwd": "root:x:0:0:root:/root:/bin/sh"},
	},
	{
		name: "odd",
		config: imageConfig{
			entrypoint: []string{"/bin/sh", "-c"}, cmd: []string{"echo hi"}, user: "1000:6", workDir: "/no/such/dir", stopSignal: "9",
			env:     []string{"HOME=", "TERM=vt100", "A=b=c", "SPACED=a b", "container=other", "HOSTNAME=image", "HTTP_PROXY=image"},
			volumes: []string{"/a/b/", "/tmp", "/etc/conf"},
			labels:  map[string]string{"io.containers.seccomp.profile": `{"defaultAction":"SCMP_ACT_LOG"}`, "a.b/c": "d=e"},
		},
		files: map[string]string{
			"/bin/sh": "#!", "/tmp/x": "", "/usr/lib/passwd": passwd, "/etc/passwd": "-> ../usr/lib/passwd", "/etc/group": group + "last:x:9:svc",
			"/home/svc/": "", "/opt": "-> /usr/opt", "/usr/opt/x": "",
		},
	},
	{
		name: "crooked",
		config: imageConfig{
			cmd: []string{"/bin/x"}, workDir: "/work", labels: map[string]string{"io.containers.seccomp.profile": "broken"},
		},
		files: map[string]string{
			"/bin/x": "#!", "/work/": "", "/var/tmp/": "", "/tmp": "-> var/tmp", "/run/": "", "/var/run": "-> ../run", "/var/log": "-> /log", "/loop": "-> loop",
			"/etc/passwd": crookedPasswd, "/etc/group": crookedGroup,
		},
	},
	{
		name:   "bare",
		config: imageConfig{},
		files:  map[string]string{"/x": ""},
	},
}

// reference is the image's name on both sides.
func (i *testImage) reference() string { return "localhost/" + i.name + ":1" }

// load makes the image's files and imports them into podman's store.
func (i *testImage) load(t *testing.T, p *podman) {
	t.Helper()
	i.root = filepath.Join(t.TempDir(), i.name)
	require.NoError(t, os.Mkdir(i.root, 0o755))
	for name, content := range i.files {
		file := filepath.Join(i.root, name)
		if strings.HasSuffix(name, "/") {
			require.NoError(t, os.MkdirAll(file, 0o755))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			require.NoError(t, os.Symlink(target, file))
			continue
		}
		require.NoError(t, os.WriteFile(file, []byte(content), 0o755))
	}
	archive := i.root + ".tar"
	output, err := exec.Command("tar", "-C", i.root, "-cf", archive, ".").CombinedOutput()
	require.NoError(t, err, string(output))
	args := []string{"import", "--quiet"}
	for _, change := range i.config.changes() {
		args = append(args, "--change", change)
	}
	output, err = p.command(t.Context(), false, append(args, archive, i.reference())...).CombinedOutput()
	require.NoError(t, err, string(output))
}

// changes writes the configuration as Dockerfile instructions.
func (c imageConfig) changes() []string {
	var out []string
	list := func(name string, words []string) {
		if words != nil {
			text, _ := json.Marshal(words)
			out = append(out, name+" "+string(text))
		}
	}
	list("ENTRYPOINT", c.entrypoint)
	list("CMD", c.cmd)
	for _, env := range c.env {
		out = append(out, "ENV "+env)
	}
	for _, volume := range c.volumes {
		out = append(out, "VOLUME "+volume)
	}
	for name, value := range c.labels {
		out = append(out, fmt.Sprintf("LABEL %s=%s", name, value))
	}
	for name, value := range map[string]string{"WORKDIR": c.workDir, "USER": c.user, "STOPSIGNAL": c.stopSignal} {
		if value != "" {
			out = append(out, name+" "+value)
		}
	}
	return out
}
