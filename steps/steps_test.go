package steps_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

func TestAdvertisedSteps(t *testing.T) {
	cat := catalogue(t)
	assert.Empty(t, cat.Warnings)
	const builtin = `{"step": %q, "priority": 0, "interface": "deploy", "reboot_requested": false, "abortable": true, "argsinfo": {
		"container_url": {"description": "Container image URL", "required": true},
		"pull_options": {"description": "Pull options", "required": false},
		"run_options": {"description": "Run options", "required": false}}}`
	for phase, priorities := range map[string][2]int{"clean": {20, 10}, "deploy": {0, 0}, "service": {0, 0}} {
		data, err := json.Marshal(cat.List(phase))
		require.NoError(t, err)
		assert.JSONEq(t, fmt.Sprintf(`[`+builtin+`,`+builtin+`,
			{"step": "flash", "priority": %d, "interface": "deploy", "reboot_requested": true, "abortable": false},
			{"step": "report", "priority": %d, "interface": "deploy", "reboot_requested": false, "abortable": true},
			`+builtin+`,
			{"step": "container_sequence_step", "priority": 0, "interface": "deploy", "reboot_requested": false, "abortable": true,
			 "argsinfo": {"sequence": {"description": "List of container_url, pull_options and run_options, run in this order", "required": true}}}]`,
			"generic_container_step", "container_clean_step", priorities[0], priorities[1], "container_step_2"), string(data), phase)
	}
	assert.Len(t, steps.Builtin().List("clean"), 2, "aliases and sequences are off unless the file asks")
}

// TestCriticalAndAbortable: Ironic does not ask before it powers the node off.
func TestCriticalAndAbortable(t *testing.T) {
	cat, err := steps.LoadSteps(write(t, "mysteps.yaml", step("careen", "{timeout: 1h, critical: true}")), nil)
	require.NoError(t, err)
	require.Len(t, cat.Warnings, 1)
	assert.Regexp(t, `mysteps.yaml:\d+: .*step 'a': .*power.*abortable: false`, cat.Warnings[0].String())
	for _, value := range []string{"{critical: false}", "{timeout: 1h}", "{}"} {
		cat, err := steps.LoadSteps(write(t, "mysteps.yaml", step("careen", value)), nil)
		require.NoError(t, err)
		assert.Empty(t, cat.Warnings, value)
	}
}

func TestAbsentAndEmptyFilesAreNone(t *testing.T) {
	cat, err := steps.LoadSteps(filepath.Join(t.TempDir(), "absent.yaml"), nil)
	require.NoError(t, err)
	assert.Len(t, cat.List("clean"), 2)
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "~\n", "{}\n", "steps:\n", "steps: []\n", "steps: 0\n", "other: 1\n"} {
		cat, err := steps.LoadSteps(write(t, "mysteps.yaml", text), nil)
		require.NoError(t, err, text)
		assert.Len(t, cat.List("clean"), 2)
	}
}

// step is a complete step with one key replaced or, for "-", left out.
func step(key, value string) string {
	keys := [][2]string{
		{"name", "a"}, {"image", "tool"}, {"interface", "deploy"}, {"priority", "1"}, {"reboot_requested", "false"}, {"abortable", "true"},
	}
	text, found := "steps:\n", false
	lead := "- "
	for _, kv := range keys {
		if kv[0] == key {
			found = true
			if value == "-" {
				continue
			}
			kv[1] = value
		}
		text += lead + kv[0] + ": " + kv[1] + "\n"
		lead = "  "
	}
	if !found && key != "" {
		text += "  " + key + ": " + value + "\n"
	}
	return text
}

func TestBrokenFiles(t *testing.T) {
	for name, tc := range map[string]struct{ text, words string }{
		"not YAML":            {"steps: [\n", "mysteps.yaml:"},
		"tab":                 {"steps:\n\t- a\n", "mysteps.yaml:2: a tab"},
		"directive":           {"%YAML 1.1\n---\nsteps: []\n", "mysteps.yaml:1: a directive"},
		"list at the top":     {"[a]\n", "the file must contain a mapping with a 'steps' key, got list."},
		"text at the top":     {"a\n", "got str."},
		"steps no list":       {"steps: 5\n", "'steps' must be a list, got int."},
		"step no mapping":     {"steps: [a]\n", "each container step must be a mapping, got str."},
		"two documents":       {"steps: []\n---\nsteps: []\n", "one YAML document"},
		"no name":             {step("name", "-"), "mysteps.yaml:2: step '<unnamed>': Container step '<unnamed>' is missing the required 'name' key."},
		"empty image":         {step("image", "''"), "step 'a': Container step 'a' is missing the required 'image' key."},
		"no priority":         {step("priority", "-"), "Missing required key 'priority' in cleaning step: a"},
		"no interface":        {step("interface", "-"), "Missing required key 'interface' in cleaning step: a"},
		"no reboot":           {step("reboot_requested", "-"), "Missing required key 'reboot_requested' in cleaning step: a"},
		"no abortable":        {step("abortable", "-"), "Missing required key 'abortable' in cleaning step: a"},
		"priority in words":   {step("priority", "high"), "mysteps.yaml:5: step 'a': 'priority' must be a whole number, got str"},
		"huge priority":       {step("priority", "99999999999"), "'priority' must be a whole number"},
		"abortable in quotes": {step("abortable", "'false'"), "mysteps.yaml:7: step 'a': 'abortable' must be true or false, got str"},
		"numeric image":       {step("image", "5"), "'image' must be a non-empty string, got int"},
		"numeric name":        {step("name", "5"), "'name' must be a non-empty string, got int"},
		"option mapping":      {step("run_options", "{a: b}"), "mysteps.yaml:8: step 'a': 'run_options': options must be a string or a list of strings, got dict"},
		"option in option":    {step("pull_options", "[{a: b}]"), "item 1"},
		"reserved name":       {step("name", "erase_devices"), "mysteps.yaml:2: Container step 'erase_devices' collides with an existing hardware manager method and would shadow it. Rename it in "},
		"built-in name":       {step("name", "generic_container_step"), "collides"},
		"plugin's name":       {step("name", "vendor_step"), "collides"},
		"duplicate key":       {step("x", "1") + "  image: other\n", "mysteps.yaml:9: the key \"image\" is there twice, first on line 3"},
		"number as key":       {step("5", "1"), "a key must be a string, got int"},
		"custom tag":          {step("image", "!x tool"), "the tag !x is not supported"},
		"set":                 {step("run_options", "!!set {a}"), "the tag !!set is not supported"},
		"time":                {step("run_options", "[2001-01-01 10:00:00]"), "put it in quotes"},
		"merge":               {"a: &a {b: c}\nd:\n  <<: *a\n", "mysteps.yaml:3: merge keys (<<) are not in every version of YAML: write the keys out"},
		"alias in itself":     {"a: &a [*a]\n", "mysteps.yaml:1: the alias *a stands for a value that holds it"},
		"lone tag":            {step("abortable", "! false"), "mysteps.yaml:7: the tag ! is not supported"},
		"option number":       {step("run_options", "[--memory, 5]"), "'run_options': item 2 must be a string, got int: put it in quotes"},
		"anchor twice":        {"a: &x 1\nb: &x 2\n", "mysteps.yaml:2: the anchor &x is there twice"},
		"unknown alias":       {"a: *x\n", "unknown anchor"},
		"deep":                {"a: " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\n", "nested deeper"},
		"NUL":                 {"steps: []\x00\n", "NUL"},
		"careen no mapping":   {step("careen", "5"), "'careen' must be a mapping"},
		"careen unknown":      {step("careen", "{timeouts: 1h}"), "'careen.timeouts': is not one of timeout, silence_timeout, reboot_exit_codes, critical, inputs"},
		"careen time":         {step("careen", "{timeout: 90}"), "'careen.timeout': must be a time such as"},
		"careen codes":        {step("careen", "{reboot_exit_codes: [0]}"), "between 1 and 255"},
		"careen critical":     {step("careen", "{critical: 1}"), "must be true or false, got int"},
		"careen inputs":       {step("careen", "{inputs: a}"), "'careen.inputs': must be a list of at most 16 steps of this file"},
		"careen input twice":  {step("careen", "{inputs: [a, a]}"), "must be a list of different steps"},
		"careen input number": {step("careen", "{inputs: [5]}"), "must be a list of different steps"},
		"careen input absent": {step("careen", "{inputs: [b]}"), "mysteps.yaml:2: step 'a': 'careen.inputs': \"b\" is not a step of this file"},
		"careen input by arg": {step("careen", "{inputs: [generic_container_step]}"), "is not a step of this file"},
		"top careen unknown":  {"careen: {alias: [a]}\n", "'careen.alias' is not one of aliases, sequence"},
		"alias reserved":      {"careen: {aliases: [erase_devices]}\n", "reserved"},
		"alias of conductor":  {"careen: {aliases: [reboot]}\n", "reserved"},
		"alias twice":         {"careen: {aliases: [x, x]}\n", "there twice"},
		"alias of a step":     {step("", "") + "careen: {aliases: [a]}\n", "there twice"},
		"alias with a blank":  {"careen: {aliases: ['a b']}\n", "must be names of letters, digits and underscores, got a b"},
		"sequence taken":      {step("name", "container_sequence_step") + "careen: {sequence: true}\n", "container_sequence_step"},
	} {
		t.Run(name, func(t *testing.T) {
			cat, err := steps.LoadSteps(write(t, "mysteps.yaml", tc.text), []string{"vendor_step"})
			requireFault(t, err, fault.BadSteps, "mysteps.yaml", tc.words)
			assert.Nil(t, cat)
		})
	}
}

func TestSuspiciousStepsWarn(t *testing.T) {
	for name, tc := range map[string]struct{ text, words string }{
		"unknown key":      {step("run_option", "--rm"), `mysteps.yaml:8: step 'a': unknown key "run_option" is ignored`},
		"unknown top key":  {"step: []\n", `unknown key "step" is ignored`},
		"conductor's name": {step("name", "reboot"), "Ironic's conductor has a step of this name"},
		"private name":     {step("name", "_x"), "never runs"},
		"twice":            {step("", "") + strings.TrimPrefix(step("image", "other"), "steps:\n"), "is there twice; the one on line 2 runs"},
	} {
		t.Run(name, func(t *testing.T) {
			cat, err := steps.LoadSteps(write(t, "mysteps.yaml", tc.text), nil)
			require.NoError(t, err)
			require.Len(t, cat.Warnings, 1)
			assert.Contains(t, cat.Warnings[0].String(), tc.words)
		})
	}
	// IPA advertises a private name and never finds it.
	cat, err := steps.LoadSteps(write(t, "mysteps.yaml", step("name", "_x")), nil)
	require.NoError(t, err)
	assert.Len(t, cat.List("clean"), 3)
	_, err = mustLoad(t, "", "").Resolve(cat, steps.Request{Step: "_x"})
	requireFault(t, err, fault.NotFound)
}

// What is text, a boolean, null or a decimal number in every version of YAML.
func TestYAMLValues(t *testing.T) {
	for value, want := range map[string][]string{
		"[10.0.0.1:5000/tool:1, 1g, -v, 5000:latest, a:b]": {"10.0.0.1:5000/tool:1", "1g", "-v", "5000:latest", "a:b"},
		"['1:30', \"010\", 'yes', nUll]":                   {"1:30", "010", "yes", "nUll"},
		"\"--env  A=b\\t--x\"":                             {"--env", "A=b", "--x"},
		"|\n    --rm\n    --x\n":                           {"--rm", "--x"},
		"--cpus 1.5 --init yes":                            {"--cpus", "1.5", "--init", "yes"},
		"~":                                                {"--rm", "--network=host"},
		"[]":                                               {"--rm", "--network=host"},
	} {
		cat, err := steps.LoadSteps(write(t, "mysteps.yaml", step("run_options", value)), nil)
		require.NoError(t, err, value)
		d := one(t, mustLoad(t, "", ""), cat, steps.Request{Step: "a"})
		assert.Equal(t, want, d.RunOptions, value)
	}
}

// What YAML 1.1, YAML 1.2 or a reader of one of them takes for something else than
// another does has to be in quotes, wherever it stands.
func TestAmbiguousValuesAreRefused(t *testing.T) {
	for _, value := range strings.Fields("010 0o17 0x1F 0b11 1_000 +3 08 0_ 0x_ 1__2 1:30 1:30.5 22:60 1.5 1. .5 1e3 1.0e+3 12e03 .inf -.INF .nan " +
		"yes No ON off y N = 2001-01-01 2001-13-01 2001-1-1T10:00:00Z 9999999999999999999") {
		for _, key := range []string{"run_options", "x_extra", "priority"} {
			_, err := steps.LoadSteps(write(t, "mysteps.yaml", step(key, "[a, "+value+"]")), nil)
			requireFault(t, err, fault.BadSteps, "mysteps.yaml:", value+`" is not the same in every version of YAML: put it in quotes if it is text`)
		}
	}
}

// A value can be written once and used in several steps.
func TestAliases(t *testing.T) {
	text := step("image", "&tool r.example/tool:1") + "  run_options: &options [--rm, &x --privileged]\n" +
		strings.TrimPrefix(step("name", "b"), "steps:\n") + "  run_options: *options\n" +
		strings.TrimPrefix(step("name", "c"), "steps:\n") + "  run_options: [*x]\n"
	cat, err := steps.LoadSteps(write(t, "mysteps.yaml", text), nil)
	require.NoError(t, err)
	for name, options := range map[string][]string{"a": {"--rm", "--privileged"}, "b": {"--rm", "--privileged"}, "c": {"--privileged"}} {
		assert.Equal(t, options, one(t, mustLoad(t, "", ""), cat, steps.Request{Step: name}).RunOptions)
	}
}

// A small file must not stand for a huge one.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 20; i++ {
		ref := fmt.Sprintf("*a%d", i-1)
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.Join([]string{ref, ref, ref, ref, ref, ref, ref, ref, ref}, ", "))
	}
	b.WriteString("steps: *a19\n")
	_, err := steps.LoadSteps(write(t, "mysteps.yaml", b.String()), nil)
	requireFault(t, err, fault.BadSteps, "each container step must be a mapping, got list")

	_, err = steps.LoadSteps(write(t, "mysteps.yaml", "a: &a [*a]\n"), nil)
	requireFault(t, err, fault.BadSteps)

	b.Reset()
	for i := range 40_000 {
		fmt.Fprintf(&b, "k%d: \n", i)
	}
	_, err = steps.LoadSteps(write(t, "mysteps.yaml", b.String()), nil)
	require.NoError(t, err, "many keys take no quadratic time")

	path := filepath.Join(t.TempDir(), "mysteps.yaml")
	require.NoError(t, os.WriteFile(path, []byte("# "+strings.Repeat("x", 1<<20)), 0o644))
	_, err = steps.LoadSteps(path, nil)
	requireFault(t, err, fault.BadSteps, "larger than")

	_, err = steps.LoadSteps(t.TempDir(), nil)
	requireFault(t, err, fault.BadSteps, "not a regular file")
}
