package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/careen-project/careen/rootfs/file"
)

// maxTOMLFile bounds careen.toml.
const maxTOMLFile = 1 << 20

// tomlFile is careen.toml as read, for the sections of other packages.
type tomlFile struct {
	path string
	data []byte
	// lines are the first line of each top-level key; allow those of each entry.
	lines map[string]int
	allow []int
	// claimed are the top-level keys that a package has read.
	claimed map[string]bool
}

// tomlRoot are the keys of careen.toml that this package reads.
type tomlRoot struct {
	IPAConfig   *[]string `toml:"ipa_config"`
	LocalPolicy *string   `toml:"local_policy"`
	Steps       *tomlSteps
	Allow       []tomlRule
}

// tomlSteps is the table [steps].
type tomlSteps struct {
	Timeout        *Duration `toml:"timeout"`
	SilenceTimeout *Duration `toml:"silence_timeout"`
}

// Duration is a time in Go's notation, such as "90m"; "0" is none. It is text, because
// the decoder would take an integer for nanoseconds.
type Duration struct{ time.Duration }

// UnmarshalText implements encoding.TextUnmarshaler. The error has no fault code.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text))
	d.Duration = v
	return err
}

func parseDuration(text string) (time.Duration, error) {
	v, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf(`%q is not a time such as "90s", "30m" or "2h30m"`, text)
	}
	if v < 0 {
		return 0, fmt.Errorf("%q is negative", text)
	}
	return v, nil
}

// loadTOML applies careen.toml and returns where IPA's configuration lies.
func (c *Config) loadTOML(opts LoadOptions) ([]string, []Warning, error) {
	path, required := opts.File, true
	if path == "" {
		path, required = DefaultConfigFile, false
	}
	data, err := file.ReadLimited(path, maxTOMLFile)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return DefaultIPAConfig(), nil, nil
	}
	if err != nil {
		return nil, nil, configError(path, 0, err)
	}
	return c.parseTOML(path, data)
}

// parseTOML applies the text of careen.toml.
func (c *Config) parseTOML(path string, data []byte) ([]string, []Warning, error) {
	file, err := indexTOML(path, data)
	if err != nil {
		return nil, nil, err
	}
	c.toml = file
	var root tomlRoot
	// Unknown keys at the top belong to other packages.
	warnings, err := file.decode(&root, "steps", "allow")
	if err != nil {
		return nil, nil, err
	}
	file.claim("ipa_config", "local_policy", "steps", "allow")
	paths, err := c.applyTOML(file, &root)
	return paths, warnings, err
}

func (c *Config) applyTOML(file *tomlFile, root *tomlRoot) ([]string, error) {
	paths := DefaultIPAConfig()
	if root.IPAConfig != nil {
		paths = *root.IPAConfig
	}
	if root.LocalPolicy != nil {
		switch p := LocalPolicy(*root.LocalPolicy); p {
		case LocalRoot, LocalEnforce:
			c.LocalPolicy = p
			c.sources["local_policy"] = file.at("local_policy")
		default:
			return nil, configError(file.path, file.lines["local_policy"],
				fmt.Errorf("local_policy must be %q or %q, got %q", LocalRoot, LocalEnforce, p))
		}
	}
	if s := root.Steps; s != nil {
		if s.Timeout != nil {
			c.Defaults.Timeout = s.Timeout.Duration
			c.sources["steps.timeout"] = file.at("steps")
		}
		if s.SilenceTimeout != nil {
			c.Defaults.SilenceTimeout = s.SilenceTimeout.Duration
			c.sources["steps.silence_timeout"] = file.at("steps")
		}
	}
	for i, entry := range root.Allow {
		rule, err := c.newRule(entry)
		line := file.allowLine(i)
		if err != nil {
			return nil, configError(file.path, line, fmt.Errorf("allow entry %d: %w", i+1, err))
		}
		rule.From = file.path + ":" + strconv.Itoa(line)
		c.Rules = append(c.Rules, *rule)
	}
	return paths, nil
}

// Section decodes the top-level table or key called name of careen.toml into dst, a
// pointer, for the package that owns it. Without such a key dst does not change. It
// returns warnings about unknown keys. A wrong value is an error with code bad_config.
func (c *Config) Section(name string, dst any) ([]Warning, error) {
	if c.toml == nil {
		return nil, nil
	}
	c.toml.claim(name)
	if _, ok := c.toml.lines[name]; !ok {
		return nil, nil
	}
	field := reflect.StructField{
		Name: "Section", Type: reflect.TypeOf(dst), Tag: reflect.StructTag(`toml:"` + name + `"`),
	}
	// A struct with dst as its one field keeps the positions of the whole file.
	root := reflect.New(reflect.StructOf([]reflect.StructField{field}))
	root.Elem().Field(0).Set(reflect.ValueOf(dst))
	return c.toml.decode(root.Interface(), name)
}

// At returns where a top-level table or key of careen.toml stands, as "FILE:LINE", or
// "" where there is none.
func (c *Config) At(name string) string {
	if c.toml == nil || c.toml.lines[name] == 0 {
		return ""
	}
	return c.toml.at(name)
}

// removed are top-level keys of earlier versions, with what serves in their place.
var removed = map[string]string{
	"peers": "careen no longer exchanges layers between nodes: name a registry mirror in hosts.toml instead (docs/pull.md)",
}

// Unclaimed warns of the top-level keys of careen.toml that no package has read. The
// agent calls it after all sections are read.
func (c *Config) Unclaimed() []Warning {
	if c.toml == nil {
		return nil
	}
	var warnings []Warning
	for _, key := range sortedKeys(c.toml.lines) {
		if c.toml.claimed[key] {
			continue
		}
		text := fmt.Sprintf("unknown key %q is ignored", key)
		if instead := removed[key]; instead != "" {
			text = fmt.Sprintf("the key %q is ignored: %s", key, instead)
		}
		warnings = append(warnings, Warning{Key: key, From: c.toml.at(key), Message: text})
	}
	return warnings
}

// decode fills dst, a pointer to a struct, and warns of unknown keys below the given
// top-level ones. In an allow entry such a key is an error: a misspelt restriction must
// not turn into none.
func (f *tomlFile) decode(dst any, tops ...string) ([]Warning, error) {
	err := toml.NewDecoder(bytes.NewReader(f.data)).DisallowUnknownFields().Decode(dst)
	var missing *toml.StrictMissingError
	if err == nil {
		return nil, nil
	}
	if !errors.As(err, &missing) {
		return nil, f.decodeError(err)
	}
	var warnings []Warning
	for i := range missing.Errors {
		e := &missing.Errors[i]
		key := e.Key()
		line, _ := e.Position()
		if len(key) < 2 || !contains(tops, key[0]) {
			continue
		}
		name := strings.Join(key, ".")
		if key[0] == "allow" {
			return nil, configError(f.path, line, fmt.Errorf("unknown key %q in an allow entry", key[len(key)-1]))
		}
		warnings = append(warnings, Warning{
			Key: name, From: f.path + ":" + strconv.Itoa(line), Message: fmt.Sprintf("unknown key %q is ignored", name),
		})
	}
	return warnings, nil
}

func (f *tomlFile) decodeError(err error) error {
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, _ := bad.Position()
		text := strings.TrimPrefix(bad.Error(), "toml: ")
		if key := bad.Key(); len(key) > 0 {
			text = strings.Join(key, ".") + ": " + text
		}
		return configError(f.path, line, errors.New(text))
	}
	return configError(f.path, 0, err)
}

func (f *tomlFile) claim(names ...string) {
	for _, name := range names {
		f.claimed[name] = true
	}
}

func (f *tomlFile) at(key string) string {
	return f.path + ":" + strconv.Itoa(f.lines[key])
}

func (f *tomlFile) allowLine(i int) int {
	if i < len(f.allow) {
		return f.allow[i]
	}
	return f.lines["allow"]
}

// indexTOML notes on which lines the top-level keys and the allow entries stand.
func indexTOML(path string, data []byte) (*tomlFile, error) {
	f := &tomlFile{path: path, data: data, lines: map[string]int{}, claimed: map[string]bool{}}
	var p unstable.Parser
	p.Reset(data)
	inTable := false
	for p.NextExpression() {
		node := p.Expression()
		if node.Kind == unstable.Comment {
			continue
		}
		top := node.Kind == unstable.KeyValue
		if top && inTable {
			continue
		}
		keys := node.Key()
		if !keys.Next() {
			continue
		}
		first := keys.Node()
		line := p.Shape(first.Raw).Start.Line
		name := string(first.Data)
		if name != strings.ToLower(name) {
			// The decoder would take Allow for allow, past all checks here.
			return nil, configError(path, line, fmt.Errorf("the key %q must be in lower case", name))
		}
		if _, seen := f.lines[name]; !seen {
			f.lines[name] = line
		}
		if !top {
			inTable = true
		}
		if node.Kind == unstable.ArrayTable && name == "allow" && !keys.Next() {
			f.allow = append(f.allow, line)
		}
	}
	if err := p.Error(); err != nil {
		// Decoding finds the same defect and says where.
		var root map[string]any
		if err2 := toml.Unmarshal(data, &root); err2 != nil {
			return nil, f.decodeError(err2)
		}
		return nil, f.decodeError(err)
	}
	return f, nil
}

func contains(list []string, s string) bool {
	for _, item := range list {
		if item == s {
			return true
		}
	}
	return false
}
