package steps

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/fault"
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

	// broken are options whose value cannot be used; a decision that needs one
	// is refused.
	broken  map[string]error
	sources map[string]string
	toml    *tomlFile
	canon   [2]Canonicalizer
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
		StepsFile:   DefaultStepsFile,
		Runner:      "podman",
		Allowed:     []string{},
		PullOptions: []string{},
		RunOptions:  []string{"--rm", "--network=host"},
		LocalPolicy: LocalRoot,
		broken:      map[string]error{},
		sources:     map[string]string{},
		canon:       [2]Canonicalizer{opts.CanonicalRun, opts.CanonicalPull},
	}
	paths, warnings, err := c.loadTOML(opts)
	if err != nil {
		return nil, nil, err
	}
	if opts.IPA != nil {
		paths = opts.IPA
	}
	found := ipaOptions{}
	for _, path := range paths {
		if err := found.load(path); err != nil {
			return nil, nil, err
		}
	}
	found.environment(opts.Getenv)
	more, err := c.applyIPA(found)
	if err != nil {
		return nil, nil, err
	}
	return c, append(append(warnings, more...), c.advice()...), nil
}

// ipaOptions are the texts of the [container] options that win. One that is
// hidden by a later one is never converted, so it may be as bad as it likes.
type ipaOptions map[string]ipaOption

type ipaOption struct {
	value, file string
	line        int
}

// from is the option's place as in [Source].
func (o ipaOption) from() string {
	if o.line == 0 {
		return o.file
	}
	return o.file + ":" + strconv.Itoa(o.line)
}

// load reads a file, or the *.conf of a directory in their order.
func (found ipaOptions) load(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return configError(path, 0, err)
	}
	if !info.IsDir() {
		return found.file(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return configError(path, 0, err)
	}
	for _, entry := range entries {
		// Like Python's glob, which leaves out names that start with a dot.
		if strings.HasPrefix(entry.Name(), ".") || !strings.HasSuffix(entry.Name(), ".conf") {
			continue
		}
		if err := found.file(filepath.Join(path, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (found ipaOptions) file(path string) error {
	data, err := readLimited(path, maxOsloFile)
	if err != nil {
		return configError(path, 0, err)
	}
	assignments, err := parseOslo(data, "container")
	var bad *osloError
	switch {
	case errors.As(err, &bad):
		return configError(path, bad.line, errors.New(bad.msg))
	case err != nil:
		return configError(path, 0, err)
	}
	for _, a := range assignments {
		found[a.key] = ipaOption{a.value, path, a.line}
	}
	return nil
}

// environment reads the variables that win over files.
func (found ipaOptions) environment(getenv func(string) (string, bool)) {
	if getenv == nil {
		return
	}
	for _, key := range optionNames {
		name := "OS_CONTAINER__" + strings.ToUpper(key)
		if value, ok := getenv(name); ok {
			found[key] = ipaOption{value: value, file: "environment " + name}
		}
	}
}

func (c *Config) applyIPA(found ipaOptions) ([]Warning, error) {
	var warnings []Warning
	for _, key := range sortedKeys(found) {
		option := found[key]
		if !known(key) {
			warnings = append(warnings, Warning{
				Key: "container." + key, From: option.from(),
				Message: fmt.Sprintf("unknown option %q in [container] is ignored", key),
			})
			continue
		}
		if err := c.setText(key, option.value, option.from()); err != nil {
			return nil, configError(option.file, option.line, fmt.Errorf("[container]%s: %w", key, err))
		}
	}
	return warnings, nil
}

// setText applies a value that came as text: from a file or the environment.
// The references of oslo.config's templates are replaced before the text is
// taken apart.
func (c *Config) setText(key, value, from string) error {
	text, err := unescapeOslo(value)
	if err != nil {
		return err
	}
	return c.set(key, text, from)
}

// set applies a value of the type that the option takes, or its text.
func (c *Config) set(key string, value any, from string) error {
	switch key {
	case "allow_arbitrary_containers":
		b, err := toBool(value)
		if err != nil {
			return err
		}
		c.AllowArbitrary = b
	case "container_steps_file":
		s, err := pyStr(value)
		if err != nil {
			return err
		}
		c.StepsFile = s
	case "runner":
		s, err := pyStr(value)
		if err != nil || (s != "podman" && s != "docker") {
			return fmt.Errorf("valid values are podman and docker, but found %q", s)
		}
		c.Runner = s
	default:
		list, err := toList(value)
		if err != nil {
			return err
		}
		*c.list(key) = list
	}
	delete(c.broken, key)
	c.sources[key] = from
	return nil
}

// list returns the field of a list option.
func (c *Config) list(key string) *[]string {
	switch key {
	case "allowed_containers":
		return &c.Allowed
	case "pull_options":
		return &c.PullOptions
	default:
		return &c.RunOptions
	}
}

func toBool(value any) (bool, error) {
	switch v := value.(type) {
	case bool:
		return v, nil
	case string:
		return osloBool(v)
	}
	return false, fmt.Errorf("must be a boolean, got %s", pyType(value))
}

func toList(value any) ([]string, error) {
	var items []any
	switch v := value.(type) {
	case string:
		return osloList(v), nil
	case []string:
		return append([]string{}, v...), nil
	case []any:
		items = v
	default:
		return nil, fmt.Errorf("must be a list or a string, got %s", pyType(value))
	}
	list := make([]string, 0, len(items))
	for i, item := range items {
		text, err := pyStr(item)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		list = append(list, text)
	}
	return list, nil
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
			value = quoteList(*c.list(key))
		}
		if err := c.broken[key]; err != nil {
			value = "unusable: " + err.Error()
		}
		add(key, "container."+key, value)
	}
	add("local_policy", "local_policy", string(c.LocalPolicy))
	add("steps.timeout", "steps.timeout", c.Defaults.Timeout.String())
	add("steps.silence_timeout", "steps.silence_timeout", c.Defaults.SilenceTimeout.String())
	for _, rule := range c.Rules {
		out = append(out, Source{Key: "allow", Value: rule.String(), From: rule.From})
	}
	return out
}

func (c *Config) from(key string) string {
	if from, ok := c.sources[key]; ok {
		return from
	}
	return "default"
}

func known(key string) bool {
	for _, name := range optionNames {
		if name == key {
			return true
		}
	}
	return false
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
