package explain_test

import (
	"testing"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/careen-project/careen/oci/explain"
	"github.com/stretchr/testify/require"
)

// review explains an option line on a machine that has nothing of what it names.
func review(t *testing.T, line string) (*explain.Explanation, *oci.Plan) {
	t.Helper()
	words := conformance.Words(line)
	machine := conformance.NewHost()
	machine.Dir("/etc")
	machine.Flags["/opt"] = []string{"nosuid"}
	machine.Dir("/opt")
	r := explain.NewAssumedHost(machine)
	run, err := oci.ParseRun(append(words, "image"), oci.Caller{Host: r, WorkDir: "/etc"})
	require.NoError(t, err, line)
	in := oci.BuildInput{ID: containerID, Host: r, Node: node(), Dir: "/d", InitPath: "/careen", RootFS: "rootfs"}
	in.Image.Config.Config.Cmd = []string{"x"}
	in.Image.Files = r.Files(run, "")
	plan, err := run.Build(in)
	require.NoError(t, err, line)
	base, err := run.Baseline().Build(in)
	require.NoError(t, err, line)
	e := explain.Compare(run, plan, base)
	e.Assumed = r.Notes()
	return e, plan
}

// TestReviewWithoutTheNode: a runbook is read on a machine that has neither the node's
// devices nor its sockets and files, nor the image's accounts.
func TestAssumedWithoutTheNode(t *testing.T) {
	for line, notes := range map[string]int{
		"--rm":                              0,
		"-u 1000:1000 -w /opt/x":            0,
		"--cidfile /run/not/there/id":       1,
		"-v /opt/fw:/fw:ro":                 1,
		"--device /dev/sdq:/dev/target:rw":  1,
		"--env-file step.env":               1,
		"--label-file /none":                1,
		"--tz=Europe/Berlin":                2,
		"--network=ns:/run/netns/blue":      1,
		"--device-read-bps=/dev/sdq:1mb":    1,
		"-u svc:disk --group-add disk":      2,
		"-u root --group-add 6,root":        0,
		"--hostuser tester":                 1,
		"--authfile=/etc/none.json":         1,
		"--security-opt seccomp=/none.json": 1,
		"--init --init-path /sbin/tini":     1,
		"--mount type=bind,src=/srv,dst=/s": 1,
		"-v ./here:/x -v /srv/a:/a:O":       2,
		"--systemd=always --privileged":     0,
	} {
		e, _ := review(t, line)
		require.Len(t, e.Assumed, notes, line)
	}
}

func TestAssumedStillWarns(t *testing.T) {
	e, plan := review(t, "-v /var/run/docker.sock:/var/run/docker.sock:ro -v /opt/fw:/fw --device /dev/sdq -u svc")
	require.Len(t, e.Warnings, 1)
	require.Contains(t, e.Warnings[0], "through this socket the container can start any other container")
	require.Contains(t, optionsAt(plan, "/fw"), "nosuid")
	require.Equal(t, "/dev/sdq", plan.Spec.Linux.Devices[0].Path)
	require.EqualValues(t, 1000, plan.Spec.Process.User.UID)
	require.Contains(t, e.String(), "Assumed, not checked here:\n  /dev/sdq is not on this machine: ")
}

// TestReviewRefusesAsARunDoes: what is wrong on every machine stays wrong.
func TestAssumedRefusesAsARunDoes(t *testing.T) {
	r := explain.NewAssumedHost(conformance.NewHost())
	for _, line := range []string{"--memory=x", "-v /a:b", "--device /dev/x:/dev/y:q", "--tz=../x", "--network=bridge", "--security-opt frob=1"} {
		words := conformance.Words(line)
		_, err := oci.ParseRun(append(words, "image"), oci.Caller{Host: r})
		require.Error(t, err, line)
	}
}

func optionsAt(plan *oci.Plan, target string) []string {
	for _, m := range plan.Spec.Mounts {
		if m.Destination == target {
			return m.Options
		}
	}
	return nil
}
