package oci_test

import (
	"strings"
	"testing"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/careen-project/careen/oci/explain"
)

// fuzzHost is a node with a few files of each kind.
func fuzzHost() *conformance.Host {
	h := conformance.NewHost()
	h.Dir("/dev")
	h.Node("/dev/null", "c", 1, 3)
	h.Node("/dev/d/x", "b", 7, 1)
	h.Link("/dev/loop", "loop")
	h.File("/env", "A=1\n")
	h.File("/profile", `{"defaultAction":"SCMP_ACT_ALLOW"}`)
	h.Users["svc"] = "svc:x:1000:1000:x:/home/svc:/bin/sh"
	return h
}

// fuzzRun takes words through parsing and, if they are accepted, building: nothing
// may panic, and what is refused has a reason.
func fuzzRun(t *testing.T, host *conformance.Host, words ...string) *oci.Plan {
	t.Helper()
	environ := map[string]string{"PATH": "/bin", "A_B": "c", "SECRET_TOKEN": "t"}
	run, err := oci.ParseRun(words, oci.Caller{Host: host, Environ: environ, WorkDir: "/"})
	if err != nil {
		if code := oci.ExitCode(err); err.Error() == "" || code != oci.ExitEngine && code != oci.ExitDenied {
			t.Fatalf("words %q: error %q, exit code %d", words, err, oci.ExitCode(err))
		}
		return nil
	}
	if run.Options.Help {
		return nil
	}
	_ = run.Redacted()
	_ = run.Isolation()
	root := conformance.NewHost()
	root.File("/etc/passwd", "root:x:0:0::/root:/bin/sh\nsvc:x:1000:1000::/:\n")
	root.Link("/run2", "/run")
	input := oci.BuildInput{
		ID: containerID, Dir: "/d", InitPath: "/careen", RootFS: "/r", Node: conformance.Node(len(words)%2 == 0), Host: host,
		Environ: environ, Image: oci.Image{Reference: "x", Files: conformance.Files{Host: root}},
	}
	input.Image.Config.Config.Cmd = []string{"/bin/true"}
	plan, err := run.Build(input)
	if err != nil {
		return nil
	}
	base, err := run.Baseline().Build(input)
	if err != nil {
		t.Fatalf("the baseline does not build: %v", err)
	}
	if explain.Compare(run, plan, base).String() == "" {
		t.Fatal("no explanation")
	}
	return plan
}

func FuzzOptions(f *testing.F) {
	for _, seed := range []string{
		"-it --rm --net=host -v/a:/b:ro -e A=b x", "--privileged=maybe x", "-- x -v", "--memory 512m --cpus=1.5 x y z", "-", "--", "--=x x",
		"--dns=1.1.1.1,2.2.2.2 --network none x", "--help", "--cap-add=ALL --cap-drop all x", "-u svc:0 -w /nowhere x", "--entrypoint [\"a\"] x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Fields(line)
		fuzzRun(t, fuzzHost(), words...)
		_, _ = oci.ParsePull(words, oci.Caller{})
	})
}

func FuzzReference(f *testing.F) {
	for _, seed := range []string{
		"busybox", "docker://registry:5000/a/b:1", "oci://x@sha256:" + strings.Repeat("a", 64), "oci:/dir:tag", "oci-archive:f:n", "docker-archive:x",
		"dir:/x", "http://x/y", "a:5000/b", "UPPER", "x@sha256:1", "localhost/x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := oci.ParseReference(text)
		if err != nil {
			return
		}
		if ref.Transport != oci.TransportDocker {
			return
		}
		again, err := oci.ParseReference(ref.Name)
		if err != nil || again.Name != ref.Name || ref.Domain() == "" || ref.Repository() == "" {
			t.Fatalf("%q is %q, which reads again as %q: %v", text, ref.Name, again.Name, err)
		}
	})
}

// fuzzOption fuzzes the value of one option.
func fuzzOption(f *testing.F, option string, seeds ...string) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) { fuzzRun(t, fuzzHost(), option+"="+value, "x") })
}

func FuzzMount(f *testing.F) {
	fuzzOption(f, "--mount", "type=bind,src=/dev,dst=/a,ro", "type=tmpfs,dst=/t,tmpfs-size=1m", `"type=volume","dst=/a"`, "type=devpts,target=/p,max=1",
		"type=bind,src=/,dst=/a,idmap=uids=0-1-2;gids=0-1-2,U,relabel=shared", "type=ramfs,dst=/r", "type=image,dst=/x")
}

func FuzzVolume(f *testing.F) {
	fuzzOption(f, "--volume", "/dev:/a:ro,rslave", "name:/a:nocopy", "/a", "./x:/y", "/:/h:O", "/:/h:O,upperdir=/u,workdir=/w", ":/x", "a:b:c:d", "/:/a:idmap")
}

func FuzzDevice(f *testing.F) {
	fuzzOption(f, "--device", "/dev/null", "/dev/d:/e:r", "/dev/loop", "/dev/null:/x:rwm,/dev/null:m", "vendor.com/class=x", ":/x")
}

func FuzzUlimit(f *testing.F) {
	fuzzOption(f, "--ulimit", "nofile=1:2", "host", "core=-1", "a=b", "nofile=1:2,nproc=3")
}

func FuzzEnvFile(f *testing.F) {
	for _, seed := range []string{"A=1\nB\n", "# x\n  C=d\r\n", "A_*\n*", "=x", "export A=b", strings.Repeat("x", 70000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		host := fuzzHost()
		host.File("/env", content)
		fuzzRun(t, host, "--env-file=/env", "--label-file=/env", "x")
	})
}

func FuzzEnvMerge(f *testing.F) {
	fuzzOption(f, "--env-merge", "PATH=${PATH}:/x", "A=${B:-${C:+x}}", "PATH='$x'\"y$z\"", "PATH=\\$", "PATH=${", "PATH=$")
}

func FuzzSeccomp(f *testing.F) {
	for _, seed := range []string{
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],` +
			`"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1}],"includes":{"caps":["CAP_CHOWN"]}}]}`,
		`{}`, `null`, `[]`, `{"defaultAction":"x"}`, `{"syscalls":[null]}`, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"]}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		host := fuzzHost()
		host.File("/profile", content)
		fuzzRun(t, host, "--security-opt=seccomp=/profile", "x")
	})
}
