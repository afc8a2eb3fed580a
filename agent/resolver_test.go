package agent_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/steps"
)

// newResolver returns the real resolver over an IPA configuration and a steps file.
func newResolver(t *testing.T, conf, stepsFile string) agent.Resolver {
	t.Helper()
	dir := t.TempDir()
	yaml, ipa, toml := filepath.Join(dir, "steps.yaml"), filepath.Join(dir, "ipa.conf"), filepath.Join(dir, "careen.toml")
	require.NoError(t, os.WriteFile(yaml, []byte(stepsFile), 0o600))
	require.NoError(t, os.WriteFile(ipa, []byte("[container]\ncontainer_steps_file = "+yaml+"\n"+conf), 0o600))
	require.NoError(t, os.WriteFile(toml, nil, 0o600))
	cfg, warnings, err := steps.Load(steps.LoadOptions{IPA: []string{ipa}, File: toml})
	require.NoError(t, err)
	return agent.NewResolver(cfg, warnings, nil)
}

const firmware = `
steps:
  - name: update_firmware
    image: docker://registry.example/firmware:7
    interface: deploy
    priority: 10
    reboot_requested: true
    abortable: false
    pull_options: [--tls-verify=false]
    run_options: ["--rm --network=host"]
`

func TestAStepIsResolvedAsIPADoes(t *testing.T) {
	r := newResolver(t, "", firmware)
	res, err := r.Resolve(&api.RunRequest{Step: "update_firmware", Phase: "clean"}, true)
	require.NoError(t, err)
	require.True(t, res.Trusted)
	require.False(t, res.Abortable)
	require.True(t, res.RebootRequested)
	require.Len(t, res.Parts, 1)
	p := res.Parts[0]
	require.Equal(t, "docker://registry.example/firmware:7", p.Image)
	require.Equal(t, oci.PullAlways, p.Pull.Policy, "IPA pulls before each run")
	require.False(t, *p.Pull.TLSVerify)
	require.Contains(t, p.Entry, "steps.yaml")
	require.Contains(t, p.RunOptions, "--network=host")

	list, err := r.Steps("clean", nil)
	require.NoError(t, err)
	require.Equal(t, "update_firmware", list[len(list)-1].Step)
}

func TestThePolicyIsAppliedToStepsRunsAndPulls(t *testing.T) {
	r := newResolver(t, "allowed_containers = registry.example/good:1\n", "")
	for _, c := range []struct {
		image string
		local bool
		code  fault.Code
	}{
		{"registry.example/good:1", false, ""},
		{"docker://registry.example/good:1", false, ""},
		{"registry.example/evil:1", false, fault.Policy},
		{"registry.example/evil:1", true, ""},
	} {
		_, err := r.Resolve(&api.RunRequest{Image: c.image}, c.local)
		require.Equal(t, c.code, fault.CodeOf(err), "run %s local=%v: %v", c.image, c.local, err)
		_, err = r.ResolvePull(&api.PullRequest{Image: c.image}, c.local)
		require.Equal(t, c.code, fault.CodeOf(err), "pull %s local=%v: %v", c.image, c.local, err)
	}
	_, err := r.Resolve(&api.RunRequest{Step: "generic_container_step", Args: map[string]any{"container_url": "registry.example/evil:1"}}, true)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "a step's arguments are the conductor's, also when root passes them on")
	_, err = r.Resolve(&api.RunRequest{Step: "no_such_step"}, true)
	require.Equal(t, fault.NotFound, fault.CodeOf(err), "%v", err)
}

func TestOptionsAreCheckedBeforeAnythingIsPulled(t *testing.T) {
	r := newResolver(t, "", "")
	for _, options := range []any{"--no-such-option", "--memory=lots", []any{"--pull=maybe"}, []any{map[string]any{}}} {
		_, err := r.Resolve(&api.RunRequest{Image: "x", RunOptions: options}, true)
		require.Error(t, err, "%v", options)
		require.NotEqual(t, fault.Internal, fault.CodeOf(err), "%v: %v", options, err)
	}
	res, err := r.Resolve(&api.RunRequest{Image: "x", RunOptions: []any{"--creds=me:secret", "-e", "PASSWORD=secret"}, ExactOptions: true}, true)
	require.NoError(t, err)
	require.Equal(t, oci.PullMissing, res.Parts[0].Pull.Policy, "an image by itself is pulled as podman run does")
	require.Equal(t, "me:secret", res.Parts[0].Pull.Creds)
	for _, word := range res.Parts[0].RunOptions {
		require.NotContains(t, word, "secret")
	}
}

func TestTheConductorOverrides(t *testing.T) {
	r := newResolver(t, "allow_arbitrary_containers = true\n", "")
	_, err := r.Resolve(&api.RunRequest{Image: "x"}, false)
	require.NoError(t, err)
	cfg, err := r.SetConductor(map[string]any{"allow_arbitrary_containers": false, "colour": "red"})
	require.NoError(t, err)
	require.NotEmpty(t, cfg.Warnings, "an unknown key warns")
	_, err = r.Resolve(&api.RunRequest{Image: "x"}, false)
	require.Equal(t, fault.Policy, fault.CodeOf(err))
	from := map[string]string{}
	for _, s := range r.Config().Settings {
		from[s.Key] = s.From
	}
	require.Equal(t, "conductor", from["container.allow_arbitrary_containers"])
}

func TestABrokenStepsFileStopsStepsOnly(t *testing.T) {
	r := newResolver(t, "", "steps: [")
	_, err := r.Steps("clean", nil)
	require.Equal(t, fault.BadSteps, fault.CodeOf(err))
	_, err = r.Resolve(&api.RunRequest{Step: "generic_container_step", Args: map[string]any{"container_url": "x"}}, true)
	require.Equal(t, fault.BadSteps, fault.CodeOf(err))
	_, err = r.Resolve(&api.RunRequest{Image: "x"}, true)
	require.NoError(t, err)
}
