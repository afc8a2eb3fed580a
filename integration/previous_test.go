package integration

import (
	"fmt"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestPrevious: a container reads what those before it said, in a sequence and by the
// inputs of its step, and cannot change it; a crash in between changes nothing.
func TestPrevious(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	push := func(name, user, line string) (ref, digest string) {
		image := registry.NewImage(t, harness.Busybox(t).Layers, registry.WithConfig(func(c *ocispec.Image) {
			c.Config.Cmd, c.Config.User = []string{"sh", "-c", line}, user
		}))
		ref, d := reg.Push(t, name, image)
		return ref, string(d)
	}
	say, said := push("say:1", "worker", `test ! -e /run/careen/previous.json && echo '{"said": [1, 2]}' > /run/careen/result.json`)
	hear, _ := push("hear:1", "root", `echo x > /run/careen/previous.json && exit 9; cat /run/careen/previous.json > /run/careen/result.json`)
	file := writeFile(t, "steps.yaml", fmt.Sprintf(`
steps:
  - {name: look, image: %q, interface: deploy, priority: 0, reboot_requested: false, abortable: true}
  - name: use
    image: %q
    interface: deploy
    priority: 0
    reboot_requested: false
    abortable: true
    run_options: --rm --net=host --read-only --user=worker --cap-drop=all
    careen: {inputs: [look, use]}
careen: {sequence: true}
`, say, hear))
	conf := writeFile(t, "ipa.conf", "[container]\nallow_arbitrary_containers = true\npull_options = --tls-verify=false\ncontainer_steps_file = "+file+"\n")
	agent := harness.Start(t, harness.WithFlags("--config", writeFile(t, "careen.toml", fmt.Sprintf("ipa_config = [%q]\n", conf))),
		// The agent dies when it is about to make the second container.
		harness.WithEnv("CAREEN_FAILPOINT=agent.before-create=2"))

	submit(t, agent, api.RunRequest{ID: "seq", Step: "container_sequence_step", Phase: "deploy", Args: map[string]any{"sequence": []any{
		map[string]any{"container_url": say}, map[string]any{"container_url": hear}}}})
	select {
	case <-agent.Exited():
	case <-time.After(time.Minute):
		t.Fatal("the agent was not killed")
	}
	agent.SetEnv()
	agent.Kill()
	agent.Launch()
	run := ended(t, agent, "seq")
	require.Equal(t, api.Succeeded, run.State, "%+v", run.Outcome)
	assert.JSONEq(t, fmt.Sprintf(`[{"part":1,"image":%q,"digest":%q,"state":"succeeded","exit_code":0,"result":{"said":[1,2]}}]`, say, said),
		string(run.Outcome.Result))

	step := func(name string) api.Run {
		run := ended(t, agent, submit(t, agent, api.RunRequest{ID: name, Step: name, Phase: "deploy"}))
		require.Equal(t, api.Succeeded, run.State, "%+v", run.Outcome)
		return run
	}
	step("look")
	assert.JSONEq(t, fmt.Sprintf(`[{"step":"look","run":"look","image":%q,"digest":%q,"state":"succeeded","exit_code":0,"result":{"said":[1,2]}}]`,
		say, said), string(step("use").Outcome.Result))
}
