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

// Config is the configuration that decides what may run. A Config does not change
// after it was made, so it can be shared without a lock.
type Config struct {
	// AllowArbitrary, Allowed, StepsFile, Runner, PullOptions and RunOptions are IPA's
	// [container] options. AllowArbitrary permits every image.
	AllowArbitrary bool
	// Allowed are the images that step arguments may name.
	Allowed []string
	// StepsFile is the path of the YAML steps.
	StepsFile string
	// Runner is podman or docker. careen only shows it: it runs containers itself.
	Runner string
	// PullOptions and RunOptions are for steps without options. The items are not yet
	// split into words.
	PullOptions, RunOptions []string

	// LocalPolicy says whether the policy applies to direct requests of local root.
	LocalPolicy LocalPolicy
	// Rules are the allow entries of careen.toml.
	Rules []Rule
	// Defaults are limits for steps that name none of their own.
	Defaults Limits
	// Node are the settings of the node that pulls.
	Node NodeSettings

	// cafile is IPA's own, see [Config.IPACAFile].
	cafile string
	// broken are options whose value cannot be used. A request that needs one is
	// refused.
	broken  map[string]error
	sources map[string]string
	toml    *tomlFile
	canon   [2]Canonicalizer

	// The sources of IPA's options, and the warnings about careen.toml.
	ipaPaths     []string
	getenv       func(string) (string, bool)
	tomlWarnings []Warning
	// shown are settings of other packages.
	shown []Source
}

// LocalPolicy says whether the policy applies to direct requests of local root.
type LocalPolicy string

const (
	// LocalRoot permits them: root on the node can start containers anyway.
	LocalRoot LocalPolicy = "root"
	// LocalEnforce applies the policy of untrusted steps.
	LocalEnforce LocalPolicy = "enforce"
)

// Limits are careen's additions to a step. All are optional; 0 is none.
type Limits struct {
	// Timeout bounds the whole run, pull included.
	Timeout time.Duration
	// SilenceTimeout is the longest time that a container may write no output.
	SilenceTimeout time.Duration
	// RebootExitCodes are exit codes that mean success with a wish to reboot.
	RebootExitCodes []int
	// Critical delays abort, timeouts and reboot until the container ends.
	Critical bool
	// Inputs are steps of the same file whose last results the container receives.
	Inputs []string
}

// Source is one setting in force and its origin.
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
// "--volume=/dev:/dev" compare equal. It returns an error for an unknown option.
type Canonicalizer func(words []string) ([]string, error)

// LoadOptions are the sources of the configuration.
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
	// CanonicalRun and CanonicalPull serve rules about options. Without them a
	// configuration with such rules is an error.
	CanonicalRun, CanonicalPull Canonicalizer
}

// optionNames are IPA's [container] options, in the order they are shown.
var optionNames = []string{
	"allow_arbitrary_containers", "allowed_containers", "container_steps_file",
	"runner", "pull_options", "run_options",
}

// Load reads IPA's files, careen.toml and the environment. An absent file is no
// error. For a file that cannot be read or is not valid it returns a *[fault.Error]
// with code bad_config; then nothing may run. IPA does not start then either.
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

// Reload returns a copy of c with IPA's options read anew from the files and the
// environment, and all warnings, as [Load] does. It does not read careen.toml again,
// and drops the conductor's options. IPA copies files from virtual media into its
// directories when it starts, which is after careen. The error has code bad_config.
func (c *Config) Reload() (*Config, []Warning, error) {
	next := *c
	next.sources = maps.Clone(c.sources)
	warnings, err := next.loadIPA()
	if err != nil {
		return nil, nil, err
	}
	return &next, warnings, nil
}

// loadIPA sets IPA's options to their defaults, then to the values found.
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

// advice returns warnings about settings that are valid and likely a mistake.
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
		var value string
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

// Show adds settings of another package to those of [Config.InForce], and warnings to
// those of [Config.Reload]. Call it before c is shared. A setting with an empty From is
// a default.
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
