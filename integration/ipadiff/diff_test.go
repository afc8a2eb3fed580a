package ipadiff

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

// stricter are the reasons for which careen refuses what IPA accepts; docs/steps.md
// has the same list. A refusal for any other reason fails the test.
var stricter = []*regexp.Regexp{
	// Options that are not text: IPA makes text of them by Python's str().
	regexp.MustCompile(`must be a list or a string, got dict|item \d+ must be a string|a value of type \w+ is not text`),
	// Values that YAML 1.1 and YAML 1.2 read differently.
	ambiguous,
	// References to IPA's other options are not known to careen.
	regexp.MustCompile(`references to other options \(\$NAME\) are not supported`),
	// A trusted step whose arguments replace its image would run any image.
	regexp.MustCompile(`a step of the steps file takes no arguments`),
	// Types that IPA passes on to the conductor unchecked.
	regexp.MustCompile(`'priority' must be a whole number|'interface' must be a non-empty string|must be true or false, got`),
	regexp.MustCompile(`'(name|image)' must be a non-empty string`),
	regexp.MustCompile(`options must be a string or a list of strings`),
	// YAML that PyYAML reads and that is hardly meant.
	regexp.MustCompile(`is there twice|a key must be a string|ends in a colon|a directive:|a tab:|nested deeper|stands for a value that holds it`),
}

// ambiguous are the refusals of what the versions of YAML do not have in common.
var ambiguous = regexp.MustCompile(`is not the same in every version of YAML|merge keys \(<<\)|the tag .* is not supported`)

// excused reports whether err is for a documented reason.
func excused(err error) bool {
	for _, re := range stricter {
		if re.MatchString(err.Error()) {
			return true
		}
	}
	return false
}

// node is a configuration and a steps file, for both sides.
type node struct {
	dir string
	o   *oracle
}

func newNode(t *testing.T) *node {
	n := &node{dir: t.TempDir(), o: newOracle(t)}
	require.NoError(t, os.Mkdir(filepath.Join(n.dir, "conf.d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(n.dir, "careen.toml"), nil, 0o644))
	return n
}

// load gives careen the configuration of a question.
func (n *node) load(t require.TestingT, q question) (*steps.Config, error) {
	file := filepath.Join(n.dir, "conf.d", "a.conf")
	if q.File == nil {
		_ = os.Remove(file) // absent is what is wanted
	} else {
		require.NoError(t, os.WriteFile(file, []byte(*q.File), 0o644))
	}
	cfg, _, err := steps.Load(steps.LoadOptions{
		IPA: []string{filepath.Join(n.dir, "conf.d")}, File: filepath.Join(n.dir, "careen.toml"),
		Getenv: func(name string) (string, bool) { v, ok := q.Env[name]; return v, ok },
	})
	if err != nil {
		return nil, err
	}
	if q.Override != nil {
		m, ok := decode(t, q.Override).(map[string]any)
		require.True(t, ok)
		cfg, _ = cfg.WithConductor(m)
	}
	return cfg, nil
}

// catalogue gives careen the steps file of a question.
func (n *node) catalogue(t require.TestingT, q question) (*steps.Catalogue, error) {
	// Under the oracle's name, for IPA names the file in a message.
	file := filepath.Join(n.dir, "mysteps.yaml")
	if q.YAML == nil {
		_ = os.Remove(file)
	} else {
		require.NoError(t, os.WriteFile(file, []byte(*q.YAML), 0o644))
	}
	return steps.LoadSteps(file, nil)
}

// sameOutcome compares refusals. It reports whether both sides accept.
func sameOutcome(t *rapid.T, a *answer, err error) bool {
	switch {
	case a.refused() && err == nil:
		t.Fatalf("IPA refuses with %s (%s) and careen allows", a.Error, a.Text)
	case a.refused():
		sameError(t, a, err)
		return false
	case err != nil:
		if !excused(err) {
			t.Fatalf("careen refuses what IPA allows: %v", err)
		}
		return false
	}
	return true
}

// sameError checks code and text of a refusal where IPA's are worth keeping.
func sameError(t *rapid.T, a *answer, err error) {
	var e *fault.Error
	if !errors.As(err, &e) {
		t.Fatalf("not a fault.Error: %v", err)
	}
	if a.Stage != "step" || excused(err) {
		return
	}
	want := map[string]fault.Code{
		"ContainerNotPermittedError": fault.Policy,
		"InvalidCommandParamsError":  fault.BadRequest,
	}
	if code, ok := want[a.Error]; ok {
		if e.Code != code {
			t.Fatalf("IPA refuses with %s, careen with %s: %v", a.Error, e.Code, err)
		}
		if !strings.Contains(err.Error(), a.Text) {
			t.Fatalf("IPA's text %q is not in careen's %q", a.Text, err)
		}
	}
}

// sometimes draws a value of g, or nothing.
func sometimes[V any](t *rapid.T, label string, g *rapid.Generator[V]) *V {
	if !rapid.Bool().Draw(t, label+"?") {
		return nil
	}
	v := g.Draw(t, label)
	return &v
}

func drawConf(t *rapid.T) question {
	q := question{File: sometimes(t, "file", confFile())}
	if m := sometimes(t, "override", override()); m != nil {
		q.Override = raw(t, *m)
	}
	return q
}

// drawAllowed is a configuration that is valid and whose list has the image more
// often than chance would have it.
func drawAllowed(t *rapid.T, url any) question {
	m := map[string]any{}
	if rapid.IntRange(0, 3).Draw(t, "arbitrary") == 0 {
		m["allow_arbitrary_containers"] = rapid.Bool().Draw(t, "allow")
	}
	list := []any{}
	for range rapid.IntRange(0, 3).Draw(t, "images") {
		list = append(list, image().Draw(t, "image"))
	}
	if s, ok := url.(string); ok && rapid.Bool().Draw(t, "listed") {
		list = append(list, rapid.SampledFrom([]string{"", "docker://", "oci://", "http://"}).Draw(t, "prefix")+s)
	}
	m["allowed_containers"] = list
	for _, key := range []string{"pull_options", "run_options"} {
		if rapid.Bool().Draw(t, key) {
			m[key] = optionsValue().Filter(isOptions).Draw(t, "options")
		}
	}
	return question{Override: raw(t, m)}
}

// isOptions reports whether IPA gets through the lookup with v for a list option.
func isOptions(v any) bool {
	switch v.(type) {
	case nil, string, []any:
		return true
	}
	return false
}

func drawURL(t *rapid.T) any {
	if rapid.IntRange(0, 14).Draw(t, "odd url") == 0 {
		return optionsValue().Draw(t, "url")
	}
	return image().Draw(t, "url")
}

// TestPolicy holds Resolve against _apply_container_policy, and against what IPA
// executes when the step is dispatched with the same arguments.
func TestPolicy(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var allowed, refused int
	check(t, 20_000, func(t *rapid.T) {
		url := drawURL(t)
		q := drawAllowed(t, url)
		if rapid.IntRange(0, 9).Draw(t, "any conf") == 0 {
			q = drawConf(t)
		}
		pull, run := optionsValue().Draw(t, "pull"), optionsValue().Draw(t, "run")
		q.URL, q.Pull, q.Run = raw(t, url), raw(t, pull), raw(t, run)
		q.Op = "policy"
		direct := n.o.ask(t, q)
		q.Op, q.Step = "run", rapid.SampledFrom([]string{steps.GenericStep, steps.DeprecatedStep}).Draw(t, "step")
		q.Args = raw(t, map[string]any{"container_url": url, "pull_options": pull, "run_options": run})
		executed := n.o.ask(t, q)
		if executed.Stage == "lookup" {
			return // the conductor's answer ends IPA; careen passes over what is wrong in it
		}

		cfg, err := n.load(t, q)
		var d *steps.Decision
		if err == nil {
			var ds []*steps.Decision
			ds, err = cfg.Resolve(steps.Builtin(), steps.Request{Step: q.Step, Args: decode(t, q.Args).(map[string]any)})
			if err == nil {
				d = ds[0]
			}
		}
		if direct.refused() && err == nil {
			t.Fatalf("_apply_container_policy refuses with %s and careen allows", direct.Text)
		}
		if !sameOutcome(t, executed, err) {
			refused++
			return
		}
		allowed++
		var policy struct{ Pull, Run []string }
		require.NoError(t, json.Unmarshal(direct.OK, &policy))
		require.Equal(t, policy.Pull, d.PullOptions)
		require.Equal(t, policy.Run, d.RunOptions)
		sameCommands(t, executed, cfg, d)
	})
	t.Logf("%d allowed, %d refused by both or by careen for a documented reason", allowed, refused)
}

// sameCommands compares a decision with the command lines that IPA executes.
func sameCommands(t *rapid.T, executed *answer, cfg *steps.Config, d *steps.Decision) {
	require.NoError(t, d.Verify())
	var argv [][]string
	require.NoError(t, json.Unmarshal(executed.OK, &argv))
	line := func(verb string, options []string) []string {
		return append(append([]string{cfg.Runner, verb}, options...), d.Image)
	}
	require.Equal(t, [][]string{
		{cfg.Runner, "--version"}, line("pull", d.PullOptions), line("run", d.RunOptions),
	}, argv)
}

// TestOptions holds the splitting of option lists against _as_options, by way of
// a configuration that allows everything.
func TestOptions(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	q := question{Op: "options"}
	cfg, err := n.load(t, question{Override: raw(t, map[string]any{
		"allow_arbitrary_containers": true, "pull_options": []string{}, "run_options": []string{},
	})})
	require.NoError(t, err)
	check(t, 5_000, func(t *rapid.T) {
		q.Value = raw(t, optionsValue().Draw(t, "value"))
		a := n.o.ask(t, q)
		args := map[string]any{"container_url": "a", "run_options": decode(t, q.Value)}
		ds, err := cfg.Resolve(nil, steps.Request{Step: steps.GenericStep, Args: args})
		var falsy bool
		switch string(q.Value) {
		case "false", "0", "{}", `0.0`:
			falsy = true // "value or configured" does not get as far as _as_options
		}
		if falsy || !sameOutcome(t, a, err) {
			return
		}
		var want []string
		require.NoError(t, json.Unmarshal(a.OK, &want))
		require.Equal(t, want, ds[0].RunOptions)
	})
}

// TestConfig holds the [container] options in force against IPA's, from a file,
// the environment and the conductor.
func TestConfig(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	check(t, 8_000, func(t *rapid.T) {
		q := drawConf(t)
		q.Op = "config"
		if rapid.IntRange(0, 9).Draw(t, "environment") == 0 {
			key := rapid.SampledFrom(overrideKeys[:5]).Draw(t, "key")
			value := strings.ReplaceAll(confValue(key).Draw(t, "value"), "\x00", "")
			q.Env = map[string]string{"OS_CONTAINER__" + strings.ToUpper(key): value}
		}
		a := n.o.ask(t, q)
		cfg, err := n.load(t, q)
		if a.Stage == "lookup" {
			if err != nil && !excused(err) {
				t.Fatalf("careen refuses what IPA allows: %v", err)
			}
			return // IPA ends here; careen passes over the option with a warning
		}
		if !sameOutcome(t, a, err) {
			return
		}
		sameConfig(t, a, cfg)
	})
}

func sameConfig(t *rapid.T, a *answer, cfg *steps.Config) {
	var want struct {
		Options map[string]struct {
			Value json.RawMessage
			Error string
		}
	}
	require.NoError(t, json.Unmarshal(a.OK, &want))
	unusable := map[string]bool{}
	for _, s := range cfg.InForce() {
		unusable[strings.TrimPrefix(s.Key, "container.")] = strings.HasPrefix(s.Value, "unusable: ")
	}
	have := map[string]any{
		"allow_arbitrary_containers": cfg.AllowArbitrary, "allowed_containers": cfg.Allowed, "container_steps_file": cfg.StepsFile,
		"runner": cfg.Runner, "pull_options": cfg.PullOptions, "run_options": cfg.RunOptions,
	}
	for key, w := range want.Options {
		null := string(w.Value) == "null"
		switch {
		case w.Error != "":
			require.True(t, unusable[key], "%s: IPA: %s", key, w.Error)
		case null && key == "allow_arbitrary_containers":
			require.False(t, cfg.AllowArbitrary)
		case null && (key == "pull_options" || key == "run_options"):
			require.Empty(t, have[key])
		case null:
			require.True(t, unusable[key], key)
		case !unusable[key]: // a reference that careen does not follow makes it so
			require.JSONEq(t, string(w.Value), string(raw(t, have[key])), key)
		}
	}
}

// TestLists holds the advertised steps of every phase against IPA's.
func TestLists(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var both, files, syntax, unclear int
	check(t, 6_000, func(t *rapid.T) {
		text := stepsFile().Draw(t, "yaml")
		mutated := rapid.IntRange(0, 2).Draw(t, "mutate") == 0
		if mutated {
			text = mutate(t, text)
		}
		q := question{Op: "list", YAML: &text, Phase: rapid.SampledFrom([]string{"clean", "deploy", "service"}).Draw(t, "phase")}
		a := n.o.ask(t, q)
		cat, err := n.catalogue(t, q)
		files++
		if mutated && !a.refused() && err != nil && strings.Contains(err.Error(), "not valid YAML") {
			syntax++ // a corner of YAML that the Go module reads more strictly than PyYAML
			return
		}
		if err != nil && ambiguous.MatchString(err.Error()) {
			unclear++
		}
		if !sameOutcome(t, a, err) {
			return
		}
		both++
		require.JSONEq(t, string(a.OK), string(raw(t, cat.List(q.Phase))))
	})
	t.Logf("%d of %d files accepted by both, %d ambiguous ones refused, %d not valid YAML for careen alone", both, files, unclear, syntax)
	require.Greater(t, both*5, files, "too few files are accepted for this test to tell anything")
	require.Less(t, syntax*20, files)
}

// TestFileSteps holds what a step of the steps file runs against IPA's dispatch.
func TestFileSteps(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var ran, unclear int
	check(t, 6_000, func(t *rapid.T) {
		text := stepsFile().Draw(t, "yaml")
		q := drawAllowed(t, nil)
		q.Op, q.YAML, q.Args = "run", &text, raw(t, map[string]any{})
		q.Step = stepName(t)
		if rapid.IntRange(0, 9).Draw(t, "args") == 0 {
			q.Args = raw(t, map[string]any{"container_url": "evil"})
		}
		if !rapid.Bool().Draw(t, "from file") {
			q.Step = "a"
		}
		q.Phase = "clean"
		list := q
		list.Op = "list"
		advertised := n.o.ask(t, list)
		a := n.o.ask(t, q)
		cfg, err := n.load(t, q)
		require.NoError(t, err)
		cat, err := n.catalogue(t, q)
		if a.Stage == "lookup" {
			return
		}
		if advertised.refused() {
			require.Error(t, err) // no list, so no step is asked for; careen runs none of the file
			return
		}
		if err != nil {
			require.True(t, excused(err), "%v", err)
			if ambiguous.MatchString(err.Error()) {
				unclear++
			}
			return
		}
		if strings.HasPrefix(q.Step, "get_") || q.Step == "erase_devices" || q.Step == "evaluate_hardware_support" ||
			q.Step == "STEPS" || q.Step == "__init__" {
			_, err = cfg.Resolve(cat, steps.Request{Step: q.Step, Phase: q.Phase})
			require.Error(t, err) // a method of IPA's own, not a container
			return
		}
		ds, err := cfg.Resolve(cat, steps.Request{Step: q.Step, Phase: q.Phase, Args: decode(t, q.Args).(map[string]any)})
		if !sameOutcome(t, a, err) {
			return
		}
		ran++
		sameCommands(t, a, cfg, ds[0])
	})
	t.Logf("%d steps ran on both sides, %d ambiguous files were refused", ran, unclear)
}
