package policy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/careen-project/careen/steps"
)

// newPolicy returns a policy with an IPA configuration and a steps file.
func newPolicy(t *testing.T, conf, stepsFile string) *policy.Policy {
	t.Helper()
	return savedPolicy(t, t.TempDir(), conf, stepsFile)
}

// savedPolicy returns a policy that saves the conductor settings in dir, where a second
// one finds them.
func savedPolicy(t *testing.T, dir, conf, stepsFile string) *policy.Policy {
	t.Helper()
	yaml, ipa, toml := filepath.Join(dir, "steps.yaml"), filepath.Join(dir, "ipa.conf"), filepath.Join(dir, "careen.toml")
	require.NoError(t, os.WriteFile(yaml, []byte(stepsFile), 0o600))
	require.NoError(t, os.WriteFile(ipa, []byte("[container]\ncontainer_steps_file = "+yaml+"\n"+conf), 0o600))
	require.NoError(t, os.WriteFile(toml, nil, 0o600))
	cfg, warnings, err := steps.Load(steps.LoadOptions{IPA: []string{ipa}, File: toml})
	require.NoError(t, err)
	return policy.New(policy.Config{Steps: cfg, Warnings: warnings, ConductorFile: filepath.Join(dir, "conductor.json")})
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

// TestWarningsOfTheStepsFileAreShown: Ironic knows abortable alone, and powers the node
// off in the middle of a critical section.
func TestWarningsOfTheStepsFileAreShown(t *testing.T) {
	require.Empty(t, newPolicy(t, "", firmware).Config().Warnings)
	r := newPolicy(t, "", strings.ReplaceAll(firmware, "abortable: false", "abortable: true")+"    careen: {critical: true}\n")
	warnings := r.Config().Warnings
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "steps.yaml:11")
	require.Contains(t, warnings[0], "'update_firmware'")
	require.Contains(t, warnings[0], "abortable: false")
	require.Contains(t, newPolicy(t, "", "steps: 1").Config().Warnings[0], "'steps' must be a list")
}

func TestAStepIsResolvedAsIPADoes(t *testing.T) {
	r := newPolicy(t, "", firmware)
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
	r := newPolicy(t, "allowed_containers = registry.example/good:1\n", "")
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
	r := newPolicy(t, "", "")
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
	r := newPolicy(t, "allow_arbitrary_containers = true\n", "")
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
	r := newPolicy(t, "", "steps: [")
	_, err := r.Steps("clean", nil)
	require.Equal(t, fault.BadSteps, fault.CodeOf(err))
	_, err = r.Resolve(&api.RunRequest{Step: "generic_container_step", Args: map[string]any{"container_url": "x"}}, true)
	require.Equal(t, fault.BadSteps, fault.CodeOf(err))
	_, err = r.Resolve(&api.RunRequest{Image: "x"}, true)
	require.NoError(t, err)
}

func TestTheConductorsSettingsOutliveTheAgent(t *testing.T) {
	dir := t.TempDir()
	baked := "allow_arbitrary_containers = true\n"
	_, err := savedPolicy(t, dir, baked, "").SetConductor(map[string]any{
		"allow_arbitrary_containers": false, "allowed_containers": []any{"good"}, "colour": "red",
	})
	require.NoError(t, err)

	r := savedPolicy(t, dir, baked, "")
	_, err = r.Resolve(generic("evil"), true)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "what was baked is laxer: %v", err)
	_, err = r.Resolve(generic("good"), true)
	require.NoError(t, err)
	require.Contains(t, r.Config().Warnings[0], "colour", "what is shown is the same, too")

	// Sent again, they take the place of those before; nothing sent is the ramdisk's own.
	_, err = r.SetConductor(map[string]any{})
	require.NoError(t, err)
	_, err = savedPolicy(t, dir, baked, "").Resolve(generic("evil"), true)
	require.NoError(t, err)
}

func TestSettingsOfAnotherBootDoNotHold(t *testing.T) {
	dir := t.TempDir()
	before := `{"boot_id": "another", "options": {"allow_arbitrary_containers": true}}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "conductor.json"), []byte(before), 0o600))
	_, err := savedPolicy(t, dir, "", "").Resolve(generic("evil"), true)
	require.Equal(t, fault.Policy, fault.CodeOf(err))
}

// TestSettingsThatCannotBeReadCloseTheDoor has the conductor's word lost: whatever the
// policy decides on is refused until it comes again, and nothing else is.
func TestSettingsThatCannotBeReadCloseTheDoor(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "half": `{"boot_id": "x", "opt`, "no boot": `{"options": {}}`, "other types": `{"boot_id": 1}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "conductor.json")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			r := savedPolicy(t, dir, "allow_arbitrary_containers = true\n", firmware)
			for _, req := range []*api.RunRequest{generic("x"), {Step: "update_firmware"}} {
				_, err := r.Resolve(req, true)
				require.Equal(t, fault.BadConfig, fault.CodeOf(err), "%v", err)
				require.Contains(t, fault.Line(err), path)
			}
			_, err := r.Resolve(&api.RunRequest{Image: "x"}, false)
			require.Equal(t, fault.BadConfig, fault.CodeOf(err))
			_, err = r.Steps("clean", []string{"erase_devices"})
			require.Equal(t, fault.BadConfig, fault.CodeOf(err))
			require.Contains(t, r.Config().Warnings[0], path)
			_, err = r.Resolve(&api.RunRequest{Image: "x"}, true)
			require.NoError(t, err, "root is not held to the policy")

			_, err = r.SetConductor(map[string]any{"allowed_containers": "x"})
			require.NoError(t, err)
			_, err = savedPolicy(t, dir, "", firmware).Resolve(generic("x"), true)
			require.NoError(t, err)
		})
	}
}

func TestSettingsThatCannotBeSavedAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "careen.toml")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	cfg, _, err := steps.Load(steps.LoadOptions{IPA: []string{}, File: file})
	require.NoError(t, err)
	p := policy.New(policy.Config{Steps: cfg, ConductorFile: filepath.Join(t.TempDir(), "none", "conductor.json")})
	_, err = p.SetConductor(map[string]any{"allow_arbitrary_containers": true})
	require.Equal(t, fault.Node, fault.CodeOf(err))
	_, err = p.Resolve(generic("x"), true)
	require.Equal(t, fault.Policy, fault.CodeOf(err), "the reply was that nothing has changed")
}

// TestListingStepsChangesNothing: a reader of GET /v1/steps must not decide what runs
// later.
func TestListingStepsChangesNothing(t *testing.T) {
	dir := t.TempDir()
	p := savedPolicy(t, dir, "", firmware)
	_, err := p.Steps("clean", []string{"update_firmware"})
	require.Equal(t, fault.BadSteps, fault.CodeOf(err))
	for _, p := range []*policy.Policy{p, savedPolicy(t, dir, "", firmware)} {
		_, err = p.Resolve(&api.RunRequest{Step: "update_firmware"}, true)
		require.NoError(t, err)
		list, err := p.Steps("clean", nil)
		require.NoError(t, err)
		require.Equal(t, "update_firmware", list[len(list)-1].Step)
	}
}

// TestNoStepsFileAtAll has the conductor send null for its place, with which IPA
// cannot read one either.
func TestNoStepsFileAtAll(t *testing.T) {
	r := newPolicy(t, "", firmware)
	_, err := r.SetConductor(map[string]any{"container_steps_file": nil, "allow_arbitrary_containers": true})
	require.NoError(t, err)
	_, err = r.Steps("clean", nil)
	require.Equal(t, fault.BadConfig, fault.CodeOf(err))
	_, err = r.Resolve(generic("x"), true)
	require.Equal(t, fault.BadConfig, fault.CodeOf(err))
}

// IPA makes text of a number as Python writes it, which is not always as the runbook
// has it.
func TestNumbersAsOptionsAreRefused(t *testing.T) {
	r := newPolicy(t, "allow_arbitrary_containers = true\n", "")
	req := &api.RunRequest{}
	require.NoError(t, httpd.Decode([]byte(`{"step": "generic_container_step", "args": {"container_url": "x",
		"run_options": ["--memory", 9007199254740993]}}`), req))
	_, err := r.Resolve(req, true)
	require.Equal(t, fault.BadRequest, fault.CodeOf(err))
	require.ErrorContains(t, err, "item 2 must be a string, got int: put it in quotes")
	require.NoError(t, httpd.Decode([]byte(`{"step": "generic_container_step", "args": {"container_url": "x",
		"run_options": ["--memory", "9007199254740993", "--cpus", "1.0"]}}`), req))
	res, err := r.Resolve(req, true)
	require.NoError(t, err)
	require.Subset(t, res.Parts[0].RunOptions, []string{"--memory=9007199254740993", "--cpus=1.0"})
}

func generic(image string) *api.RunRequest {
	return &api.RunRequest{Step: "generic_container_step", Args: map[string]any{"container_url": image}}
}

// Ironic's agent copies files from virtual media when it starts, and careen started
// before it.
func TestFilesOfVirtualMediaCountOnceTheyAreThere(t *testing.T) {
	dir := t.TempDir()
	conf, toml := filepath.Join(dir, "ipa"), filepath.Join(dir, "careen.toml")
	require.NoError(t, os.Mkdir(conf, 0o700))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(conf, name), []byte(text), 0o600))
	}
	write("a.conf", "[container]\nallow_arbitrary_containers = true\nbaked = 1\n")
	require.NoError(t, os.WriteFile(toml, []byte("[steps]\ntime = '1s'\n"), 0o600))
	cfg, warnings, err := steps.Load(steps.LoadOptions{IPA: []string{conf}, File: toml})
	require.NoError(t, err)
	r := policy.New(policy.Config{Steps: cfg, Warnings: warnings})
	run := func(image string) fault.Code {
		_, err := r.Resolve(&api.RunRequest{Step: "generic_container_step", Args: map[string]any{"container_url": image}}, true)
		return fault.CodeOf(err)
	}
	require.Empty(t, run("x"))
	require.Len(t, r.Config().Warnings, 2)

	write("a.conf", "[container]\nallowed_containers = good\n")
	require.Equal(t, fault.Policy, run("x"))
	require.Empty(t, run("good"))
	require.Len(t, r.Config().Warnings, 1, "those of what is in force: %v", r.Config().Warnings)

	_, err = r.SetConductor(map[string]any{"allowed_containers": "better"})
	require.NoError(t, err)
	write("b.conf", "[container]\nallow_arbitrary_containers = true\n")
	require.Empty(t, run("x"), "the conductor said nothing of this option")
	write("b.conf", "[container]\nallow_arbitrary_containers = false\n")
	require.Equal(t, fault.Policy, run("good"))
	require.Empty(t, run("better"))

	// With a file like this Ironic's agent does not start.
	write("b.conf", "[container]\nallow_arbitrary_containers = perhaps\n")
	require.Equal(t, fault.BadConfig, run("better"))
	_, err = r.Steps("clean", nil)
	require.Equal(t, fault.BadConfig, fault.CodeOf(err))
	_, err = r.SetConductor(map[string]any{})
	require.Equal(t, fault.BadConfig, fault.CodeOf(err))
	require.Contains(t, r.Config().Warnings[len(r.Config().Warnings)-1], "b.conf:2")
	_, err = r.Resolve(&api.RunRequest{Image: "x"}, true)
	require.NoError(t, err, "not held to the policy")
}

// TestPolicyJSONHoldsBeforeThePull: an image that it rejects by name is refused when it
// is requested, to be run or only pulled.
func TestPolicyJSONHoldsBeforeThePull(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.json")
	cfg, _, err := steps.Load(steps.LoadOptions{
		Getenv: func(string) (string, bool) { return "", false }, CanonicalRun: oci.CanonicalRun, CanonicalPull: oci.CanonicalPull,
	})
	require.NoError(t, err)
	p := policy.New(policy.Config{
		Steps: cfg, Host: rootfs.Host(), Node: rootfs.GatherNode,
		Images: verify.Policy{Path: file, ReadFile: rootfs.Host().ReadFile},
	})
	ask := func(image string) error {
		_, runErr := p.Resolve(&api.RunRequest{Image: image}, true)
		_, pullErr := p.ResolvePull(&api.PullRequest{Image: image}, true)
		require.Equal(t, fault.CodeOf(runErr), fault.CodeOf(pullErr), image)
		return runErr
	}
	require.NoError(t, ask("registry.example/fw:1"), "without a file every image is allowed")

	require.NoError(t, os.Symlink("/", filepath.Join(dir, "link")))
	require.NoError(t, os.WriteFile(file, []byte(`{"default": [{"type": "reject"}], "transports": {
		"docker": {"good.example": [{"type": "insecureAcceptAnything"}], "signed.example": [{"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k"}]},
		"oci": {"`+dir+`": [{"type": "insecureAcceptAnything"}]}}}`), 0o600))
	require.NoError(t, ask("docker://good.example/fw:1"))
	require.NoError(t, ask("oci:"+dir+"/layout"))
	require.NoError(t, ask("fw:1"), "the full name of a short name is known at the pull")
	for _, image := range []string{
		"registry.example/fw:1", "signed.example/fw:1", "docker://fw:1", "oci:/layout", "oci:" + dir + "/link", "docker-archive:/fw.tar",
	} {
		require.Equal(t, fault.Policy, fault.CodeOf(ask(image)), image)
	}

	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	require.Equal(t, fault.BadConfig, fault.CodeOf(ask("docker://good.example/fw:1")))
}

// TestLimitsOfTheNode: an option that the node cannot honour is refused before the pull.
func TestLimitsOfTheNode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "careen.toml")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	cfg, _, err := steps.Load(steps.LoadOptions{IPA: []string{}, File: file})
	require.NoError(t, err)
	p := policy.New(policy.Config{Steps: cfg, Node: func() (oci.Node, error) { return oci.Node{}, nil }})
	_, err = p.Resolve(&api.RunRequest{Image: "x", RunOptions: "--cgroup-conf=memory.high=1g"}, true)
	require.Equal(t, fault.BadOption, fault.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "--cgroup-conf")
}
