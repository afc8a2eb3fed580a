package vm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/integration/vm"
)

// careenBinary returns the path of the binary under test: the one that
// CAREEN_BINARY names, or the checkout's bin/careen.
func careenBinary(t *testing.T) string {
	t.Helper()
	vm.Require(t)
	path := os.Getenv("CAREEN_BINARY")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "careen")
	}
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		text := fmt.Sprintf("there is no binary to test, run make build or set CAREEN_BINARY: %v", err)
		if os.Getenv("CI") != "" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	return path
}

// inGuest is a reference or address of the host's loopback as the guest sees it.
func inGuest(reference string) string { return strings.Replace(reference, "127.0.0.1", "10.0.2.2", 1) }

// stepImage is busybox with all its applets, a mark in its root, and a user
// "worker" (1234:2345) who is in the group "flash" (77).
func stepImage(t *testing.T) *registry.Image {
	t.Helper()
	path, err := exec.LookPath("busybox")
	require.NoError(t, err)
	program, err := os.ReadFile(path)
	require.NoError(t, err)
	list, err := exec.CommandContext(t.Context(), path, "--list").Output()
	require.NoError(t, err)
	busybox := registry.File("bin/busybox", string(program))
	busybox.Mode = 0o755
	tmp := registry.Dir("tmp")
	tmp.Mode = 0o1777
	entries := []registry.Entry{
		registry.Dir("bin"), tmp, registry.Dir("etc"), registry.Dir("data"), busybox,
		registry.File("image-mark", "the image's root\n"), registry.File("data/seed", "from the image\n"),
		registry.File("etc/passwd", "root:x:0:0:root:/:/bin/sh\nworker:x:1234:2345::/tmp:/bin/sh\n"),
		registry.File("etc/group", "root:x:0:\nworker:x:2345:\nflash:x:77:worker\n"),
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			entries = append(entries, registry.Symlink("bin/"+applet, "busybox"))
		}
	}
	layer := registry.NewLayer(t, registry.Tar(t, entries...), registry.Gzip)
	return registry.NewImage(t, []registry.Layer{layer}, registry.WithConfig(func(c *ocispec.Image) {
		c.Config.Env = []string{"PATH=/bin", "LAYER=image"}
	}))
}

// careenGuest is a guest in which careen's agent runs.
type careenGuest struct {
	*vm.VM
	t *testing.T
	// plain and tls are the image at two registries of the host, as the guest names
	// it; the CA of the second is /certs/ca.crt.
	plain, tls string
}

// bootCareen boots a guest with nothing but careen and busybox. The agent is not
// started.
func bootCareen(t *testing.T, cfg vm.Config) *careenGuest {
	t.Helper()
	cfg.Binary = careenBinary(t)
	image := stepImage(t)
	open := registry.Start(t)
	closed := registry.Start(t, registry.WithNames("10.0.2.2"))
	ca, err := os.ReadFile(closed.CA)
	require.NoError(t, err)
	if cfg.Files == nil {
		cfg.Files = map[string][]byte{}
	}
	cfg.Files["/certs/ca.crt"] = ca
	g := &careenGuest{t: t}
	ref, _ := open.Push(t, "step:1", image)
	g.plain = inGuest(ref)
	ref, _ = closed.Push(t, "step:1", image)
	g.tls = inGuest(ref)
	g.VM = vm.Start(t, cfg)
	return g
}

// in returns the guest for a subtest.
func (g *careenGuest) in(t *testing.T) *careenGuest {
	c := *g
	c.t, c.VM = t, g.VM.In(t)
	return &c
}

// startAgent starts the agent with no PATH and returns when it is ready. Its log
// is in /agent.log, which all agents of a guest share.
func (g *careenGuest) startAgent(flags string) {
	g.t.Helper()
	g.MustRun("env -i PATH= /bin/busybox setsid /usr/bin/careen agent " + flags + " >>/agent.log 2>&1 </dev/null &")
	g.agentReady()
}

// agentReady waits until an agent answers.
func (g *careenGuest) agentReady() {
	g.t.Helper()
	g.Await("[ -S /run/careen/careen.sock ] && careen ps || { tail -n 20 /agent.log; false; }")
}

// agentPid is the agent's process.
func (g *careenGuest) agentPid() string {
	g.t.Helper()
	return g.MustRun(`for p in /proc/[0-9]*; do
		case "$(cat $p/cmdline 2>/dev/null | tr '\0' ' ')" in careen' agent '*|*/careen' agent '*) echo ${p#/proc/};; esac
	done | head -n 1`)
}

// agentLog is what all agents have logged. Under careen as the init that is on the
// console.
func (g *careenGuest) agentLog() string {
	out, code := g.Run("cat /agent.log")
	if code != 0 {
		return g.Console()
	}
	return out
}

// endAgent sends the agent a signal and waits until it has gone.
func (g *careenGuest) endAgent(signal string) {
	g.t.Helper()
	pid := g.agentPid()
	g.MustRun("kill -" + signal + " " + pid)
	g.Await("! grep -v 'State:.Z' /proc/" + pid + "/status | grep State || { tail -n 20 /agent.log; false; }")
}

// careen runs "careen ARGS", words of the guest's shell, and returns both streams
// and the exit code.
func (g *careenGuest) careen(args string) (string, int) {
	g.t.Helper()
	return g.Run("exec careen " + args)
}

// step runs a shell script in a container with these options, and returns its
// output and exit code. The image has to be there.
func (g *careenGuest) step(options, script string) (string, int) {
	g.t.Helper()
	return g.careen("run --rm " + options + " " + g.plain + " sh -c " + quoted(script))
}

// background starts a container whose client is left alone, and returns the run
// when the container's command has been started. Its output goes to /NAME.out.
func (g *careenGuest) background(name, options, script string) api.Run {
	g.t.Helper()
	g.MustRun("setsid careen run --name " + name + " " + options + " " + g.plain + " sh -c " + quoted(script) +
		" >/" + name + ".out 2>&1 </dev/null &")
	ctx, cancel := context.WithTimeout(g.t.Context(), vm.Patience)
	defer cancel()
	for {
		for _, run := range g.all() {
			switch {
			case run.Name != name:
			case run.State == api.Running:
				return run
			case run.State.Final():
				g.t.Fatalf("%s has ended: %+v\n%s", name, run.Outcome, g.agentLog())
			}
		}
		require.NoError(g.t, ctx.Err(), g.agentLog())
	}
}

// all returns all runs that the agent knows.
func (g *careenGuest) all() []api.Run {
	g.t.Helper()
	var runs []api.Run
	out, code := g.careen("ps --all --output json")
	require.Zero(g.t, code, out)
	require.NoError(g.t, json.Unmarshal([]byte(out), &runs), out)
	return runs
}

// inspect returns a run as the agent reports it.
func (g *careenGuest) inspect(id string) api.Run {
	g.t.Helper()
	out, code := g.careen("inspect " + id)
	require.Zero(g.t, code, out)
	return decodeRun(g.t, out)
}

func decodeRun(t *testing.T, text string) api.Run {
	t.Helper()
	var runs []api.Run
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		require.NoError(t, json.Unmarshal([]byte(text), &runs), text)
		require.Len(t, runs, 1)
		return runs[0]
	}
	var run api.Run
	require.NoError(t, json.Unmarshal([]byte(text), &run), text)
	return run
}

// awaitEnd waits for the end of a run.
func (g *careenGuest) awaitEnd(id string) api.Run {
	g.t.Helper()
	_, _ = g.careen("wait " + id) // its exit code is the run's
	run := g.inspect(id)
	require.True(g.t, run.State.Final(), "%+v", run)
	require.NotNil(g.t, run.Outcome)
	return run
}

// last returns the run that was made last.
func (g *careenGuest) last() api.Run {
	g.t.Helper()
	runs := g.all()
	require.NotEmpty(g.t, runs)
	newest := runs[0]
	for _, run := range runs {
		if run.CreatedAt.After(newest.CreatedAt) {
			newest = run
		}
	}
	return newest
}

// quoted makes one word of the guest's shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// section returns what a script printed after the line "== NAME".
func section(out, name string) string {
	_, rest, _ := strings.Cut("\n"+out, "\n== "+name+"\n")
	text, _, _ := strings.Cut("\n"+rest, "\n== ")
	return strings.TrimSpace(text)
}

// diskImage makes an ext4 file system of so many bytes in a file, or an empty disk
// where Debian's e2fsprogs is not installed.
func diskImage(t *testing.T, size int64) (path string, formatted bool) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	file, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, file.Truncate(size))
	require.NoError(t, file.Close())
	const mkfs = "/sbin/mke2fs"
	if _, err := os.Stat(mkfs); err != nil {
		return path, false
	}
	out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-F", "-t", "ext4", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path, true
}
