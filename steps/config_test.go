package steps_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

func source(t *testing.T, cfg *steps.Config, key string) steps.Source {
	t.Helper()
	for _, s := range cfg.InForce() {
		if s.Key == key {
			return s
		}
	}
	t.Fatalf("no setting %s", key)
	return steps.Source{}
}

func TestDefaultsAreThoseOfIPA(t *testing.T) {
	cfg, warnings, err := steps.Load(steps.LoadOptions{IPA: []string{}, File: write(t, "careen.toml", "")})
	require.NoError(t, err)
	assert.Empty(t, warnings)
	assert.False(t, cfg.AllowArbitrary)
	assert.Empty(t, cfg.Allowed)
	assert.Equal(t, "/etc/ironic-python-agent.d/mysteps.yaml", cfg.StepsFile)
	assert.Equal(t, "podman", cfg.Runner)
	assert.Empty(t, cfg.PullOptions)
	assert.Equal(t, []string{"--rm", "--network=host"}, cfg.RunOptions)
	assert.Equal(t, steps.LocalRoot, cfg.LocalPolicy)
	for _, s := range cfg.InForce() {
		assert.Equal(t, "default", s.From, s.Key)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second.d")
	require.NoError(t, os.Mkdir(first, 0o755))
	require.NoError(t, os.Mkdir(second, 0o755))
	for path, text := range map[string]string{
		first + "/z.conf":   "[container]\nrunner = docker\nallowed_containers = first\npull_options = first\n",
		second + "/10.conf": "[container]\nallowed_containers = ten\nrun_options = --ten\n",
		second + "/20.conf": "[Container]\nallowed_containers = early\n[container]\nallowed_containers = twenty\n",
		second + "/.a.conf": "[container]\nallowed_containers = hidden\n",
		second + "/x.yaml":  "steps: []\n",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	require.NoError(t, os.Symlink(os.DevNull, second+"/30.conf"))
	cfg, _, err := steps.Load(steps.LoadOptions{
		IPA: []string{filepath.Join(dir, "absent.conf"), first, second}, File: write(t, "careen.toml", ""),
		Getenv: func(name string) (string, bool) { return "--env", name == "OS_CONTAINER__RUN_OPTIONS" },
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"twenty"}, cfg.Allowed)
	assert.Equal(t, "docker", cfg.Runner)
	assert.Equal(t, []string{"--env"}, cfg.RunOptions)
	assert.Equal(t, second+"/20.conf:4", source(t, cfg, "container.allowed_containers").From)
	assert.Equal(t, first+"/z.conf:4", source(t, cfg, "container.pull_options").From)
	assert.Equal(t, "environment OS_CONTAINER__RUN_OPTIONS", source(t, cfg, "container.run_options").From)

	next, warnings := cfg.WithConductor(map[string]any{"run_options": "--rm, --x y", "runner": "podman"})
	assert.Empty(t, warnings)
	assert.Equal(t, []string{"--rm", "--x y"}, next.RunOptions)
	assert.Equal(t, steps.Source{Key: "container.run_options", Value: `["--rm", "--x y"]`, From: "conductor"},
		source(t, next, "container.run_options"))
	assert.Equal(t, []string{"--env"}, cfg.RunOptions, "the configuration before is untouched")
}

func TestOsloFiles(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		line string
		want []string
	}{
		"list over lines":     {"[container]\nallowed_containers = a,\n  b,\n\tc\n", "", []string{"a", "b", "c"}},
		"quotes go":           {"[container]\nallowed_containers = \"a,b\"\n", "", []string{"a", "b"}},
		"colon":               {"[container]\nallowed_containers: a\n", "", []string{"a"}},
		"empty items stay":    {"[container]\nallowed_containers = a,,b,\n", "", []string{"a", "", "b"}},
		"escaped dollar":      {"[container]\nallowed_containers = $$a,\\$b,$$$$\n", "", []string{"$a", "$b", "$$"}},
		"lone dollar":         {"[container]\nallowed_containers = a$\n", ":2", nil},
		"CR LF":               {"[container]\r\nallowed_containers = a\r\n", "", []string{"a"}},
		"other section":       {"[containers]\nallowed_containers = a\n", "", []string{}},
		"comment":             {"# x\n[container]\n; y\nallowed_containers = a # b\n", "", []string{"a # b"}},
		"no section":          {"allowed_containers = a\n", ":1", nil},
		"open section":        {"[container]\n[other\n", ":2", nil},
		"nameless section":    {"[]\n", ":1", nil},
		"no assignment":       {"[container]\nallowed\n", ":2", nil},
		"no key":              {"[container]\n = a\n", ":2", nil},
		"stray continuation":  {"[container]\n  a\n", ":2", nil},
		"not UTF-8":           {"[container]\nallowed_containers = \xff\n", ":2", nil},
		"reference":           {"[container]\n\nallowed_containers = $host/a\n", ":3", nil},
		"braced reference":    {"[container]\nallowed_containers = ${container.runner}/a\n", ":2", nil},
		"bad boolean":         {"[container]\nallow_arbitrary_containers = maybe\n", ":2", nil},
		"bad runner":          {"[container]\nrunner = crun\n", ":2", nil},
		"broken elsewhere":    {"[container]\nallowed_containers = a\n[x]\nbroken\n", ":4", nil},
		"bad value is hidden": {"[container]\nrunner = crun\nrunner = podman\n", "", []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "a.conf", tc.text)
			cfg, _, err := steps.Load(steps.LoadOptions{IPA: []string{path}, File: write(t, "careen.toml", "")})
			if tc.want == nil {
				requireFault(t, err, fault.BadConfig, path+tc.line)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, cfg.Allowed)
		})
	}
}

func TestUnreadableFilesAreErrors(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "a.conf"), 0o755))
	_, _, err := steps.Load(steps.LoadOptions{IPA: []string{dir}, File: write(t, "careen.toml", "")})
	requireFault(t, err, fault.BadConfig, "not a regular file")

	big := write(t, "big.conf", "[container]\n"+string(make([]byte, 1<<20)))
	_, _, err = steps.Load(steps.LoadOptions{IPA: []string{big}, File: write(t, "careen.toml", "")})
	requireFault(t, err, fault.BadConfig, "larger than")

	_, _, err = steps.Load(steps.LoadOptions{IPA: []string{}, File: filepath.Join(dir, "named.toml")})
	requireFault(t, err, fault.BadConfig, "no such file")
}

func TestUnknownKeysWarn(t *testing.T) {
	cfg, warnings, err := load(t, "[container]\nallowed_container = a\nrun_options = --tls-verify=false\n",
		"colour = 1\n[steps]\ntimout = \"1h\"\n[agent]\nqueue = 3\nquue = 4\n")
	require.NoError(t, err)
	var texts []string
	for _, w := range warnings {
		texts = append(texts, w.Message)
		assert.NotEmpty(t, w.From)
	}
	assert.Equal(t, []string{
		`unknown key "steps.timout" is ignored`,
		`unknown option "allowed_container" in [container] is ignored`,
		`--tls-verify=false switches the check of the registry's certificate off for every step`,
	}, texts)

	var agent struct{ Queue int }
	more, err := cfg.Section("agent", &agent)
	require.NoError(t, err)
	assert.Equal(t, 3, agent.Queue)
	require.Len(t, more, 1)
	assert.Contains(t, more[0].String(), "careen.toml:6: unknown key \"agent.quue\"")

	unclaimed := cfg.Unclaimed()
	require.Len(t, unclaimed, 1)
	assert.Equal(t, "colour", unclaimed[0].Key)

	// Settings that careen had once say what serves in their place.
	cfg, _, err = load(t, "", "[peers]\nfrom = [\"http://10.0.0.5:5100\"]\nkeep = \"30m\"\n[agent]\nqueue = 3\n")
	require.NoError(t, err)
	unclaimed = cfg.Unclaimed()
	require.Len(t, unclaimed, 2)
	assert.Contains(t, unclaimed[1].String(), `careen.toml:1: the key "peers" is ignored: careen no longer exchanges layers between nodes: name a registry mirror in hosts.toml instead`)

	cfg, _, err = load(t, "", "\n\n\n[agent]\nqueue = 3\n")
	require.NoError(t, err)
	var bad struct{ Queue string }
	_, err = cfg.Section("agent", &bad)
	requireFault(t, err, fault.BadConfig, "careen.toml:5")
	more, err = cfg.Section("absent", &bad)
	require.NoError(t, err)
	assert.Empty(t, more)
}

func TestTOML(t *testing.T) {
	ipa := write(t, "elsewhere.conf", "[container]\nallowed_containers = a\n")
	cfg, _, err := steps.Load(steps.LoadOptions{File: write(t, "careen.toml",
		"ipa_config = ['"+ipa+"']\nlocal_policy = 'enforce'\n[steps]\ntimeout = '2h'\nsilence_timeout = '30m'\n")})
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, cfg.Allowed)
	assert.Equal(t, steps.LocalEnforce, cfg.LocalPolicy)
	assert.Equal(t, 2*time.Hour, cfg.Defaults.Timeout)
	assert.Equal(t, 30*time.Minute, cfg.Defaults.SilenceTimeout)

	for name, tc := range map[string]struct{ toml, words string }{
		"syntax":             {"a = 1\nb = = 2\n", "careen.toml:2"},
		"twice":              {"a = 1\na = 2\n", "careen.toml:2"},
		"wrong type":         {"local_policy = 1\n", "careen.toml:1"},
		"unknown policy":     {"\nlocal_policy = 'open'\n", "careen.toml:2"},
		"bad time":           {"[steps]\ntimeout = '2 hours'\n", "careen.toml:2"},
		"time without unit":  {"[steps]\ntimeout = 90\n", "is not a time"},
		"rule without unit":  {"[[allow]]\nimage = 'a'\ntimeout = 90\n", "is not a time"},
		"negative time":      {"[steps]\ntimeout = '-2h'\n", "negative"},
		"empty rule":         {"[[allow]]\nname = 'x'\n", "one of image, digest, repository and glob is required"},
		"misspelt in rule":   {"[[allow]]\nimage = 'x'\nphase = ['clean']\n", `careen.toml:3: unknown key "phase" in an allow entry`},
		"upper case":         {"[[Allow]]\nimage = 'x'\nphase = ['clean']\n", `careen.toml:1: the key "Allow" must be in lower case`},
		"rule of bad phase":  {"[[allow]]\nimage = 'x'\n\n[[allow]]\nimage = 'y'\nphases = ['cleaning']\n", "careen.toml:4"},
		"rule of bad digest": {"[[allow]]\ndigest = 'sha256:12'\n", "64 hexadecimal digits"},
		"rule with tag":      {"[[allow]]\nrepository = 'r.example/a:1'\n", "without tag and digest"},
		"rule of bad option": {"[[allow]]\nimage = 'x'\nrun_options = ['--what']\n", "unknown option --what"},
		"rule with an image": {"[[allow]]\nimage = 'x'\nrun_options = ['evil']\n", "unknown option evil"},
		"bad exit code":      {"[[allow]]\nimage = 'x'\nreboot_exit_codes = [0]\n", "between 1 and 255"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := load(t, "", tc.toml)
			requireFault(t, err, fault.BadConfig, tc.words)
		})
	}
	_, _, err = steps.Load(steps.LoadOptions{IPA: []string{}, File: write(t, "careen.toml",
		"[[allow]]\nimage = 'x'\nrun_options = ['--rm']\n")})
	requireFault(t, err, fault.BadConfig, "options cannot be compared here")
}

func TestConductor(t *testing.T) {
	cfg := mustLoad(t, "[container]\nallowed_containers = a\nallow_arbitrary_containers = true\n", "")
	for name, tc := range map[string]struct {
		options map[string]any
		warning string
		check   func(*testing.T, *steps.Config)
	}{
		"unknown": {map[string]any{"color": 1}, "Ignoring unknown [container] option color sent by the conductor", nil},
		"bad boolean keeps the old": {map[string]any{"allow_arbitrary_containers": "maybe"}, "Ignoring invalid value",
			func(t *testing.T, c *steps.Config) { assert.True(t, c.AllowArbitrary) }},
		"number is no boolean": {map[string]any{"allow_arbitrary_containers": 1.0}, "must be a boolean, got int",
			func(t *testing.T, c *steps.Config) { assert.True(t, c.AllowArbitrary) }},
		"null closes": {map[string]any{"allow_arbitrary_containers": nil}, "",
			func(t *testing.T, c *steps.Config) { assert.False(t, c.AllowArbitrary) }},
		"other runner": {map[string]any{"runner": "crun"}, "Ignoring invalid value for [container]runner",
			func(t *testing.T, c *steps.Config) { assert.Equal(t, "podman", c.Runner) }},
		"list of text": {map[string]any{"run_options": []any{"--a b", "1"}}, "",
			func(t *testing.T, c *steps.Config) { assert.Equal(t, []string{"--a b", "1"}, c.RunOptions) }},
		"list of anything": {map[string]any{"run_options": []any{"--a b", 1.0}},
			"[container]run_options cannot be used: the list is not text: item 2 must be a string, got int: put it in quotes", nil},
		"text is split on commas": {map[string]any{"allowed_containers": " a , docker://b,, "}, "",
			func(t *testing.T, c *steps.Config) { assert.Equal(t, []string{"a", "docker://b"}, c.Allowed) }},
		"reference": {map[string]any{"pull_options": []any{"$x"}}, "cannot be used", nil},
	} {
		t.Run(name, func(t *testing.T) {
			next, warnings := cfg.WithConductor(tc.options)
			if tc.warning == "" {
				assert.Empty(t, warnings)
			} else {
				require.Len(t, warnings, 1)
				assert.Contains(t, warnings[0].String(), tc.warning)
				assert.Equal(t, "conductor", warnings[0].From)
			}
			if tc.check != nil {
				tc.check(t, next)
			}
		})
	}
}

// A value that cannot be used refuses what needs it, and nothing else.
func TestUnusableValues(t *testing.T) {
	cfg := mustLoad(t, "[container]\nallowed_containers = a\n", "")
	run := func(c *steps.Config, args map[string]any) error {
		_, err := c.Resolve(nil, steps.Request{Step: steps.GenericStep, Args: args})
		return err
	}
	listed := map[string]any{"container_url": "a"}

	null, warnings := cfg.WithConductor(map[string]any{"allowed_containers": nil})
	require.Len(t, warnings, 1)
	requireFault(t, run(null, listed), fault.BadConfig, "[container]allowed_containers cannot be used: the conductor sent null")
	back, _ := null.WithConductor(map[string]any{"allowed_containers": []any{"a"}})
	require.NoError(t, run(back, listed))

	broken, _ := cfg.WithConductor(map[string]any{"run_options": "$secret", "allow_arbitrary_containers": true})
	requireFault(t, run(broken, listed), fault.BadConfig, "run_options")
	require.NoError(t, run(broken, map[string]any{"container_url": "a", "run_options": "--rm"}))

	// IPA takes such a list over as Python writes it, so the old one no longer holds.
	number, _ := cfg.WithConductor(map[string]any{"allowed_containers": []any{"b", 5.0}})
	requireFault(t, run(number, listed), fault.BadConfig, "allowed_containers", "item 2 must be a string")

	for _, value := range []any{nil, "$x/steps.yaml", 5.0} {
		nowhere, _ := cfg.WithConductor(map[string]any{"container_steps_file": value})
		_, err := nowhere.LoadSteps(nil)
		requireFault(t, err, fault.BadConfig, "container_steps_file")
		assert.Empty(t, nowhere.StepsFile)
	}

	runner, _ := cfg.WithConductor(map[string]any{"runner": nil})
	requireFault(t, run(runner, listed), fault.BadConfig, "runner")
}

// What is shown of the configuration carries no secrets.
func TestInForceHidesSecrets(t *testing.T) {
	cfg := mustLoad(t, "", "[[allow]]\nimage = 'x'\nrun_options = ['-e PW=hunter2']\npull_options = ['--creds=me:hunter2']\n")
	cfg, _ = cfg.WithConductor(map[string]any{
		"run_options":  []any{"--rm", "-e A=hunter2 --env=B=hunter2", "-eC=hunter2", "-e", "D=hunter2", "-e HOME", "--env", "E=hunter2", "-ite", "F=hunter2"},
		"pull_options": "--creds me:hunter2 --decryption-key=k:hunter2",
	})
	var all []string
	for _, s := range cfg.InForce() {
		all = append(all, s.Value)
	}
	assert.NotContains(t, strings.Join(all, " "), "hunter2")
	assert.Contains(t, all, `["--rm", "-e A=*** --env=B=***", "-eC=***", "-e", "D=***", "-e HOME", "--env", "E=***", "-ite", "F=***"]`)
	assert.Contains(t, all, `["--creds *** --decryption-key=***"]`)
	assert.Contains(t, all, `image="x" run_options="-e PW=***" pull_options="--creds=***"`)
	assert.Equal(t, []string{"--creds me:hunter2 --decryption-key=k:hunter2"}, cfg.PullOptions)
}
