package steps_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

const stepsYAML = `
steps:
  - name: flash
    image: docker://r.example/flash:1
    interface: deploy
    priority: 20
    reboot_requested: true
    abortable: false
    run_options: --privileged  -v /dev:/dev
    careen:
      timeout: 1h
      reboot_exit_codes: [3, 4]
      critical: true
      inputs: [report]
  - name: report
    image: r.example/report:1
    interface: deploy
    priority: 10
    reboot_requested: false
    abortable: true
careen:
  aliases: [container_step_2]
  sequence: true
`

func catalogue(t testing.TB) *steps.Catalogue {
	t.Helper()
	cat, err := steps.LoadSteps(write(t, "mysteps.yaml", stepsYAML), nil)
	require.NoError(t, err)
	return cat
}

func one(t testing.TB, cfg *steps.Config, cat *steps.Catalogue, req steps.Request) *steps.Decision {
	t.Helper()
	ds, err := cfg.Resolve(cat, req)
	require.NoError(t, err)
	require.Len(t, ds, 1)
	require.NoError(t, ds[0].Verify())
	return ds[0]
}

func TestStepsOfTheFileAreTrusted(t *testing.T) {
	cfg := mustLoad(t, "[container]\npull_options = --tls-verify=true\n", "[steps]\ntimeout = '2h'\nsilence_timeout = '10m'\n")
	cat := catalogue(t)
	d := one(t, cfg, cat, steps.Request{Step: "flash", Phase: "clean", Args: map[string]any{}})
	assert.Equal(t, "docker://r.example/flash:1", d.Image)
	assert.Equal(t, []string{"--privileged", "-v", "/dev:/dev"}, d.RunOptions)
	assert.Equal(t, []string{"--tls-verify=true"}, d.PullOptions)
	assert.True(t, d.Trusted)
	assert.False(t, d.Abortable)
	assert.True(t, d.RebootRequested)
	assert.True(t, d.Critical)
	assert.Equal(t, time.Hour, d.Timeout)
	assert.Equal(t, 10*time.Minute, d.SilenceTimeout)
	assert.Equal(t, []int{3, 4}, d.RebootExitCodes)
	assert.Equal(t, []string{"report"}, d.Inputs)
	assert.Equal(t, "steps file "+cat.Path+":3", d.Entry)

	d = one(t, cfg, cat, steps.Request{Step: "report"})
	assert.Equal(t, []string{"--rm", "--network=host"}, d.RunOptions)
	assert.Equal(t, 2*time.Hour, d.Timeout)

	// In IPA these arguments would replace the image of a step that is trusted.
	_, err := cfg.Resolve(cat, steps.Request{Step: "report", Args: map[string]any{"container_url": "evil"}})
	requireFault(t, err, fault.BadRequest, "takes no arguments, got container_url")
	_, err = cfg.Resolve(cat, steps.Request{Step: "report", RunOptions: "--privileged"})
	requireFault(t, err, fault.BadRequest)
	_, err = cfg.Resolve(cat, steps.Request{Step: "report", Image: "evil"})
	requireFault(t, err, fault.BadRequest)
	_, err = cfg.Resolve(cat, steps.Request{Step: "absent"})
	requireFault(t, err, fault.NotFound)
	_, err = cfg.Resolve(steps.Builtin(), steps.Request{Step: "report"})
	requireFault(t, err, fault.NotFound)
	_, err = cfg.Resolve(cat, steps.Request{Step: "report", Phase: "cleaning"})
	requireFault(t, err, fault.BadRequest)
}

func TestAllowlist(t *testing.T) {
	pinned := "r.example/a@sha256:" + strings.Repeat("1", 64)
	cfg := mustLoad(t, "[container]\nallowed_containers = r.example/a:1,docker://r.example/b:1,"+pinned+"\n", "")
	for image, want := range map[string]string{
		"r.example/a:1":                    "r.example/a:1",
		"docker://r.example/a:1":           "r.example/a:1",
		"oci://r.example/b:1":              "docker://r.example/b:1",
		pinned:                             pinned,
		"r.example/a":                      "",
		"r.example/a:2":                    "",
		"R.example/a:1":                    "",
		"r.example/a:1\x00":                "",
		"docker://docker://r.example/a:1":  "",
		"containers-storage:r.example/a:1": "",
		"dir:r.example/a:1":                "",
		"Docker://r.example/a:1":           "",
	} {
		ds, err := cfg.Resolve(nil, steps.Request{Step: steps.GenericStep, Args: map[string]any{
			"container_url": image, "run_options": []any{"--privileged"},
		}})
		if want == "" {
			requireFault(t, err, fault.Policy, "Container image "+image+" is not in [container]allowed_containers and "+
				"[container]allow_arbitrary_containers is not enabled.")
			continue
		}
		require.NoError(t, err, image)
		assert.Equal(t, image, ds[0].Image)
		assert.Equal(t, "allowed_containers "+want, ds[0].Entry)
		assert.Equal(t, []string{"--rm", "--network=host"}, ds[0].RunOptions)
		require.Len(t, ds[0].Warnings, 1)
		assert.Contains(t, ds[0].Warnings[0], "run_options of the request were ignored")
		assert.False(t, ds[0].Trusted)
		assert.True(t, ds[0].Abortable)
	}
}

func TestArguments(t *testing.T) {
	cfg := mustLoad(t, "[container]\nallow_arbitrary_containers = true\n", "")
	for name, tc := range map[string]struct {
		args  map[string]any
		words string
	}{
		"absent":       {map[string]any{}, "container_url is missing"},
		"null":         {map[string]any{"container_url": nil}, "container_url must be a non-empty string, got NoneType."},
		"empty":        {map[string]any{"container_url": ""}, "container_url must be a non-empty string, got str."},
		"number":       {map[string]any{"container_url": 5.0}, "got int."},
		"fraction":     {map[string]any{"container_url": 5.5}, "got float."},
		"list":         {map[string]any{"container_url": []any{"a"}}, "got list."},
		"mapping":      {map[string]any{"container_url": map[string]any{}}, "got dict."},
		"boolean":      {map[string]any{"container_url": true}, "got bool."},
		"trusted":      {map[string]any{"container_url": "a", "trusted": true}, `unexpected argument "trusted"`},
		"option true":  {map[string]any{"container_url": "a", "run_options": true}, "run_options: options must be a string or a list"},
		"option dict":  {map[string]any{"container_url": "a", "pull_options": map[string]any{"a": 1}}, "pull_options: "},
		"dict in list": {map[string]any{"container_url": "a", "run_options": []any{map[string]any{"a": 1}}}, "item 1 must be a string, got dict"},
		"number item":  {map[string]any{"container_url": "a", "run_options": []any{"--memory", 5.0}}, "item 2 must be a string, got int: put it in quotes"},
		"null item":    {map[string]any{"container_url": "a", "run_options": []any{nil}}, "item 1 must be a string, got NoneType"},
		"huge":         {map[string]any{"container_url": "a", "run_options": strings.Repeat("a ", 100_000)}, "longer than"},
		"many":         {map[string]any{"container_url": "a", "run_options": strings.Repeat("a ", 5_000)}, "more than 4096"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cfg.Resolve(nil, steps.Request{Step: steps.GenericStep, Args: tc.args})
			requireFault(t, err, fault.BadRequest, tc.words)
		})
	}
	d := one(t, cfg, nil, steps.Request{Step: steps.DeprecatedStep, Args: map[string]any{
		"container_url": "any:1", "run_options": []any{" --rm\t-e A=b ", "5"}, "pull_options": []any{},
	}})
	assert.Equal(t, []string{"--rm", "-e", "A=b", "5"}, d.RunOptions)
	assert.Empty(t, d.PullOptions)
	assert.Equal(t, "allow_arbitrary_containers", d.Entry)
	require.Len(t, d.Warnings, 1)
	assert.Contains(t, d.Warnings[0], "deprecated")
}

func TestSequenceIsDecidedAsAWhole(t *testing.T) {
	cfg := mustLoad(t, "[container]\nallowed_containers = a,b\n", "")
	cat := catalogue(t)
	resolve := func(parts ...any) ([]*steps.Decision, error) {
		return cfg.Resolve(cat, steps.Request{Step: steps.SequenceStep, Args: map[string]any{"sequence": parts}})
	}
	part := func(image string) any { return map[string]any{"container_url": image} }

	ds, err := resolve(part("a"), part("docker://b"), part("a"))
	require.NoError(t, err)
	require.Len(t, ds, 3)
	for i, d := range ds {
		assert.Equal(t, i+1, d.Part)
		assert.Equal(t, 3, d.Parts)
		require.NoError(t, d.Verify())
	}
	ds, err = resolve(part("a"), part("evil"))
	requireFault(t, err, fault.Policy, "part 2 of the sequence", "Container image evil is not in")
	assert.Nil(t, ds)
	_, err = resolve()
	requireFault(t, err, fault.BadRequest, "non-empty list")
	_, err = resolve("a")
	requireFault(t, err, fault.BadRequest, "part 1 of the sequence must be a mapping, got str")
	_, err = resolve(make([]any, 33)...)
	requireFault(t, err, fault.BadRequest, "at most 32")
	_, err = resolve(map[string]any{"container_url": "a", "sequence": []any{}})
	requireFault(t, err, fault.BadRequest, "part 1", "unexpected argument")
	_, err = cfg.Resolve(steps.Builtin(), steps.Request{Step: steps.SequenceStep, Args: map[string]any{"sequence": []any{part("a")}}})
	requireFault(t, err, fault.NotFound)

	// An alias is the generic step under another name, policy included.
	d := one(t, cfg, cat, steps.Request{Step: "container_step_2", Args: map[string]any{"container_url": "a"}})
	assert.Equal(t, "allowed_containers a", d.Entry)
	_, err = cfg.Resolve(cat, steps.Request{Step: "container_step_2", Args: map[string]any{"container_url": "evil"}})
	requireFault(t, err, fault.Policy)
}

func TestDirectRequests(t *testing.T) {
	ipa := "[container]\nallowed_containers = a\n"
	req := steps.Request{
		Image: "b", RunOptions: []any{"-e", "A=b c"}, ExactOptions: true, Command: []string{"sh"}, Local: true,
	}
	root := mustLoad(t, ipa, "")
	d := one(t, root, nil, req)
	assert.Equal(t, []string{"-e", "A=b c"}, d.RunOptions)
	assert.Empty(t, d.PullOptions)
	assert.Equal(t, []string{"sh"}, d.Command)
	assert.Equal(t, "local root", d.Entry)
	d = one(t, root, nil, steps.Request{Image: "b", Local: true, RunOptions: "-e  A=b"})
	assert.Equal(t, []string{"-e", "A=b"}, d.RunOptions)
	assert.Empty(t, one(t, root, nil, steps.Request{Image: "b", Local: true}).RunOptions)

	remote := req
	remote.Local = false
	_, err := root.Resolve(nil, remote)
	requireFault(t, err, fault.Policy)

	enforce := mustLoad(t, ipa, "local_policy = 'enforce'\n")
	_, err = enforce.Resolve(nil, req)
	requireFault(t, err, fault.Policy, "Container image b is not in")
	req.Image = "a"
	_, err = enforce.Resolve(nil, req)
	requireFault(t, err, fault.Policy, "command")
	req.Command = nil
	d = one(t, enforce, nil, req)
	assert.Equal(t, []string{"--rm", "--network=host"}, d.RunOptions)
	assert.Len(t, d.Warnings, 1)

	_, err = root.Resolve(nil, steps.Request{Local: true})
	requireFault(t, err, fault.BadRequest)
	_, err = root.Resolve(nil, steps.Request{Image: "a", Local: true, ExactOptions: true, RunOptions: []any{1.0}})
	requireFault(t, err, fault.BadRequest, "item 1 must be a string")
}

func TestDecisionsAreSealed(t *testing.T) {
	cfg := mustLoad(t, "[container]\nallowed_containers = a\n", "")
	fresh := func() *steps.Decision {
		return one(t, cfg, nil, steps.Request{Step: steps.GenericStep, Args: map[string]any{"container_url": "a"}})
	}
	d := fresh()
	d.Warnings = append(d.Warnings, "a caller may add these")
	require.NoError(t, d.Verify())
	for name, change := range map[string]func(*steps.Decision){
		"image":   func(d *steps.Decision) { d.Image = "evil" },
		"option":  func(d *steps.Decision) { d.RunOptions[0] = "--privileged" },
		"command": func(d *steps.Decision) { d.Command = []string{"sh"} },
		"timeout": func(d *steps.Decision) { d.Timeout++ },
		"words":   func(d *steps.Decision) { d.RunOptions = []string{"--rm --network=host"} },
	} {
		d := fresh()
		change(d)
		requireFault(t, d.Verify(), fault.Internal, name[:0])
	}
	requireFault(t, (&steps.Decision{Image: "a"}).Verify(), fault.Internal)
	requireFault(t, (*steps.Decision)(nil).Verify(), fault.Internal)
}

// A decision does not share memory with the configuration or the request.
func TestDecisionsAreIndependent(t *testing.T) {
	cfg := mustLoad(t, "[container]\nallowed_containers = a\n", "")
	args := map[string]any{"container_url": "a"}
	first := one(t, cfg, nil, steps.Request{Step: steps.GenericStep, Args: args})
	first.RunOptions[0] = "--privileged"
	second := one(t, cfg, nil, steps.Request{Step: steps.GenericStep, Args: args})
	assert.Equal(t, []string{"--rm", "--network=host"}, second.RunOptions)
}
