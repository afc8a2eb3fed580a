package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/careen-project/careen/rootfs/file"
)

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
	data, err := file.ReadLimited(path, maxOsloFile)
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
	if !bytes.Contains(data, []byte("cafile")) {
		return nil
	}
	// It is valid: it was read as a whole before.
	assignments, _ = parseOslo(data, "DEFAULT")
	for _, a := range assignments {
		if a.key == "cafile" {
			found[cafileOption] = ipaOption{a.value, path, a.line}
		}
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
	if value, ok := getenv("OS_DEFAULT__CAFILE"); ok {
		found[cafileOption] = ipaOption{value: value, file: "environment OS_DEFAULT__CAFILE"}
	}
}

func (c *Config) applyIPA(found ipaOptions) ([]Warning, error) {
	var warnings []Warning
	for _, key := range sortedKeys(found) {
		option := found[key]
		if key == cafileOption {
			warnings = append(warnings, c.applyCAFile(option)...)
			continue
		}
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
