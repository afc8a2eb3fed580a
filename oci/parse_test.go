package oci_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/stretchr/testify/require"
)

func TestSpellings(t *testing.T) {
	same := [][]string{
		{"-i", "-t", "-m", "1g", "-e", "A=b", "--network", "host", "x", "-v"},
		{"-it", "-m1g", "-eA=b", "--net=host", "x", "-v"},
		{"-itm=1g", "-e=A=b", "--net", "host", "x", "-v"},
		{"--interactive=true", "--tty", "--memory=1g", "--env", "A=b", "--", "x", "-v"},
		{"--interactive=false", "-i", "-tm", "1g", "--env=A=b", "x", "-v"},
	}
	for _, words := range same {
		run, err := oci.ParseRun(words, oci.Caller{})
		require.NoError(t, err, words)
		o := run.Options
		require.True(t, o.Interactive && o.TTY, words)
		require.Equal(t, int64(1<<30), *o.Resources.Memory.Limit, words)
		require.Equal(t, map[string]string{"A": "b"}, o.Env, words)
		require.Equal(t, oci.NamespaceHost, o.Network.Mode, words)
		require.Equal(t, []string{"-v"}, run.Command, words)
	}
}

func TestRunOptionsRefusePositionalWords(t *testing.T) {
	_, err := oci.ParseRunOptions([]string{"--device-cgroup-rule", "'c", "1:3", "rwm'"}, "image", nil, oci.Caller{})
	require.Error(t, err)
	require.Contains(t, err.Error(), "1:3")
	_, err = oci.ParseRunOptions([]string{"--help"}, "image", nil, oci.Caller{})
	require.Error(t, err)
	run, err := oci.ParseRunOptions([]string{"--rm"}, "image", []string{"-x"}, oci.Caller{})
	require.NoError(t, err)
	require.Equal(t, []string{"-x"}, run.Command)
}

func TestErrorsTogether(t *testing.T) {
	_, err := oci.ParseRun(strings.Fields("--cpus=two --pod=p --tls-verfy=false --cap-add NOPE --detach -v rel:x image"), oci.Caller{})
	var all oci.Errors
	require.True(t, errors.As(err, &all))
	require.Len(t, all, 6)
	codes := make(map[string]fault.Code)
	for _, e := range all {
		codes[e.Subject] = e.Code
		require.NotEmpty(t, e.Remedy, e)
	}
	require.Equal(t, map[string]fault.Code{
		"--cpus=two": fault.BadOption, "--pod=p": fault.Unsupported, "--tls-verfy": fault.BadOption,
		"--cap-add NOPE": fault.BadOption, "--detach": fault.Unsupported, "-v rel:x": fault.BadOption,
	}, codes)
	require.Contains(t, err.Error(), "Did you mean --tls-verify?")
	require.Equal(t, fault.BadOption, fault.CodeOf(err))
}

func TestSecretsStayOutOfErrorsAndLogs(t *testing.T) {
	words := strings.Fields("--creds=me:hunter2 -e API_TOKEN=hunter2 -e URL=https://u:hunter2@h/ -e BMC=root/hunter2" +
		" --env-merge=ARGS=hunter2 -e COPIED --label key=hunter2 --label plain=yes image")
	run, err := oci.ParseRun(words, oci.Caller{})
	require.NoError(t, err)
	text := strings.Join(run.Redacted(), " ")
	require.NotContains(t, text, "hunter2")
	for _, word := range []string{"--env=BMC=***", "--env-merge=ARGS=***", "--env=COPIED", "--label=plain=yes"} {
		require.Contains(t, strings.Fields(text), word)
	}
	require.Contains(t, text, "--creds=me:***")
	require.Equal(t, "me:hunter2", run.Pull().Creds)
	_, err = oci.ParsePull([]string{"--creds=:hunter2", "image"}, oci.Caller{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
	_, err = oci.ParseRun([]string{"-e", "=hunter2", "image"}, oci.Caller{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
}

func TestPullOptions(t *testing.T) {
	host := conformance.NewHost()
	host.File("/fix/auth.json", "{}")
	host.Dir("/fix/certs")
	caller := oci.Caller{Host: host, WorkDir: "/fix"}
	pull, err := oci.ParsePull(strings.Fields("--tls-verify=false --authfile auth.json --cert-dir=certs --creds u:p:q --retry 7"+
		" --retry-delay=5s --platform linux/arm64/v8 -q --policy=newer docker://r:5000/x:1"), caller)
	require.NoError(t, err)
	require.False(t, *pull.TLSVerify)
	require.Equal(t, "/fix/auth.json", pull.AuthFile)
	require.Equal(t, "/fix/certs", pull.CertDir)
	require.Equal(t, "u:p:q", pull.Creds)
	require.Equal(t, 7, pull.Retry)
	require.Equal(t, 5*time.Second, pull.RetryDelay)
	require.Equal(t, oci.Platform{OS: "linux", Arch: "arm64", Variant: "v8"}, pull.Platform)
	require.True(t, pull.Quiet)
	require.Equal(t, oci.PullNewer, pull.Policy)
	require.Equal(t, "r:5000/x:1", pull.Image.Name)

	pull, err = oci.ParsePullOptions(nil, "busybox", oci.Caller{})
	require.NoError(t, err)
	require.Nil(t, pull.TLSVerify)
	require.Equal(t, oci.PullAlways, pull.Policy)
	require.Equal(t, -1, pull.Retry)

	for _, line := range []string{
		"--all-tags x", "-a x", "--network=host x", "a b", "", "--platform=linux/amd64 --os=linux x", "--retry-delay=soon x",
		"--policy=perhaps x", "--authfile=/none x", "--decryption-key=k x", "--signature-policy=f x",
	} {
		_, err := oci.ParsePull(strings.Fields(line), caller)
		require.Error(t, err, line)
		require.Equal(t, oci.ExitEngine, oci.ExitCode(err), line)
	}
	pull, err = oci.ParsePull([]string{"--help"}, caller)
	require.NoError(t, err)
	require.True(t, pull.Help)
}

// TestPullOptionsAroundTheImage: options of pull may stand on both sides of the image,
// as with podman, and what holds nothing to pull with is refused.
func TestPullOptionsAroundTheImage(t *testing.T) {
	host := conformance.NewHost()
	host.File("/fix/bad", "text")
	host.File("/fix/empty", "")
	caller := oci.Caller{Host: host, WorkDir: "/fix"}
	pull, err := oci.ParsePull(strings.Fields("-q r:5000/x:1 --platform=/arm64 --tls-verify=false"), caller)
	require.NoError(t, err)
	require.Equal(t, oci.Platform{Arch: "arm64"}, pull.Platform)
	require.Equal(t, "r:5000/x:1", pull.Image.Name)
	require.True(t, pull.Quiet)
	for _, line := range []string{"a b", "a -q b", "-- a -q", "a --no-such", "--platform=/ a", "--platform=linux/arm/ a", "--authfile=none a", "--authfile=bad a"} {
		_, err = oci.ParsePull(strings.Fields(line), caller)
		require.Error(t, err, line)
	}
	pull, err = oci.ParsePull(strings.Fields("--cert-dir=none a --authfile=empty"), caller)
	require.NoError(t, err)
	require.Empty(t, pull.CertDir, "podman takes an absent directory for an empty one")
	_, err = oci.ParseRun(strings.Fields("--authfile=bad --cert-dir=none a"), caller)
	require.NoError(t, err, "a run may do without")
}

func TestRunPulls(t *testing.T) {
	for policy, want := range map[string]string{
		"always": "always", "Always": "always", "never": "never", "ifnotpresent": "missing", "IfNotPresent": "missing", "": "missing", "IfNewer": "newer",
	} {
		run, err := oci.ParseRun([]string{"--pull=" + policy, "--arch=arm64", "x"}, oci.Caller{})
		require.NoError(t, err, policy)
		require.Equal(t, want, run.Pull().Policy)
		require.Equal(t, "arm64", run.Pull().Platform.Arch)
	}
	run, err := oci.ParseRun([]string{"x"}, oci.Caller{})
	require.NoError(t, err)
	require.Equal(t, oci.PullMissing, run.Pull().Policy)
}

func TestReferences(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for text, want := range map[string]oci.Reference{
		"busybox":                           {Transport: "docker", Name: "docker.io/library/busybox:latest", Tag: "latest"},
		"docker://busybox:1":                {Transport: "docker", Name: "docker.io/library/busybox:1", Tag: "1"},
		"oci://reg.example/fw":              {Transport: "docker", Name: "reg.example/fw:latest", Tag: "latest"},
		"localhost:5000/a/b":                {Transport: "docker", Name: "localhost:5000/a/b:latest", Tag: "latest"},
		"reg:5000/x:1@" + digest:            {Transport: "docker", Name: "reg:5000/x@" + digest, Digest: digest},
		"oci:/opt/img":                      {Transport: "oci", Path: "/opt/img"},
		"oci:/opt/img:fw:1":                 {Transport: "oci", Path: "/opt/img", Tag: "fw:1"},
		"oci-archive:/x.tar:y":              {Transport: "oci-archive", Path: "/x.tar", Tag: "y"},
		"docker-archive:/x.tar:busybox:1.2": {Transport: "docker-archive", Path: "/x.tar", Tag: "busybox:1.2"},
		"dir:5000/x":                        {Transport: "docker", Name: "dir:5000/x:latest", Tag: "latest"},
	} {
		got, err := oci.ParseReference(text)
		require.NoError(t, err, text)
		want.Original = text
		require.Equal(t, want, got, text)
	}
	for text, code := range map[string]fault.Code{
		"": fault.BadReference, " x": fault.BadReference, "UPPER/Case": fault.BadReference, "docker://": fault.BadReference,
		"docker:///x": fault.BadReference, "oci:": fault.BadReference, "x:bad tag": fault.BadReference, strings.Repeat("a", 2000): fault.BadReference,
		"dir:/x": fault.Unsupported, "containers-storage:x": fault.Unsupported, "docker-daemon:x:1": fault.Unsupported,
		"https://reg/x": fault.Unsupported, "ftp://x": fault.Unsupported,
	} {
		_, err := oci.ParseReference(text)
		require.Error(t, err, text)
		require.Equal(t, code, fault.CodeOf(err), text)
		require.NotEmpty(t, fault.RemedyOf(err), text)
	}
}

// TestHostileSizesAreRefusedQuickly: what is quadratic must not meet a big number.
func TestHostileSizesAreRefusedQuickly(t *testing.T) {
	start := time.Now()
	for _, words := range [][]string{
		{"--device-read-bps=" + strings.Repeat("/dev/a:1,", 50000), "x"},
		{"--device=" + strings.Repeat("/dev/a,", 100000), "x"},
		{"--" + strings.Repeat("a", 500000), "x"},
		append(make([]string, 5000), "x"),
		{strings.Repeat("x", 2<<20)},
		{"--env-merge=A=" + strings.Repeat("${A:-", 100000), "x"},
	} {
		_, err := oci.ParseRun(words, oci.Caller{})
		require.Error(t, err)
		require.Less(t, len(err.Error()), 4096)
	}
	require.Less(t, time.Since(start), 5*time.Second)
}
