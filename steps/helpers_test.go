package steps_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

// write puts text into a file of the test's own and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// canon is a stand-in for package oci's parser: it knows a handful of options,
// their short forms and that some take a value.
func canon(words []string) ([]string, error) {
	long := map[string]string{"-v": "--volume", "-e": "--env"}
	value := map[string]bool{
		"--volume": true, "--env": true, "--network": true, "--entrypoint": true, "--creds": true, "--memory": true,
		"--device": true,
	}
	flags := map[string]bool{"--rm": true, "--privileged": true, "--tls-verify": true}
	var out []string
	for i := 0; i < len(words); i++ {
		name, val, given := strings.Cut(words[i], "=")
		if l, ok := long[name]; ok {
			name = l
		}
		switch {
		case flags[name] && !given:
			out = append(out, name+"=true")
		case flags[name]:
			out = append(out, name+"="+val)
		case value[name] && given:
			out = append(out, name+"="+val)
		case value[name] && i+1 < len(words):
			i++
			out = append(out, name+"="+words[i])
		default:
			return nil, fmt.Errorf("unknown option %s", words[i])
		}
	}
	return out, nil
}

// load reads a configuration from the texts of an IPA file and of careen.toml.
func load(t testing.TB, ipa, toml string) (*steps.Config, []steps.Warning, error) {
	t.Helper()
	return steps.Load(steps.LoadOptions{
		IPA: []string{write(t, "ipa.conf", ipa)}, File: write(t, "careen.toml", toml),
		CanonicalRun: canon, CanonicalPull: canon,
	})
}

func mustLoad(t testing.TB, ipa, toml string) *steps.Config {
	t.Helper()
	cfg, _, err := load(t, ipa, toml)
	require.NoError(t, err)
	return cfg
}

// requireFault checks the code of an error and words of its one line.
func requireFault(t testing.TB, err error, code fault.Code, words ...string) {
	t.Helper()
	var e *fault.Error
	require.True(t, errors.As(err, &e), "not a fault.Error: %v", err)
	require.Equal(t, code, e.Code, "%v", err)
	for _, word := range words {
		require.Contains(t, fault.Line(err), word)
	}
}
