package oci_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/stretchr/testify/require"
)

// TestOptionTable makes sure that what help, docs and errors need is there.
func TestOptionTable(t *testing.T) {
	letters := make(map[string]string)
	for _, option := range oci.Options() {
		require.NotEmpty(t, option.Help, option.Name)
		require.False(t, strings.HasSuffix(option.Help, "."), option.Name)
		require.NotEmpty(t, option.Group, option.Name)
		if option.Kind != oci.Bool {
			require.NotEmpty(t, option.Arg, option.Name)
		}
		if option.Verdict == oci.Reject {
			require.NotEmpty(t, option.Instead, option.Name)
		}
		for _, command := range []oci.Command{oci.OnRun, oci.OnPull} {
			if option.Short == "" || option.On&command == 0 {
				continue
			}
			key := string(rune('0'+command)) + option.Short
			require.Empty(t, letters[key], "-%s is both %s and %s", option.Short, option.Name, letters[key])
			letters[key] = option.Name
		}
	}
}

// TestExamplesAreRight parses the example of every option, since error messages
// tell operators to write it like that.
func TestExamplesAreRight(t *testing.T) {
	for _, option := range oci.Options() {
		if option.Example == "" || option.Verdict == oci.Reject || option.Name == "help" {
			continue
		}
		words := conformance.Words(option.Example)
		require.Len(t, words, 1, option.Example)
		name, _, _ := strings.Cut(strings.TrimPrefix(words[0], "--"), "=")
		require.Equal(t, option.Name, name)
		if option.On&oci.OnRun != 0 {
			_, err := oci.ParseRun(companions(option.Name, words[0]), oci.Caller{})
			require.NoError(t, err, option.Example)
		}
		if option.On&oci.OnPull != 0 {
			_, err := oci.ParsePull([]string{words[0], "image"}, oci.Caller{})
			require.NoError(t, err, option.Example)
		}
	}
}

// companions adds what an option cannot do without.
func companions(name, word string) []string {
	words := []string{word, "image"}
	if name == "sysctl" {
		words = append([]string{"--network=none"}, words...)
	}
	return words
}

// TestEveryPodmanOption holds the table against podman's own list.
func TestEveryPodmanOption(t *testing.T) {
	content, err := os.ReadFile("testdata/podman-options.txt")
	require.NoError(t, err)
	known := map[string]map[string]bool{"run": {}, "pull": {}}
	for _, option := range oci.Options() {
		for _, name := range append([]string{option.Name}, option.Aliases...) {
			if option.On&oci.OnRun != 0 {
				known["run"][name] = true
			}
			if option.On&oci.OnPull != 0 {
				known["pull"][name] = true
			}
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		command, name, _ := strings.Cut(line, " ")
		require.True(t, known[command][name], "podman %s --%s is unknown", command, name)
	}
}

// TestUsedEnviron: what is not used is not kept, and the command parses to the same without.
func TestUsedEnviron(t *testing.T) {
	environ := map[string]string{
		"A": "1", "FW_X": "2", "FW_Y": "3", "http_proxy": "http://p", "HOME": "/root", "SECRET": "hunter2", "REGISTRY_AUTH_FILE": "",
	}
	for want, words := range map[string][]string{
		"HOME REGISTRY_AUTH_FILE http_proxy":                    {"x"},
		"HOME REGISTRY_AUTH_FILE":                               {"--http-proxy=false", "-e", "A=other", "x"},
		"A HOME REGISTRY_AUTH_FILE http_proxy":                  {"-e", "A", "x"},
		"FW_X FW_Y HOME REGISTRY_AUTH_FILE http_proxy":          {"-e", "FW_*", "x"},
		"A FW_X FW_Y HOME REGISTRY_AUTH_FILE SECRET http_proxy": {"--env-host", "x"},
	} {
		run, err := oci.ParseRun(words, oci.Caller{Environ: environ})
		require.NoError(t, err)
		used := run.UsedEnviron()
		require.Equal(t, want, strings.Join(slices.Sorted(maps.Keys(used)), " "))
		again, err := oci.ParseRun(words, oci.Caller{Environ: used})
		require.NoError(t, err)
		require.Equal(t, run.Options, again.Options)
	}
}
