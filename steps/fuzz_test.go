package steps

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps/ipa"
)

// needFault fails unless err is one that an operator can read.
func needFault(t *testing.T, err error) {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) {
		t.Fatalf("not a fault.Error: %v", err)
	}
}

// FuzzSteps reads any bytes as a steps file. What it accepts can be listed, and
// each step of it that has a usable name can be decided on.
func FuzzSteps(f *testing.F) {
	for _, seed := range []string{
		"", "steps: []\n", "steps:\n- {name: a, image: b, priority: 90, interface: deploy, reboot_requested: false, abortable: true}\n",
		"a: &a [*a]\n", "steps: [{<<: {name: a}, image: b}]\n", "careen: {aliases: [x], sequence: true}\n", "\xff", "a: !!int 5\n",
		"steps:\n- name: a\n  image: b\n  priority: 16\n  interface: deploy\n  reboot_requested: false\n  abortable: true\n" +
			"  run_options: |\n    --rm\n  careen: {timeout: 1h, reboot_exit_codes: [1], critical: true, inputs: [a]}\n",
	} {
		f.Add([]byte(seed))
	}
	cfg := &Config{Runner: "podman"}
	f.Fuzz(func(t *testing.T, data []byte) {
		cat, err := parseSteps("steps.yaml", data, nil)
		if err != nil {
			needFault(t, err)
			return
		}
		for i, s := range cat.List("clean") {
			if s.Step == "" || s.Interface == "" {
				t.Fatalf("step %d has no name or interface: %+v", i, s)
			}
		}
		for _, s := range cat.steps {
			if strings.HasPrefix(s.name, "_") {
				continue
			}
			ds, err := cfg.Resolve(cat, Request{Step: s.name})
			if err != nil || ds[0].Verify() != nil || !ds[0].Trusted {
				t.Fatalf("step %q: %v", s.name, err)
			}
		}
	})
}

// FuzzTOML reads any bytes as careen.toml.
func FuzzTOML(f *testing.F) {
	for _, seed := range []string{
		"", "local_policy = 'enforce'\n", "[steps]\ntimeout = '1h'\n", "[[allow]]\nimage = 'a'\nrun_options = ['--rm']\n",
		"allow = [{image = 'a'}]\n", "allow.x = 1\n", "[allow]\n", "[[allow.x]]\n", "a = 1\na = 2\n", "ipa_config = []\n[other]\nx = 1\n", "[[allow]]\nglob = '**/*'\n",
		"\"allow\" = []", "steps = 1", "[[steps]]", "a.b.c = {d = 1}\n",
	} {
		f.Add([]byte(seed))
	}
	canon := func(words []string) ([]string, error) { return words, nil }
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := &Config{sources: map[string]string{}, canon: [2]Canonicalizer{canon, canon}}
		if _, _, err := cfg.parseTOML("careen.toml", data); err != nil {
			needFault(t, err)
			return
		}
		for i := range cfg.Rules {
			r := &cfg.Rules[i]
			if r.Image == "" && r.Digest == "" && r.Repository == "" && r.Glob == "" {
				t.Fatalf("a rule that matches everything: %+v", r)
			}
		}
		var other struct{ X int }
		if _, err := cfg.Section("other", &other); err != nil {
			needFault(t, err)
		}
		cfg.Unclaimed()
		cfg.InForce()
	})
}

// FuzzOptions reads any JSON as a step's option list.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{`null`, `"--rm  -e A=b"`, `["a b", 1, 1.5, null, true, ["x'", "\u001c"]]`, `{}`, `{"a":1}`, `5`, `false`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if d.Decode(&v) != nil {
			return
		}
		words, err := asOptions(v)
		if err != nil {
			return
		}
		for _, w := range words {
			if w == "" || len(ipa.Fields(w)) != 1 {
				t.Fatalf("word %q", w)
			}
		}
		again, err := asOptions(words)
		if err != nil || !reflect.DeepEqual(again, words) {
			t.Fatalf("%q is not its own splitting: %q", words, again)
		}
	})
}

// FuzzReference checks that a rule never looks into a reference it cannot read.
func FuzzReference(f *testing.F) {
	for _, seed := range []string{"a", "docker://r.example:5000/a/b:1@sha256:" + strings.Repeat("a", 64), "dir:/x", "[::1]:5000/x", "a b", "oci:x:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, image string) {
		ref, ok := splitReference(normalize(image))
		if !ok {
			return
		}
		whole := ref.repository
		if ref.tag != "" {
			whole += ":" + ref.tag
		}
		if ref.digest != "" {
			whole += "@" + ref.digest
		}
		if whole != ref.whole || strings.ContainsFunc(whole, ipa.Space) || strings.Contains(whole, "..") {
			t.Fatalf("%q was read as %+v", image, ref)
		}
	})
}
