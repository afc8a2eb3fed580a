package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/careen-project/careen/oci/gendoc"
	"github.com/careen-project/careen/rootfs"
)

// laterCases are refused by podman for what a spec does not show: an image that
// is not there, a command that the image has not.
var laterCases = []string{"neg-image-missing-never", "neg-command-missing"}

const (
	corpus     = "../oci/testdata/conformance"
	nodeName   = "metal-7"
	bridgePath = "/run/netns/bridge"
)

// TestSpecAnswersAsPodman gives every option set of podman's corpus to careen spec and
// compares what it prints with what podman made. The binary runs in a root of its own
// which has what the machine had that the corpus was taken on, so that nothing of this
// machine counts.
func TestSpecAnswersAsPodman(t *testing.T) {
	binary := careenBinary(t)
	if os.Geteuid() != 0 {
		t.Skip("a root with device nodes of its own needs root")
	}
	cases, err := conformance.Load(corpus, "/fixtures", "/scratch")
	require.NoError(t, err)
	different := map[string]bool{}
	for _, d := range gendoc.Differences() {
		different[d.Case] = true
	}
	n := newMadeUpNode(t, binary)
	compared, differ, later := 0, 0, 0
	for _, c := range cases {
		if slices.Contains(laterCases, c.Name) {
			later++
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			differences := n.compareVersions(t, c)
			if different[c.Name] {
				differ++
				require.NotEmpty(t, differences, "listed as different, but it is the same")
				return
			}
			compared++
			require.Empty(t, differences, "%s %v", c.RunOptions, c.Command)
		})
	}
	t.Logf("%d cases compared; %d differ on purpose, %d are noticed by a pull or the runtime", compared, differ, later)
	require.Greater(t, compared, 250)
}

// madeUpNode is a directory tree that is the root of careen spec.
type madeUpNode struct {
	root string
	// bounding are the capabilities that this machine has.
	bounding []string
}

func newMadeUpNode(t *testing.T, binary string) madeUpNode {
	t.Helper()
	n := madeUpNode{root: t.TempDir()}
	node, err := rootfs.GatherNode()
	require.NoError(t, err)
	n.bounding = node.Capabilities
	data, err := os.ReadFile(binary)
	require.NoError(t, err)
	n.write(t, "/careen", string(data), 0o755)
	for name, content := range map[string]string{
		"/etc/passwd": "root:x:0:0:root:/root:/bin/bash\n", "/etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
		"/etc/resolv.conf": "nameserver 10.9.9.9\n", "/etc/localtime": "zone", "/usr/share/zoneinfo/UTC": "zone",
		"/usr/share/zoneinfo/America/New_York": "zone", bridgePath: "",
		"/sys/devices/system/cpu/online": "0-3\n", "/sys/devices/system/node/online": "0\n",
		"/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "", "/sys/fs/cgroup/blkio/blkio.weight": "",
		"/sys/fs/cgroup/systemd/tasks": "", "/run/lock/.keep": "", "/tmp/.keep": "", "/var/log/.keep": "", "/lib/modules/.keep": "",
		"/etc/ssl/certs/.keep": "", "/scratch/chown/.keep": "", "/scratch/flagged/.keep": "", "/proc/.keep": "",
	} {
		n.write(t, name, content, 0o644)
	}
	require.NoError(t, os.CopyFS(n.path("/fixtures"), os.DirFS(filepath.Join(corpus, "fixtures"))))
	for link, target := range map[string]string{"/fixtures/devlink": "/dev/null", "/fixtures/dirlink": "dir"} {
		require.NoError(t, os.RemoveAll(n.path(link)))
		require.NoError(t, os.Symlink(target, n.path(link)))
	}
	for _, dir := range []string{"/dev/pts", "/dev/shm", "/dev/cpu"} {
		require.NoError(t, os.MkdirAll(n.path(dir), 0o755))
	}
	for name, minor := range map[string]int{"null": 3, "zero": 5, "full": 7, "random": 8, "kmsg": 11} {
		n.device(t, "/dev/"+name, unix.S_IFCHR, 1, minor)
	}
	for name, minor := range map[string]int{"kvm": 232, "loop-control": 237, "fuse": 229} {
		n.device(t, "/dev/"+name, unix.S_IFCHR, 10, minor)
	}
	n.device(t, "/dev/tty", unix.S_IFCHR, 5, 0)
	n.device(t, "/dev/console", unix.S_IFCHR, 5, 1)
	n.device(t, "/dev/pts/0", unix.S_IFCHR, 136, 0)
	for i := range 64 {
		n.device(t, fmt.Sprintf("/dev/tty%d", i), unix.S_IFCHR, 4, i)
	}
	for i := range 8 {
		n.device(t, fmt.Sprintf("/dev/loop%d", i), unix.S_IFBLK, 7, i)
	}
	return n
}

func (n madeUpNode) path(name string) string { return filepath.Join(n.root, name) }

func (n madeUpNode) write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(n.path(name)), 0o755))
	require.NoError(t, os.WriteFile(n.path(name), []byte(content), mode))
}

func (n madeUpNode) device(t *testing.T, name string, kind uint32, major, minor int) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(n.path(name)), 0o755))
	if _, err := os.Lstat(n.path(name)); err == nil {
		return
	}
	require.NoError(t, unix.Mknod(n.path(name), kind|0o660, int(unix.Mkdev(uint32(major), uint32(minor)))))
}

// compareVersions runs a case for both cgroup versions. A case without a network gets a
// namespace of its own on v1 and none on v2; package oci runs both with both.
func (n madeUpNode) compareVersions(t *testing.T, c conformance.Case) []string {
	var differences []string
	for i, version := range []string{"v1", "v2"} {
		networks := c.Networks(bridgePath)
		if want := c.Wanted(version); want != nil {
			differences = append(differences, n.compare(t, c, version, networks[min(i, len(networks)-1)], want)...)
		}
	}
	return differences
}

// compare runs a case and returns what differs from podman.
func (n madeUpNode) compare(t *testing.T, c conformance.Case, version, network string, want map[string]any) []string {
	words := []string{"spec", "--image-config=" + n.imageConfig(t, c), "--rootfs=" + n.imageRoot(t, c), "--cgroup", version}
	runWords := append([]string{}, c.Flags...)
	if network != "" {
		runWords = append([]string{network}, runWords...)
	}
	if c.Image != "" {
		runWords = append(append(runWords, c.Image), c.Command...)
	}
	var out, stderr bytes.Buffer
	cmd := n.command(t, c, append(words, runWords...))
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if refused, _ := want["error"].(bool); refused {
		return compareRefusal(want, cmd.ProcessState.ExitCode(), out.String(), stderr.String())
	}
	if err != nil {
		return []string{"podman accepts it: " + stderr.String()}
	}
	if want["process"] == nil {
		return nil
	}
	var spec specs.Spec
	require.NoError(t, json.Unmarshal(out.Bytes(), &spec))
	n.giveCapabilities(spec.Process.Capabilities)
	run, err := oci.ParseRun(runWords, oci.Caller{Environ: c.HostEnv, WorkDir: "/fixtures"})
	require.NoError(t, err)
	conformance.Adjust(want, network, run)
	// What podman's inspection says of the container, and the files, are not in a spec.
	delete(want, "container")
	delete(want, "files")
	result := conformance.Result{
		Spec: &spec, Run: run, ID: strings.Repeat("0", 64), Hostname: nodeName, BridgeNS: bridgePath,
		RunDir: rootfs.DefaultRunDir + "/runs/RUN", VolumeDir: rootfs.DefaultStoreDir + "/volumes",
	}
	got := result.Normalise(want)
	got["mounts"] = withoutControl(got["mounts"])
	return conformance.Diff("", want, got)
}

func compareRefusal(want map[string]any, code int, stdout, stderr string) []string {
	switch {
	case code == 0:
		return []string{"podman refuses it: " + fmt.Sprint(want["stderr"])}
	case float64(code) != want["exit_code"]:
		return []string{fmt.Sprintf("exit code %d, podman's is %v: %s", code, want["exit_code"], stderr)}
	case stdout != "" || !strings.HasPrefix(stderr, "careen: cannot "):
		return []string{"no error as it should be: " + stdout + stderr}
	}
	return nil
}

// command is careen in the made-up root, with mounts and a node name of its own.
func (n madeUpNode) command(t *testing.T, c conformance.Case, words []string) *exec.Cmd {
	t.Helper()
	script := "mount --bind /proc '" + n.path("/proc") + "'\n"
	for name, what := range c.Devices {
		var kind string
		var major, minor int
		if found, _ := fmt.Sscanf(what, "%1s %d:%d", &kind, &major, &minor); found == 3 {
			n.device(t, name, map[string]uint32{"b": unix.S_IFBLK, "c": unix.S_IFCHR}[kind], major, minor)
		}
	}
	for name, flags := range c.Mounts {
		dir := n.path(name)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		script += fmt.Sprintf("mount --bind '%s' '%s' && mount -o remount,bind,%s '%s'\n", dir, dir, strings.Join(flags, ","), dir)
	}
	script += "hostname " + nodeName + "\nunset PWD OLDPWD\nexec unshare --root='" + n.root + "' --wd=/fixtures /careen \"$@\"\n"
	cmd := exec.Command("unshare", append([]string{"--mount", "--uts", "sh", "-ec", script, "sh"}, words...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	for key, value := range c.HostEnv {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	return cmd
}

// giveCapabilities makes full sets of those that are full on this machine, as the
// corpus does: root may lack capabilities here.
func (n madeUpNode) giveCapabilities(caps *specs.LinuxCapabilities) {
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted, &caps.Inheritable, &caps.Ambient} {
		full := true
		for _, name := range n.bounding {
			full = full && slices.Contains(*set, name)
		}
		if full {
			*set = conformance.AllCapabilities()
		}
	}
}

// withoutControl takes out the mount by which a step talks to careen.
func withoutControl(mounts any) any {
	return slices.DeleteFunc(mounts.([]any), func(m any) bool {
		return m.(map[string]any)["destination"] == "/run/careen"
	})
}

func (n madeUpNode) imageConfig(t *testing.T, c conformance.Case) string {
	t.Helper()
	image := c.Config.Image()
	image.Architecture, image.OS = "amd64", "linux"
	data, err := json.Marshal(image)
	require.NoError(t, err)
	name := "/images/" + c.Name + ".json"
	n.write(t, name, string(data), 0o644)
	return name
}

func (n madeUpNode) imageRoot(t *testing.T, c conformance.Case) string {
	t.Helper()
	root := "/images/" + c.Name
	for _, dir := range append([]string{"/bin", "/tmp", c.Config.WorkDir}, c.Config.Dirs...) {
		require.NoError(t, os.MkdirAll(n.path(root+"/"+dir), 0o755))
	}
	for name, target := range c.Config.Symlinks {
		require.NoError(t, os.MkdirAll(filepath.Dir(n.path(root+name)), 0o755))
		if err := os.Symlink(target, n.path(root+name)); err != nil {
			require.ErrorIs(t, err, os.ErrExist)
		}
	}
	for name, content := range c.Config.Files {
		n.write(t, root+name, content, 0o644)
	}
	return root
}

// TestExplainWithoutTheNode: a runbook is reviewed where the node's files, devices and
// sockets are not, and without the image.
func TestExplainWithoutTheNode(t *testing.T) {
	explain := func(words ...string) (string, int) {
		cmd := exec.Command(careenBinary(t), append([]string{"explain"}, words...)...)
		out, _ := cmd.CombinedOutput()
		return strings.Join(strings.Fields(string(out)), " "), cmd.ProcessState.ExitCode()
	}
	out, code := explain("-v", "/no/such/../docker.sock:/run/docker.sock", "--mount=type=bind,src=/run/docker.sock,dst=/sock", "--user=fw:flash",
		"--device=/dev/none0:/dev/sda", "--env-file=/none.env", "--workdir=/opt/fw", "--pid=host", "registry.invalid/fw:1", "--update")
	require.Zero(t, code, out)
	for _, text := range []string{
		"--pid=host: the container sees all processes", "through this socket the container can start any", "Assumed, not checked here:",
		"/dev/none0 is not on this machine", "/none.env is not on this machine", "the id of the user fw is invented",
	} {
		require.Contains(t, out, text)
	}
	out, code = explain("--memory=x", "--volume=/a:b", "registry.invalid/fw:1")
	require.Equal(t, oci.ExitEngine, code)
	require.Contains(t, out, "--memory=x")
	require.Contains(t, out, "--volume=/a:b")
}

// careenBinary is the binary under test.
func careenBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CAREEN_BINARY")
	if path == "" {
		path = "../bin/careen"
	}
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no binary to test at %s: run make build", path)
	}
	return path
}
