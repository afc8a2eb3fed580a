package oci_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/careen-project/careen/oci/gendoc"
	"github.com/stretchr/testify/require"
)

const (
	caseDir     = "testdata/conformance"
	fixtures    = "/fixtures"
	scratch     = "/scratch"
	containerID = "0123456789ab" + "cdef0123456789abcdef" + "0123456789abcdef0123456789abcdef"
	bridgeNS    = "/run/netns/bridge"
	runDir      = "/run/careen/runs/x"
	volumeDir   = "/store/volumes"
)

// laterStages are cases that are refused elsewhere: an image is looked for by the
// pull, a command by the runtime.
var laterStages = map[string]bool{
	"neg-command-missing": true, "neg-image-missing-never": true, "neg-variant-mismatch-never": true,
}

func loadCases(t *testing.T) []podmanCase {
	t.Helper()
	loaded, err := conformance.Load(caseDir, fixtures, scratch)
	require.NoError(t, err)
	var cases []podmanCase
	for _, c := range loaded {
		cases = append(cases, podmanCase{c})
	}
	return cases
}

// podmanCase is a case of the corpus with a node made up for it.
type podmanCase struct{ conformance.Case }

// TestConformance runs every option set of the corpus on cgroup v1 and v2 and
// compares the result with podman's, except for what gendoc.Differences lists.
func TestConformance(t *testing.T) {
	listed := make(map[string]string)
	for _, difference := range gendoc.Differences() {
		if difference.Case != "" {
			listed[difference.Case] = difference.Reason
		}
	}
	passed, differ := 0, 0
	for _, c := range loadCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			failures := c.compareAll()
			if reason, ok := listed[c.Name]; ok {
				delete(listed, c.Name)
				differ++
				require.NotEmpty(t, failures, "listed as different (%s), but it is the same", reason)
				return
			}
			require.Empty(t, failures, "options: %s %v", c.RunOptions, c.Command)
			passed++
		})
	}
	require.Empty(t, listed, "differences of cases that do not exist")
	t.Logf("%d cases as podman, %d different on purpose", passed, differ)
}

// compareAll runs the case in all variants and returns what differs.
func (c podmanCase) compareAll() []string {
	var failures []string
	for _, version := range []string{"v1", "v2"} {
		for _, network := range c.Networks(bridgeNS) {
			expect := c.Wanted(version)
			if expect == nil {
				continue
			}
			for _, difference := range c.compare(version, network, expect) {
				failures = append(failures, fmt.Sprintf("%s %s: %s", version, network, difference))
			}
		}
	}
	return failures
}

func (c podmanCase) compare(version, network string, expect map[string]any) []string {
	words := append([]string{}, c.Flags...)
	if network != "" {
		words = append([]string{network}, words...)
	}
	if c.Image != "" {
		words = append(append(words, c.Image), c.Command...)
	}
	if laterStages[c.Name] {
		return nil
	}
	plan, run, err := c.build(words, version)
	if wrong, _ := expect["error"].(bool); wrong {
		if err == nil {
			return []string{"podman refuses it: " + fmt.Sprint(expect["stderr"])}
		}
		if want := int(expect["exit_code"].(float64)); oci.ExitCode(err) != want {
			return []string{fmt.Sprintf("exit code %d, podman's is %d: %v", oci.ExitCode(err), want, err)}
		}
		return nil
	}
	if err != nil {
		return []string{"podman accepts it: " + err.Error()}
	}
	if expect["process"] == nil {
		return nil
	}
	conformance.Adjust(expect, network, run)
	result := conformance.Result{
		Spec: plan.Spec, Plan: plan, Run: run, ID: containerID, Hostname: conformance.Hostname,
		RunDir: runDir, VolumeDir: volumeDir, BridgeNS: bridgeNS,
	}
	return conformance.Diff("", expect, result.Normalise(expect))
}

// build runs the case as careen does.
func (c podmanCase) build(words []string, version string) (*oci.Plan, *oci.Run, error) {
	host := c.host()
	environ := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
	for name, value := range c.HostEnv {
		environ[name] = value
	}
	run, err := oci.ParseRun(words, oci.Caller{Host: host, Environ: environ, WorkDir: fixtures})
	if err != nil {
		return nil, nil, err
	}
	plan, err := run.Build(oci.BuildInput{
		ID: containerID, Host: host, Environ: environ, Dir: runDir, VolumeDir: volumeDir,
		InitPath: "/usr/bin/careen", RootFS: "/rootfs", Node: conformance.Node(version == "v2"),
		Image: oci.Image{Reference: c.Image, Files: imageFiles(c.Config), Config: c.Config.Image()},
	})
	return plan, run, err
}

// files are the image's own files.
func imageFiles(i conformance.CaseImage) oci.Files {
	root := conformance.NewHost()
	root.Dir("/bin")
	root.Dir("/tmp")
	if i.WorkDir != "" {
		root.Dir(i.WorkDir)
	}
	for _, dir := range i.Dirs {
		root.Dir(dir)
	}
	for name, target := range i.Symlinks {
		root.Link(name, target)
	}
	for name, content := range i.Files {
		root.File(name, content)
	}
	return conformance.Files{Host: root}
}

// host is the machine on which the corpus was taken, as far as the cases see it.
func (c podmanCase) host() *conformance.Host {
	h := conformance.NewHost()
	for _, dir := range []string{
		"/dev", "/sys/fs/cgroup/systemd", "/run/lock", "/tmp", "/var/log", "/lib/modules", "/etc/ssl/certs",
		scratch + "/chown", scratch + "/flagged", "/proc/self/ns",
	} {
		h.Dir(dir)
	}
	for _, file := range []string{"/proc/self/ns/net", bridgeNS, "/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/America/New_York", "/etc/localtime"} {
		h.File(file, "content of "+file)
	}
	_ = filepath.WalkDir(filepath.Join(caseDir, "fixtures"), func(name string, entry os.DirEntry, err error) error {
		inside, _ := filepath.Rel(filepath.Join(caseDir, "fixtures"), name)
		target := filepath.Join(fixtures, inside)
		switch {
		case entry.IsDir():
			h.Dir(target)
		case inside == "devlink":
			h.Link(target, "/dev/null")
		case inside == "dirlink":
			h.Link(target, "dir")
		default:
			content, _ := os.ReadFile(name)
			h.File(target, string(content))
		}
		return err
	})
	h.Node("/dev/console", "c", 5, 1)
	h.Node("/dev/kmsg", "c", 1, 11)
	h.Node("/dev/null", "c", 1, 3)
	for name, what := range c.Devices {
		var kind string
		var major, minor int64
		if n, _ := fmt.Sscanf(what, "%1s %d:%d", &kind, &major, &minor); n == 3 {
			h.Node(name, kind, major, minor)
		}
	}
	for name, flags := range c.Mounts {
		h.Flags[name] = flags
	}
	h.Users["root"] = "root:x:0:0:root:/root:/bin/bash"
	return h
}
