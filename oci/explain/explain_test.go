package explain_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/careen-project/careen/oci/explain"
)

var containerID = strings.Repeat("0", 64)

func node() oci.Node { return conformance.Node(true) }

func TestCompareMasksSecrets(t *testing.T) {
	words := []string{"-e", "API_TOKEN=hunter2", "--creds=u:hunter2", "--privileged", "-it", "--label=token=hunter2", "--annotation=a=1,password=hunter2", "image"}
	run, err := oci.ParseRun(words, oci.Caller{})
	require.NoError(t, err)
	in := oci.BuildInput{ID: containerID, Node: node(), Dir: "/d"}
	in.Image.Config.Config.Cmd = []string{"x"}
	plan, err := run.Build(in)
	require.NoError(t, err)
	base, err := run.Baseline().Build(in)
	require.NoError(t, err)
	text := explain.Compare(run, plan, base).String()
	require.NotContains(t, text, "hunter2")
	require.Contains(t, text, "- seccomp filter")
	require.Contains(t, text, "+ terminal\n")
	require.Contains(t, text, "+ devices /dev/fuse, ")
	for _, line := range strings.Split(text, "\n") {
		require.LessOrEqual(t, len([]rune(line)), 80)
	}
	require.Contains(t, text, "~ device rule 0: deny a *:* rwm → allow a *:* rwm")
}

// Compare shows what options change before they run.
func ExampleCompare() {
	run, _ := oci.ParseRun([]string{"--memory=512m", "--pid=host", "--rm", "tool"}, oci.Caller{})
	in := oci.BuildInput{ID: containerID, Node: node(), Dir: "/run/careen/runs/x"}
	in.Image.Config.Config.Cmd = []string{"/bin/tool"}
	plan, _ := run.Build(in)
	base, _ := run.Baseline().Build(in)
	fmt.Print(explain.Compare(run, plan, base))
	// Output:
	// Warnings:
	//   --pid=host: the container sees all processes of the node and can signal them
	//
	// What each option does:
	//   --pid=host: shares the node's process list
	//   --memory=512m: memory limit; memory plus swap is limited to twice this
	//   --rm has no effect: a step is always removed after it ran
	//
	// Changes to careen's default for this image (+ added, - removed, ~ changed):
	//   - namespace pid: private
	//   + resource memory limit: 512MiB
	//   + resource memory swap: 1GiB
}

// TestHelp: help names every option and fits a terminal.
func TestHelp(t *testing.T) {
	for _, command := range []oci.Command{oci.OnRun, oci.OnPull} {
		text := explain.Help(command)
		for _, line := range strings.Split(text, "\n") {
			require.LessOrEqual(t, len(line), 80, line)
		}
		for _, group := range oci.HelpGroups(command) {
			for _, option := range group.Options {
				require.Contains(t, text, "--"+option.Name)
			}
		}
	}
}
