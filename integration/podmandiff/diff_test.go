package podmandiff

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	securejoin "github.com/cyphar/filepath-securejoin"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var (
	sets   = flag.Int("sets", 300, "number of option sets to draw")
	all    = flag.Bool("all", false, "go on after a difference and list all at the end, unshrunk")
	mutate = flag.Bool("mutate", false, "change a character of every other value")
)

// environ is the caller's environment on both sides.
var environ = map[string]string{
	"PATH": os.Getenv("PATH"), "HOME": "/root", "HOSTVAR": "value from host", "FW_A": "1", "FW_B": "two",
	"http_proxy": "http://proxy:3128", "NO_PROXY": "10.0.0.0/8",
}

// careenID is the id of careen's containers here.
var careenID = strings.Repeat("c0ffee12", 8)

const careenDir = "/run/careen/runs/x"

// TestSameAsPodman draws option sets and compares what podman and careen make of
// each.
func TestSameAsPodman(t *testing.T) {
	p := newPodman(t)
	places := makePlaces(t)
	seed := flag.Lookup("rapid.seed")
	if seed.Value.String() == "0" {
		require.NoError(t, seed.Value.Set(fmt.Sprint(time.Now().UnixNano())))
	}
	require.NoError(t, flag.Lookup("rapid.checks").Value.Set(fmt.Sprint(*sets)))
	// The seed repeats a run; a file in the checkout is not needed for it.
	require.NoError(t, flag.Lookup("rapid.nofailfile").Value.Set("true"))
	t.Logf("%d option sets, -rapid.seed=%s", *sets, seed.Value)
	accepted, refused := 0, 0
	var found []string
	rapid.Check(t, func(t *rapid.T) {
		set := drawSet(t, places)
		got, differences := p.compareSet(t, set, places.Replace(placeDir))
		if len(differences) > 0 {
			report := set.String() + "\n\t" + strings.Join(differences, "\n\t")
			if !*all {
				t.Fatalf("%s", report)
			}
			found = append(found, report)
			return
		}
		if got.refused {
			refused++
		} else {
			accepted++
		}
	})
	t.Logf("equal: %d specs, %d refusals", accepted, refused)
	require.Empty(t, strings.Join(found, "\n"))
}

// attempts is how often a difference has to show. podman now and then fails for
// reasons of its own, such as a lock, a cgroup or storage that is busy, and the
// machine may change between the two sides: udev gives a device to a group.
const attempts = 3

// compareSet gives a set to both sides and returns what podman made of it and what
// differs in each of several attempts.
func (p *podman) compareSet(t fataler, set optionSet, workDir string) (got capture, differences []string) {
	for range attempts {
		got = p.run(t, set.line(), environ, workDir, set.v2)
		node, err := rootfs.GatherNode()
		if err != nil {
			t.Fatalf("looking at the node: %v", err)
		}
		if differences = compare(p, set, got, node, workDir); len(differences) == 0 {
			break
		}
	}
	return got, differences
}

// compare returns how careen's result differs from podman's.
func compare(p *podman, set optionSet, got capture, node oci.Node, workDir string) []string {
	node.CgroupV2 = set.v2 || p.hostV2
	node.NoBlkioWeight = !node.CgroupV2 && !exists("/sys/fs/cgroup/blkio/blkio.weight")
	node.NoSwapLimit = !node.CgroupV2 && !exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	caller := oci.Caller{Host: rootfs.Host(), Environ: environ, WorkDir: workDir}
	run, err := oci.ParseRun(set.line(), caller)
	// careen reports all at once what can be noticed before the image and the node are looked
	// at. Of that podman notices some only at the start, with another exit code, after it may have
	// come upon something else.
	early := oci.ExitCode(err) == oci.ExitDenied
	var plan *oci.Plan
	if err == nil {
		plan, err = run.Build(oci.BuildInput{
			ID: careenID, Image: set.image.oci(), Node: node, Host: rootfs.Host(), Dir: careenDir,
			VolumeDir: "/store/volumes", Environ: environ, RootFS: "rootfs", InitPath: "/no/init",
		})
	}
	switch {
	case got.refused && err == nil:
		return []string{fmt.Sprintf("podman refuses with %d, careen accepts: %s", got.code, got.stderr)}
	case got.refused && early && got.code == oci.ExitEngine:
		return nil
	case got.refused && oci.ExitCode(err) != got.code:
		return []string{fmt.Sprintf("podman refuses with %d, careen with %d: %s%v", got.code, oci.ExitCode(err), got.stderr, err)}
	case got.refused:
		return nil
	case err != nil:
		return []string{"podman accepts, careen refuses: " + err.Error()}
	}
	careen := side{spec: toObject(plan.Spec), id: careenID, engine: func(source string) string {
		switch {
		case strings.HasPrefix(source, "/store/volumes/"):
			return "volume " + strings.TrimPrefix(source, "/store/volumes/")
		case strings.HasPrefix(source, careenDir+"/volumes/"):
			return "volume <anonymous>"
		case strings.HasPrefix(source, careenDir):
			return "file"
		}
		return ""
	}}
	differences := diff("", podmanSide(p, got, run).normal(false), careen.normal(true))
	return append(differences, compareFiles(set, got, plan, run.Options.Name != "")...)
}

// compareFiles compares the generated files that podman kept, byte by byte. named says that the
// container has a name of the operator's.
func compareFiles(set optionSet, got capture, plan *oci.Plan, named bool) []string {
	files := make(map[string]string)
	for _, file := range plan.Files {
		files[filepath.Base(file.Path)] = string(file.Content)
	}
	var differences []string
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		want, have := got.files[name], files[name]
		if name == "hosts" {
			want = normalHosts(want, named)
		}
		if id := containerOf(got.spec); id != "" {
			want = strings.ReplaceAll(want, id[:12], careenID[:12])
		}
		if want != have {
			differences = append(differences, fmt.Sprintf("/etc/%s: podman %q, careen %q", name, want, have))
		}
	}
	for _, name := range []string{"passwd", "group"} {
		own, _ := rootDir(set.image.root).ReadFile("/etc/"+name, 1<<20)
		have := string(own)
		for _, add := range plan.RootAppends {
			if add.Path == "/etc/"+name {
				have += string(add.Content)
			}
		}
		if want := got.files[name]; want != have {
			differences = append(differences, fmt.Sprintf("/etc/%s in the root: podman %q, careen %q", name, want, have))
		}
	}
	return differences
}

// normalHosts drops what careen has not: the engine's own name for the node, and the
// name that podman made up for the container, which ends the last line.
func normalHosts(content string, named bool) string {
	var lines []string
	for _, line := range strings.SplitAfter(content, "\n") {
		if !strings.Contains(line, "host.containers.internal") {
			lines = append(lines, line)
		}
	}
	content = strings.Join(lines, "")
	if named {
		return content
	}
	return strings.Replace(madeUpName.ReplaceAllString(content, "\n"), "127.0.0.1\n", "", 1)
}

// madeUpName is a name such as "nervous_meninsky" at the end of a line.
var madeUpName = regexp.MustCompile(`[\t ][a-z]+_[a-z]+[0-9]*\n$`)

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// oci returns the image as package oci wants it.
func (i *testImage) oci() oci.Image {
	c := i.config
	config := ocispec.ImageConfig{
		Entrypoint: c.entrypoint, Cmd: c.cmd, Env: c.env, WorkingDir: c.workDir, User: c.user, Labels: c.labels,
		StopSignal: c.stopSignal, Volumes: make(map[string]struct{}),
	}
	for _, volume := range c.volumes {
		config.Volumes[volume] = struct{}{}
	}
	return oci.Image{Reference: i.reference(), Config: ocispec.Image{Config: config}, Files: rootDir(i.root)}
}

// rootDir reads an image's files from a directory.
type rootDir string

func (r rootDir) ReadFile(name string, limit int64) ([]byte, error) {
	file, err := securejoin.SecureJoin(string(r), name)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(file)
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s is too large", name)
	}
	return content, err
}

func (r rootDir) Resolve(name string) (string, error) {
	file, err := securejoin.SecureJoin(string(r), name)
	return "/" + strings.TrimPrefix(strings.TrimPrefix(file, string(r)), "/"), err
}

func (r rootDir) Stat(name string) (fs.FileInfo, error) {
	file, err := securejoin.SecureJoin(string(r), name)
	if err != nil {
		return nil, err
	}
	return os.Stat(file)
}

// makePlaces makes the files that values of the grammar name.
func makePlaces(t *testing.T) *strings.Replacer {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"dir/a.txt": "a", "dir/sub/b.txt": "b", "empty/.keep": "", "file.txt": "text", "auth.json": "{}",
		"basic.env":  "# comment\nFW_SERVER=http://10.0.0.5\n  FW_INDENT=x\nFW_QUOTED=\"q\"\nHOSTVAR\nNOT_SET\nFW_EQ=a=b\nexport E=1\nFW_*\n",
		"crlf.env":   "A=1\r\nB=2\r\n",
		"bad.env":    "GOOD=1\n=bad\n",
		"labels.txt": "site=lab1\n# no\nempty=\nalone\n",
		"passwd":     passwd + "fromhost:x:4242:7:host:/home/host:/bin/sh\n",
		"etc/passwd": passwd + "fromhost:x:4242:7:host:/home/host:/bin/sh\n",
		"etc/group":  group + "ghosts:x:99:svc\n",
		"init":       "#!", "broken.json": "{", "with,comma/x": "", "devdir/x": "",
		"seccomp.json": `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[` +
			`{"names":["chmod"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"includes":{"caps":["CAP_SYS_ADMIN"]}},` +
			`{"name":"reboot","action":"SCMP_ACT_ERRNO","errno":"EPERM","excludes":{"caps":["CAP_CHOWN"]},` +
			`"args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}`,
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	}
	require.NoError(t, os.Symlink("dir", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(dir, "devlink")))
	require.NoError(t, unix.Mknod(filepath.Join(dir, "devdir/n"), unix.S_IFCHR|0o640, int(unix.Mkdev(1, 5))))
	flagged := filepath.Join(dir, "flagged")
	require.NoError(t, os.Mkdir(flagged, 0o755))
	require.NoError(t, unix.Mount("tmpfs", flagged, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(flagged, 0)) })
	return strings.NewReplacer(placeDir, dir, placeFlag, flagged)
}
