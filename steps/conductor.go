package steps

import (
	"errors"
	"fmt"
	"maps"

	"github.com/careen-project/careen/steps/ipa"
)

// fromConductor is the origin of the options that were sent at lookup.
const fromConductor = "conductor"

// errNull is the reason why an option cannot be used if the conductor sent null for it.
var errNull = errors.New("the conductor sent null")

// WithConductor returns a copy of c with the agent_containers of the conductor's
// answer to a lookup. They win over files and environment. Like IPA, it ignores
// unknown options and wrong values with a warning, so that the node stays usable. An
// option whose value IPA would use and careen cannot (null, items that are not text)
// has no value: requests that need it are refused.
func (c *Config) WithConductor(options map[string]any) (*Config, []Warning) {
	next := *c
	next.broken = maps.Clone(c.broken)
	next.sources = maps.Clone(c.sources)
	var warnings []Warning
	warn := func(key, format string, args ...any) {
		warnings = append(warnings, Warning{
			Key: "container." + key, From: fromConductor, Message: fmt.Sprintf(format, args...),
		})
	}
	for _, key := range sortedKeys(options) {
		value := options[key]
		switch {
		case !contains(optionNames, key):
			warn(key, "Ignoring unknown [container] option %s sent by the conductor", key)
		case value == nil:
			next.setNull(key)
			if err := next.broken[key]; err != nil {
				warn(key, "[container]%s is null: steps that need it are refused", key)
			}
		default:
			if err := next.setOverride(key, value); err != nil {
				warn(key, "Ignoring invalid value for [container]%s sent by the conductor: %s", key, err)
			} else if err := next.broken[key]; err != nil {
				warn(key, "[container]%s cannot be used: %s", key, err)
			}
		}
	}
	return &next, warnings
}

// setNull gives an option the value null, as in IPA. It lifts no restriction. An option
// that IPA cannot use without a value is broken.
func (c *Config) setNull(key string) {
	c.sources[key] = fromConductor
	delete(c.broken, key)
	switch key {
	case "allow_arbitrary_containers":
		c.AllowArbitrary = false
	case "pull_options":
		c.PullOptions = []string{}
	case "run_options":
		c.RunOptions = []string{}
	case "allowed_containers":
		c.Allowed, c.broken[key] = []string{}, errNull
	case "container_steps_file":
		c.StepsFile, c.broken[key] = "", errNull
	default:
		c.broken[key] = errNull
	}
}

// setOverride applies a value that is not null. Here the types come first and the
// references of oslo.config's templates after, when the value is used. Where IPA takes
// over a value that careen cannot use, the option has no value: the old one could allow
// more.
func (c *Config) setOverride(key string, value any) error {
	err := c.set(key, value, fromConductor)
	switch {
	case errors.Is(err, errNotText):
	case err != nil || key == "allow_arbitrary_containers" || key == "runner":
		return err
	case key == "container_steps_file":
		c.StepsFile, err = ipa.Unescape(c.StepsFile)
	default:
		list := c.list(key)
		items := make([]string, len(*list))
		for i, item := range *list {
			if items[i], err = ipa.Unescape(item); err != nil {
				break
			}
		}
		*list = items
	}
	if err != nil {
		c.sources[key], c.broken[key] = fromConductor, err
		if key == "container_steps_file" {
			c.StepsFile = ""
		}
	}
	return nil
}
