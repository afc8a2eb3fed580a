package steps

import (
	"errors"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps/ipa"
)

// DefaultConfigFile is careen's own configuration.
const DefaultConfigFile = "/etc/careen/careen.toml"

// DefaultStepsFile is where IPA and its ramdisks put the steps.
const DefaultStepsFile = "/etc/ironic-python-agent.d/mysteps.yaml"

// DefaultIPAConfig is where IPA's own configuration is looked for: oslo.config's
// default file, then the two directories that ramdisks pass as --config-dir. A
// later one wins. A directory stands for its *.conf, sorted by name.
func DefaultIPAConfig() []string {
	return []string{"/etc/ironic-python-agent.conf", "/etc/ironic-python-agent", "/etc/ironic-python-agent.d"}
}

// Config is everything that decides what may run. The exported fields are IPA's
// [container] options as they are in force; a Config is not changed after it was
// made, so it can be shared without a lock.
type Config struct {
	// AllowArbitrary switches the allowlist off.
	AllowArbitrary bool
	// Allowed are the images that step arguments may name.
	Allowed []string
	// StepsFile is the path of the YAML steps.
	StepsFile string
	// Runner is podman or docker. careen runs containers itself and only shows it.
	Runner string
	// PullOptions and RunOptions are what a step without its own options gets,
	// as list items, not yet split into words.
	PullOptions, RunOptions []string

	// LocalPolicy says what a direct image request on the socket is subject to.
	LocalPolicy LocalPolicy
	// Rules are careen's own allow entries, none by default.
	Rules []Rule
	// Defaults are limits for steps that name none of their own.
	Defaults Limits
	// Node are the settings of the node that pulls.
	Node NodeSettings

	// cafile is IPA's own, see [Config.IPACAFile].
	cafile string
	// broken are options whose value cannot be used; a decision that needs one
	// is refused.
	broken  map[string]error
	sources map[string]string
	toml    *tomlFile
	canon   [2]Canonicalizer

	// What IPA's options are read from, and what careen.toml had to be warned of.
	ipaPaths     []string
	getenv       func(string) (string, bool)
	tomlWarnings []Warning
	// shown are settings of other packages.
	shown []Source
}

// LocalPolicy is what a direct image request of local root is subject to.
type LocalPolicy string

const (
	// LocalRoot lets it through: root on the node can do anything anyway.
	LocalRoot LocalPolicy = "root"
	// LocalEnforce holds it to the policy of untrusted steps.
	LocalEnforce LocalPolicy = "enforce"
)

// Limits are the additions of careen's own to a step: all optional, 0 is none.
type Limits struct {
	// Timeout bounds the whole run, pull included.
	Timeout time.Duration
	// SilenceTimeout ends a container that writes no output for so long.
	SilenceTimeout time.Duration
	// RebootExitCodes are exit codes that mean: done, and reboot the node.
	RebootExitCodes []int
	// Critical holds off abort, timeouts and reboot for as long as the container runs.
	Critical bool
	// Inputs are steps of the same file whose last results the container is given.
	Inputs []string
}

// Source is one setting in force and where it comes from.
type Source struct {
	// Key is "container.NAME" for IPA's options, else the key of careen.toml.
	Key string `json:"key"`
	// Value is the value as text, lists as JSON-like lists of quoted strings.
	Value string `json:"value"`
	// From is "FILE:LINE", "environment NAME", "conductor" or "default".
	From string `json:"from"`
}

// Warning is something that was ignored or is likely a mistake.
type Warning struct {
	// Key is the setting or step concerned.
	Key string `json:"key,omitempty"`
	// Message is one line.
	Message string `json:"message"`
	// From is where it stands, as in [Source].
	From string `json:"from,omitempty"`
}

// String returns the warning on one line.
func (w Warning) String() string {
	if w.From == "" {
		return w.Message
	}
	return w.From + ": " + w.Message
}

// Canonicalizer turns option words of "podman run" or "podman pull" into one
// canonical "--long=value" string per option, so that "-v /dev:/dev" and
// "--volume=/dev:/dev" compare equal. It must fail on what it does not know.
type Canonicalizer func(words []string) ([]string, error)

// LoadOptions says where the configuration comes from.
type LoadOptions struct {
	// IPA replaces [DefaultIPAConfig] and the key ipa_config of careen.toml. An
	// empty list reads none of IPA's files.
	IPA []string
	// File is careen.toml; "" is [DefaultConfigFile], which may be absent. A file
	// named here must exist.
	File string
	// Getenv reads oslo.config's variables OS_CONTAINER__NAME, which win over
	// files. Nil reads none.
	Getenv func(string) (string, bool)
	// CanonicalRun and CanonicalPull serve the option rules of Rules. Without
	// them a configuration with such rules is refused.
	CanonicalRun, CanonicalPull Canonicalizer
}

// optionNames are IPA's [container] options, in the order they are shown.
var optionNames = []string{
	"allow_arbitrary_containers", "allowed_containers", "container_steps_file",
	"runner", "pull_options", "run_options",
}

// Load reads IPA's files, careen.toml and the environment. An absent file is no
// error; one that cannot be read or is not valid is a *[fault.Error] with code
// bad_config, and nothing may run on its ground: IPA does not start then either.
func Load(opts LoadOptions) (*Config, []Warning, error) {
	c := &Config{
		LocalPolicy: LocalRoot,
		sources:     map[string]string{},
		canon:       [2]Canonicalizer{opts.CanonicalRun, opts.CanonicalPull},
		getenv:      opts.Getenv,
	}
	var err error
	if c.ipaPaths, c.tomlWarnings, err = c.loadTOML(opts); err != nil {
		return nil, nil, err
	}
	more, err := c.loadNode()
	if err != nil {
		return nil, nil, err
	}
	c.tomlWarnings = append(c.tomlWarnings, more...)
	if opts.IPA != nil {
		c.ipaPaths = opts.IPA
	}
	warnings, err := c.loadIPA()
	if err != nil {
		return nil, nil, err
	}
	return c, warnings, nil
}

// Reload returns a copy of c with IPA's options as the files and the environment
// have them now, and all warnings as [Load] returns them; what the conductor sent is
// not in it, careen.toml is as it was. IPA copies files from virtual media into its
// directories when it starts, which is after careen.
func (c *Config) Reload() (*Config, []Warning, error) {
	next := *c
	next.sources = maps.Clone(c.sources)
	warnings, err := next.loadIPA()
	if err != nil {
		return nil, nil, err
	}
	return &next, warnings, nil
}

// loadIPA sets IPA's options to their defaults and to what is found.
func (c *Config) loadIPA() ([]Warning, error) {
	c.AllowArbitrary, c.Allowed = false, []string{}
	c.StepsFile, c.Runner = DefaultStepsFile, "podman"
	c.PullOptions, c.RunOptions = []string{}, []string{"--rm", "--network=host"}
	c.broken, c.cafile = map[string]error{}, ""
	delete(c.sources, cafileOption)
	for _, key := range optionNames {
		delete(c.sources, key)
	}
	found, err := ipa.Load(c.ipaPaths, c.getenv, environmentKeys())
	var bad *ipa.Error
	if errors.As(err, &bad) {
		return nil, configError(bad.File, bad.Line, bad.Err)
	}
	warnings, err := c.applyIPA(found)
	if err != nil {
		return nil, err
	}
	return slices.Concat(c.tomlWarnings, warnings, c.advice()), nil
}

// advice returns warnings on settings that are valid and hardly meant.
func (c *Config) advice() []Warning {
	var warnings []Warning
	for _, key := range []string{"run_options", "pull_options"} {
		for _, item := range *c.list(key) {
			if strings.Contains(item, "--tls-verify=false") {
				warnings = append(warnings, Warning{
					Key: "container." + key, From: c.from(key),
					Message: "--tls-verify=false switches the check of the registry's certificate off for every step",
				})
			}
		}
	}
	return warnings
}

// InForce lists every setting with its value and origin, in a fixed order.
func (c *Config) InForce() []Source {
	var out []Source
	add := func(key, name, value string) {
		out = append(out, Source{Key: name, Value: value, From: c.from(key)})
	}
	for _, key := range optionNames {
		value := ""
		switch key {
		case "allow_arbitrary_containers":
			value = strconv.FormatBool(c.AllowArbitrary)
		case "container_steps_file":
			value = c.StepsFile
		case "runner":
			value = c.Runner
		default:
			value = quoteList(redact(*c.list(key)))
		}
		if err := c.broken[key]; err != nil {
			value = "unusable: " + err.Error()
		}
		add(key, "container."+key, value)
	}
	add("local_policy", "local_policy", string(c.LocalPolicy))
	add("steps.timeout", "steps.timeout", c.Defaults.Timeout.String())
	add("steps.silence_timeout", "steps.silence_timeout", c.Defaults.SilenceTimeout.String())
	out = append(out, c.nodeInForce()...)
	for _, rule := range c.Rules {
		out = append(out, Source{Key: "allow", Value: rule.String(), From: rule.From})
	}
	return append(out, c.shown...)
}

// Show adds settings of another package to what [Config.InForce] lists, and warnings to
// those of [Config.Reload]. It is for the time before c is shared. A setting with an
// empty From is a default.
func (c *Config) Show(settings []Source, warnings []Warning) {
	for _, s := range settings {
		if s.From == "" {
			s.From = "default"
		}
		c.shown = append(c.shown, s)
	}
	c.tomlWarnings = append(c.tomlWarnings, warnings...)
}

func (c *Config) from(key string) string {
	if from, ok := c.sources[key]; ok {
		return from
	}
	return "default"
}

func quoteList(items []string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = strconv.Quote(item)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func configError(subject string, line int, err error) error {
	if line > 0 {
		subject += ":" + strconv.Itoa(line)
	}
	return &fault.Error{
		Code: fault.BadConfig, Op: "read configuration", Subject: subject, Err: err,
		Remedy: "Correct the configuration and restart the agent",
	}
}
