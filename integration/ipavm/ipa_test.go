package ipavm_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestIPA drives a node through what a conductor may want of it, both ways in. The
// subtests follow one another on one node, as phases do that a conductor starts on
// a running ramdisk ("fast track"); IPA is started anew where a test says so.
func TestIPA(t *testing.T) {
	if os.Getenv("CAREEN_IPA_VM_TEST") == "" {
		t.Skip("builds a whole Debian and emulates a processor for minutes: set CAREEN_IPA_VM_TEST=1")
	}
	if os.Getuid() != 0 {
		t.Skip("debootstrap needs root")
	}
	n := boot(t)
	require.Equal(t, "/usr/bin/careen", n.guest.MustRun("readlink -f /usr/bin/podman"))
	_, code := n.guest.Run("for p in docker conmon crun runc containerd nerdctl; do command -v $p && exit 0; done; exit 1")
	require.NotZero(t, code, "careen is the only thing there that runs containers")
	for _, w := range ways {
		n.startIPA(w)
		for _, tt := range []struct {
			name string
			test func(*node, way)
		}{
			{"containers in a row", inARow},
			{"wrong token", wrongToken},
			{"failure and log collection", failure},
			{"image not permitted", notPermitted},
			{"bad options", badOptions},
			{"registry down", registryDown},
			{"IPA restarted in the middle", restarted},
			{"agent killed in the middle", agentKilled},
			{"reboot requested", rebooted},
		} {
			ok := t.Run(w.name+"/"+tt.name, func(t *testing.T) {
				inner := *n
				inner.t = t
				tt.test(&inner, w)
			})
			if !ok {
				t.Logf("IPA's log:\n%s", n.log())
				t.FailNow() // the next would find a node in no known state
			}
		}
		n.killIPA()
	}
	t.Logf("at the end: %s", n.guest.MustRun("grep VmRSS /proc/$("+agentPid+")/status; "+
		"grep -E 'MemTotal|MemAvailable' /proc/meminfo; uname -r"))
}

func inARow(n *node, w way) {
	o := n.run("clean", n.generic("ok"), n.generic("ok"), step{Step: "flash"})
	require.Empty(n.t, o.Error)
	require.Equal(n.t, []string{"SUCCEEDED", "SUCCEEDED", "SUCCEEDED"}, o.statuses())
	var names []string
	for _, s := range o.Advertised[w.manager] {
		names = append(names, s["step"].(string))
	}
	require.Equal(n.t, []string{
		"generic_container_step", "container_clean_step", "flash", "flash_and_reboot", "bad_options", "no_registry", "long",
	}, names)
	if w.name == "plugin" {
		value := o.Ended[0].Result.(map[string]any)
		require.Equal(n.t, map[string]any{"firmware": "2.1"}, value["result"])
		require.NotContains(n.t, o.Advertised, "ContainerHardwareManager", "careen's manager is above it")
	}
}

// wrongToken asks past the conductor: what IPA answers is its real API.
func wrongToken(n *node, _ way) {
	body := strings.NewReader(`{"name": "clean.get_clean_steps", "params": {"node": {}, "ports": []}}`)
	request, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost,
		fmt.Sprintf("http://127.0.0.1:%d/v1/commands/?wait=true&agent_token=%s", n.agent, strings.Repeat("x", len(token))), body)
	require.NoError(n.t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(n.t, err)
	require.NoError(n.t, response.Body.Close())
	require.Equal(n.t, http.StatusUnauthorized, response.StatusCode)
}

func failure(n *node, w way) {
	o := n.run("service", n.generic("fail"), n.generic("ok"))
	require.Equal(n.t, []string{"FAILED"}, o.statuses())
	require.Contains(n.t, o.Error, "cannot find controller")
	names := collected(n.t, o.Logs)
	if w.name == "plugin" {
		lines := strings.Split(o.Error, "\n")
		require.Contains(n.t, lines[0], "exited with code 3", "the conductor shows the first line")
		require.Equal(n.t, "cannot find controller", lines[len(lines)-1])
		require.Contains(n.t, names, "careen/runs.json")
	}
}

// collected returns the names of the files in what IPA's log collection sent.
func collected(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	var names []string
	for files := tar.NewReader(z); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, names)
			return names
		}
		require.NoError(t, err)
		names = append(names, header.Name)
	}
}

func notPermitted(n *node, _ way) {
	o := n.run("deploy", n.generic("other"))
	require.Contains(n.t, o.Error, "Container image "+n.image("other")+" is not in [container]allowed_containers")
}

func badOptions(n *node, w way) {
	o := n.run("deploy", step{Step: "bad_options"})
	require.Equal(n.t, []string{"FAILED"}, o.statuses())
	require.Contains(n.t, o.Error, "--memory=plenty")
	if w.name == "plugin" {
		require.Contains(n.t, strings.Split(o.Error, "\n")[0], "--memory=plenty")
	}
}

func registryDown(n *node, w way) {
	o := n.run("service", step{Step: "no_registry"})
	require.Equal(n.t, []string{"FAILED"}, o.statuses())
	require.Contains(n.t, o.Error, "connection refused")
	if w.name == "plugin" {
		require.Contains(n.t, strings.Split(o.Error, "\n")[0], "connection refused")
	}
}

// restarted kills IPA while a container works. With the plugin the step goes on.
// IPA's own manager knows nothing of it, and the conductor counts it as done; yet
// careen lets no container begin before the one that works has ended.
func restarted(n *node, w way) {
	n.guest.MustRun("mkdir -p /run/gate; rm -f /run/gate/open")
	c := n.conduct("clean", "", step{Step: "long"}, n.generic("ok"))
	n.until("careen ps -o json | grep -q '\"running\"'")
	n.killIPA()
	before := len(n.runs())
	n.guest.MustRun(": >/run/ipa.log")
	n.startIPA(w)
	if w.name == "plugin" {
		n.until("grep -q 'the command goes on' /run/ipa.log")
	} else {
		n.until("careen ps -o json | grep -q '\"queued\"'")
	}
	require.LessOrEqual(n.t, before, len(n.runs()))
	n.guest.MustRun(": >/run/gate/open")
	o := c.end()
	require.Empty(n.t, o.Error)
	if w.name == "plugin" {
		require.Equal(n.t, []string{"SUCCEEDED", "SUCCEEDED"}, o.statuses())
	} else {
		require.Equal(n.t, []string{"SKIPPED", "SUCCEEDED"}, o.statuses())
	}
	runs := n.runs()
	last, long := runs[0], runs[1]
	if last.CreatedAt.Before(long.CreatedAt) {
		last, long = long, last
	}
	require.False(n.t, last.StartedAt.Before(long.EndedAt), "%+v", runs[:2])
}

// agentPid prints the agent's process id, in the guest.
const agentPid = "pgrep -o -x -f '(/usr/bin/)?careen agent'"

// agentKilled kills careen while a container works; the ramdisk's init starts it
// again. To IPA nothing happens, whichever way in.
func agentKilled(n *node, _ way) {
	n.guest.MustRun("mkdir -p /run/gate; rm -f /run/gate/open")
	c := n.conduct("service", "", step{Step: "long"}, n.generic("ok"))
	n.until("careen ps -o json | grep -q '\"running\"'")
	n.guest.MustRun(agentPid + " >/run/agent.pid; kill -9 $(cat /run/agent.pid)")
	n.until("now=$(" + agentPid + ") && [ $now != $(cat /run/agent.pid) ] && careen ps -o json | grep -q '\"running\"'")
	n.guest.MustRun(": >/run/gate/open")
	o := c.end()
	require.Empty(n.t, o.Error)
	require.Equal(n.t, []string{"SUCCEEDED", "SUCCEEDED"}, o.statuses())
}

// run is what matters here of a run.
type run struct {
	State     string    `json:"state"`
	CreatedAt time.Time `json:"created_at"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
}

// runs returns the node's runs, the newest first.
func (n *node) runs() []run {
	n.t.Helper()
	var all []run
	out := n.guest.MustRun("careen ps -a -o json")
	require.NoError(n.t, json.Unmarshal([]byte(out), &all), out)
	return all
}

// rebooted has a step that asks for a reboot, and one after it.
func rebooted(n *node, w way) {
	command, asked := onReboot(n.t)
	c := n.conduct("clean", command, step{Step: "flash_and_reboot", Reboot: true}, n.generic("ok"))
	select {
	case err := <-asked:
		require.NoError(n.t, err)
	case <-time.After(patience):
		n.t.Fatalf("no reboot is asked for: %s", n.log())
	}
	n.guest.Leave("echo b >/proc/sysrq-trigger") // as a BMC does
	n.guest.AwaitBoot()
	n.ready()
	n.startIPA(w)
	o := c.end()
	require.Empty(n.t, o.Error)
	require.Equal(n.t, []string{"SUCCEEDED", "SUCCEEDED"}, o.statuses())
	require.Len(n.t, n.runs(), 1, "the state of the boot before is gone, and nothing runs twice")
}
