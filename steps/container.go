package steps

import (
	"errors"
	"fmt"
	"strings"

	"github.com/careen-project/careen/steps/ipa"
)

// cafileOption is IPA's own option for the authority that it trusts.
const cafileOption = "DEFAULT.cafile"

// environmentKeys are the options that oslo.config also takes from the environment.
func environmentKeys() []string {
	keys := []string{cafileOption}
	for _, name := range optionNames {
		keys = append(keys, "container."+name)
	}
	return keys
}

// applyIPA sets IPA's options to what was found in its files and the environment.
func (c *Config) applyIPA(found map[string]ipa.Option) ([]Warning, error) {
	var warnings []Warning
	for _, key := range sortedKeys(found) {
		option := found[key]
		if key == cafileOption {
			warnings = append(warnings, c.applyCAFile(option)...)
		}
		name, ok := strings.CutPrefix(key, "container.")
		switch {
		case !ok:
		case !contains(optionNames, name):
			warnings = append(warnings, Warning{
				Key: key, From: option.From(), Message: fmt.Sprintf("unknown option %q in [container] is ignored", name),
			})
		default:
			// oslo.config replaces references before it reads the value.
			text, err := ipa.Unescape(option.Value)
			if err == nil {
				err = c.set(name, text, option.From())
			}
			if err != nil {
				return nil, configError(option.File, option.Line, fmt.Errorf("[container]%s: %w", name, err))
			}
		}
	}
	return warnings, nil
}

// errNotText says that an option has values that are not text. IPA uses them as Python
// writes them; careen cannot use the option then.
var errNotText = errors.New("is not text")

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
		s, ok := value.(string)
		if !ok {
			return fmt.Errorf("a value of type %s %w", ipa.Type(value), errNotText)
		}
		c.StepsFile = s
	case "runner":
		if value != "podman" && value != "docker" {
			return fmt.Errorf("valid values are podman and docker, but found %q", value)
		}
		c.Runner = fmt.Sprint(value)
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
		return ipa.Bool(v)
	}
	return false, fmt.Errorf("must be a boolean, got %s", ipa.Type(value))
}

func toList(value any) ([]string, error) {
	switch v := value.(type) {
	case string:
		return ipa.List(v), nil
	case []string:
		return append([]string{}, v...), nil
	case []any:
		list, err := ipa.Texts(v)
		if err != nil {
			return nil, fmt.Errorf("the list %w: %w", errNotText, err)
		}
		return list, nil
	}
	return nil, fmt.Errorf("must be a list or a string, got %s", ipa.Type(value))
}
