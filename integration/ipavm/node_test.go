package ipavm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/ipa/images"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/integration/vm"
)

const (
	uuid  = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123"
	token = "tttttttttttttttttttttttttttttttttttttttt"
	// ipaPort is where IPA listens in the guest.
	ipaPort = 9999
	// patience limits each phase. The start of IPA on an emulated processor takes a quarter
	// of a minute on a machine without other work.
	patience = vm.Patience
)

// way is how IPA gets to careen.
type way struct {
	name, manager, path string
}

var ways = []way{
	// IPA's own manager, unchanged, and the link podman.
	{"dropin", "ContainerHardwareManager", "/opt/ipa"},
	// careen's manager. The link is there too, and the plugin above it.
	{"plugin", "CareenHardwareManager", "/opt/ipa:/opt/careen-ipa"},
}

// node is a guest with what is around it.
type node struct {
	t     *testing.T
	guest *vm.VM
	// registry is HOST:PORT as the guest sees it.
	registry string
	// api and agent are the host's ports of the conductor and of IPA.
	api, agent int
}

// boot makes the ramdisk, starts the registry and boots.
func boot(t *testing.T) *node {
	t.Helper()
	reg := registry.Start(t)
	images.Push(t, reg)
	_, port, err := net.SplitHostPort(reg.Host)
	require.NoError(t, err)
	n := &node{t: t, registry: "10.0.2.2:" + port, api: freePort(t), agent: freePort(t)}
	started := time.Now()
	n.guest = vm.Start(t, vm.Config{
		Memory: 3072, Initramfs: ramdisk(t), Init: "/careen-init", Load: []string{"overlay"}, Reboot: true,
		Forward: map[int]int{n.agent: ipaPort},
		Files: map[string][]byte{
			"/etc/ironic-python-agent.d/container.conf": []byte(conf),
			"/etc/ironic-python-agent.d/mysteps.yaml":   []byte(n.steps()),
		},
	})
	n.ready()
	t.Logf("careen is ready %.1f s after the start of QEMU", time.Since(started).Seconds())
	return n
}

// ready waits until the ramdisk's init is through and careen is ready.
func (n *node) ready() {
	n.t.Helper()
	n.until("[ -e /run/booted ] && careen doctor >/run/doctor && careen ps")
}

// conf is what the ramdisk's builder would have configured.
const conf = `[DEFAULT]
debug = true
disk_wait_attempts = 0
[container]
container_steps_file = /etc/ironic-python-agent.d/mysteps.yaml
pull_options = --tls-verify=false
run_options = --rm,--network=host
`

// steps is the steps file.
func (n *node) steps() string {
	var b strings.Builder
	b.WriteString("steps:\n")
	for _, s := range []struct{ name, image, options, reboot string }{
		{"flash", n.registry + "/ipa/ok:1", "--rm --privileged -v /dev:/dev", "false"},
		{"flash_and_reboot", n.registry + "/ipa/ok:1", "--rm", "true"},
		{"bad_options", n.registry + "/ipa/ok:1", "--rm --memory=plenty", "false"},
		{"no_registry", "10.0.2.2:1/ipa/ok:1", "--rm", "false"},
		{"long", n.registry + "/ipa/wait:1", "--rm -v /run/gate:/gate", "false"},
	} {
		fmt.Fprintf(&b, "  - {name: %s, image: %q, run_options: %q, pull_options: --tls-verify=false, interface: deploy, "+
			"priority: 0, reboot_requested: %s, abortable: true}\n", s.name, s.image, s.options, s.reboot)
	}
	return b.String()
}

// ramdisk returns the path of an initramfs with IPA and careen.
func ramdisk(t *testing.T) string {
	t.Helper()
	started := time.Now()
	cmd := exec.CommandContext(t.Context(), "./build-ramdisk.sh")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	base := strings.TrimSpace(string(out))
	image := filepath.Join(t.TempDir(), "ipa-careen.initramfs")
	out, err = exec.CommandContext(t.Context(), binary(t), "ramdisk", "append", "--base", base, "--output-file", image,
		"--unit", "init", "--link", "podman").CombinedOutput()
	require.NoError(t, err, string(out))
	t.Logf("ramdisk after %.1f s: %s", time.Since(started).Seconds(), strings.TrimSpace(string(out)))
	return image
}

func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CAREEN_BINARY")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "careen")
	}
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	_, err = os.Stat(path)
	require.NoError(t, err, "make build, or set CAREEN_BINARY")
	return path
}

// until waits for a condition in the guest, which is a shell script.
func (n *node) until(condition string) {
	n.t.Helper()
	n.guest.In(n.t).Await("{ " + condition + "; } || { tail -c 6000 /run/ipa.log; false; }")
}

// log returns the end of IPA's log.
func (n *node) log() string {
	out, _ := n.guest.Run("tail -c 6000 /run/ipa.log")
	return out
}

// startIPA starts ironic-python-agent.
func (n *node) startIPA(w way) {
	n.t.Helper()
	n.guest.MustRun("PYTHONPATH=" + w.path + ` setsid sh -c 'echo $$ >/run/ipa.pid
		exec python3 -c "from ironic_python_agent.cmd.agent import run; run()" "$@"' sh ` +
		"--config-dir=/etc/ironic-python-agent.d --api_url=http://10.0.2.2:" + strconv.Itoa(n.api) +
		" --agent_token=" + token + " </dev/null >>/run/ipa.log 2>&1 &")
}

// killIPA ends it as a crash does.
func (n *node) killIPA() {
	n.t.Helper()
	n.guest.MustRun("kill -9 $(cat /run/ipa.pid); while kill -0 $(cat /run/ipa.pid) 2>/dev/null; do sleep 0.1; done")
}

// image returns the URL of an image as a conductor has it.
func (n *node) image(name string) string { return "docker://" + n.registry + "/ipa/" + name + ":1" }

// step is an entry of the conductor's list.
type step struct {
	Step string         `json:"step"`
	Args map[string]any `json:"args,omitempty"`
	// Reboot is what the step's definition says; Ironic copies it from there.
	Reboot bool `json:"reboot_requested,omitempty"`
}

func (n *node) generic(name string) step {
	return step{Step: "generic_container_step", Args: map[string]any{"container_url": n.image(name)}}
}

// outcome is what the conductor prints.
type outcome struct {
	Advertised map[string][]map[string]any `json:"advertised"`
	Ended      []struct {
		Status  string `json:"status"`
		Result  any    `json:"result"`
		Details string `json:"details"`
	} `json:"ended"`
	Error string `json:"error"`
	// Logs is the path of what was collected, "" if nothing was.
	Logs string `json:"-"`
}

func (o outcome) statuses() []string {
	var all []string
	for _, e := range o.Ended {
		all = append(all, e.Status)
	}
	return all
}

// conductor is a phase that goes on.
type conductor struct {
	n       *node
	cmd     *exec.Cmd
	out     bytes.Buffer
	err     bytes.Buffer
	logs    string
	started time.Time
}

// conduct starts a conductor that wants steps executed in a phase. reboot is a
// command of the shell for steps that ask for it.
func (n *node) conduct(phase, reboot string, steps ...step) *conductor {
	n.t.Helper()
	list, err := json.Marshal(steps)
	require.NoError(n.t, err)
	policy, err := json.Marshal(map[string]any{
		"allowed_containers": []string{n.image("ok"), n.image("fail"), n.image("wait")},
		"pull_options":       "--tls-verify=false",
	})
	require.NoError(n.t, err)
	c := &conductor{n: n, logs: filepath.Join(n.t.TempDir(), "logs.tar.gz"), started: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), patience+time.Minute)
	n.t.Cleanup(cancel)
	args := []string{
		"-m", "conductor", "--listen", "127.0.0.1:" + strconv.Itoa(n.api), "--phase", phase, "--steps", string(list),
		"--containers", string(policy), "--uuid", uuid, "--token", token, "--logs", c.logs, "--heartbeat-timeout", "15",
		"--agent-url", "http://127.0.0.1:" + strconv.Itoa(n.agent), "--timeout", strconv.Itoa(int(patience.Seconds())),
	}
	if reboot != "" {
		args = append(args, "--reboot-command", reboot)
	}
	c.cmd = exec.CommandContext(ctx, "python3", args...)
	c.cmd.Dir = filepath.Join("..", "ipa")
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.err
	require.NoError(n.t, c.cmd.Start())
	return c
}

// end waits for the end of the phase.
func (c *conductor) end() outcome {
	c.n.t.Helper()
	err := c.cmd.Wait()
	var o outcome
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) || json.Unmarshal(c.out.Bytes(), &o) != nil {
		c.n.t.Fatalf("the conductor: %v\n%s%s\n%s", err, c.out.String(), c.err.String(), c.n.log())
	}
	if _, err := os.Stat(c.logs); err == nil {
		o.Logs = c.logs
	}
	c.n.t.Logf("%.1f s: %v %s", time.Since(c.started).Seconds(), o.statuses(), o.Error)
	return o
}

// run runs a phase from start to end.
func (n *node) run(phase string, steps ...step) outcome {
	n.t.Helper()
	return n.conduct(phase, "", steps...).end()
}

// onReboot returns a command that asks for a reboot, and a channel that tells.
func onReboot(t *testing.T) (string, <-chan error) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "reboot")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	asked := make(chan error, 1)
	go func() {
		f, err := os.Open(fifo)
		if err == nil {
			_, err = io.ReadAll(f)
			err = errors.Join(err, f.Close())
		}
		asked <- err
	}()
	return "echo reboot >'" + fifo + "'", asked
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
