package ipadiff

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/careen-project/careen/steps"
)

// TestScalars holds values without quotes against PyYAML: what careen accepts is the
// same to IPA, as an option and as a priority. The texts are made of what numbers,
// times, booleans and YAML's signs are made of.
func TestScalars(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const step = "steps:\n- {name: a, image: tool, interface: deploy, reboot_requested: false, abortable: true, priority: %s, run_options: [--x, %s]}\n"
	plain := rapid.StringOfN(rapid.SampledFrom([]rune("0123456789001122__..::+--eExobtTZ yYnNsSfFaulrd~=<!&*")), 1, 12, -1)
	var accepted, unclear int
	check(t, 5_000, func(t *rapid.T) {
		text, priority := plain.Draw(t, "scalar"), "1"
		if rapid.IntRange(0, 2).Draw(t, "as priority") == 0 {
			text, priority = "a", text
		}
		file := fmt.Sprintf(step, priority, text)
		q := question{Op: "list", YAML: &file, Phase: "clean"}
		cat, err := n.catalogue(t, q)
		if err != nil {
			if ambiguous.MatchString(err.Error()) {
				unclear++
			}
			return
		}
		accepted++
		listed := n.o.ask(t, q)
		require.False(t, listed.refused(), "IPA refuses %q: %s", file, listed.Text)
		require.JSONEq(t, string(listed.OK), string(raw(t, cat.List("clean"))), file)
		q.Op, q.Step, q.Args = "run", "a", raw(t, map[string]any{})
		cfg, err := n.load(t, question{})
		require.NoError(t, err)
		ds, err := cfg.Resolve(cat, steps.Request{Step: "a"})
		require.NoError(t, err)
		ran := n.o.ask(t, q)
		require.False(t, ran.refused(), "IPA does not run %q: %s", file, ran.Text)
		sameCommands(t, ran, cfg, ds[0])
	})
	t.Logf("%d texts accepted by both, %d refused as ambiguous", accepted, unclear)
}
