package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/steps"
)

func sharingOf(t *testing.T, text string) (*sharing, *steps.Config, []steps.Warning, error) {
	file := filepath.Join(t.TempDir(), "careen.toml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	cfg, _, err := steps.Load(steps.LoadOptions{IPA: []string{}, File: file})
	require.NoError(t, err)
	s, warnings, err := readSharing(cfg)
	return s, cfg, warnings, err
}

func TestSharing(t *testing.T) {
	s, cfg, warnings, err := sharingOf(t, "")
	require.NoError(t, err)
	assert.Empty(t, warnings)
	var into image.Config
	s.configure(&into, true)
	require.NoError(t, s.serve())
	assert.Equal(t, image.Config{}, into, "nothing is on unless it is asked for")
	assert.Empty(t, s.checks())
	assert.Empty(t, s.gauges())
	require.NoError(t, s.close())
	shown := map[string]string{}
	for _, source := range cfg.InForce() {
		shown[source.Key] = source.Value
	}
	assert.Equal(t, []string{"0s", "[]", "", "[]", "30m0s", "1GiB", "0B"}, []string{shown["pull.jitter"], shown["peers.from"], shown["peers.serve"],
		shown["peers.allow"], shown["peers.keep"], shown["peers.max_bytes"], shown["peers.max_rate"]})

	s, cfg, warnings, err = sharingOf(t, `[pull]
jitter = "30s"
[peers]
from = ["http://peers.example:5100"]
serve = "127.0.0.1:0"
max_bytes = "2g"
max_rate = 1048576
keeep = "1h"
`)
	require.NoError(t, err)
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0].String(), "keeep")
	_, again, err := cfg.Reload()
	require.NoError(t, err)
	assert.Equal(t, warnings, again)
	assert.Empty(t, cfg.Unclaimed())
	for _, source := range cfg.InForce() {
		if source.Key == "peers.max_bytes" {
			assert.Equal(t, "2GiB", source.Value)
			assert.True(t, strings.HasSuffix(source.From, "careen.toml:3"), source.From)
		}
	}
	// An agent for one command asks others, and gives nothing.
	s.configure(&into, false)
	assert.Nil(t, into.Kept)
	assert.NotNil(t, into.Peers)
	assert.Equal(t, 30*time.Second, into.Jitter)
	s.configure(&into, true)
	require.NoError(t, s.serve())
	require.Len(t, s.checks(), 1)
	assert.Contains(t, s.checks()[0].Detail, "gives layers on 127.0.0.1:")
	assert.Len(t, s.gauges(), 2)
	require.NoError(t, s.close())

	// A node that cannot listen goes on, and says so.
	s, _, _, err = sharingOf(t, "[peers]\nserve = \"192.0.2.1:5100\"\nallow = [\"10.0.0.0/8\"]\n")
	require.NoError(t, err)
	s.configure(&into, true)
	require.Error(t, s.serve())
	require.Len(t, s.checks(), 1)
	assert.Equal(t, "warning", s.checks()[0].Status)
	require.NoError(t, s.close())

	for text, want := range map[string]string{
		"[pull]\njitter = \"1h\"":                                          "longer than",
		"[pull]\njitter = 30":                                              "not a time",
		"[pull]\njitter = \"soon\"":                                        "not a time",
		"[pull]\njitter = \"-1s\"":                                         "is negative",
		"[peers]\nserve = \":5100\"":                                       "allow must name",
		"[peers]\nserve = \"here\"":                                        "not an address",
		"[peers]\nallow = [\"10.0.0.0/8\"]":                                "serve",
		"[peers]\nserve = \"10.0.0.1:5100\"\nallow = [\"10\"]":             "not a network",
		"[peers]\nfrom = [\"10.0.0.1\"]":                                   "not a URL",
		"[peers]\nfrom = \"http://10.0.0.1\"":                              "peers.from",
		"[peers]\nmax_bytes = \"much\"":                                    "not a size",
		"[peers]\nserve = \"10.0.0.1:5100\"\nmax_rate = \"-1\"":            "not a size",
		"[peers]\nfrom = [\"http://user:password@registry.example\"]":      "not a URL",
		"[peers]\nserve = \"10.0.0.1:5100\"\nallow = \"10.0.0.0/8\"\n":     "peers.allow",
		"[peers]\nserve = \"10.0.0.1\"\nallow = [\"10.0.0.0/8\"]\n":        "not an address",
		"[peers]\nserve = \"10.0.0.1:5100\"\nkeep = 30\nmax_bytes = \"1\"": "not a time",
	} {
		_, _, _, err := sharingOf(t, text)
		assert.Equal(t, fault.BadConfig, fault.CodeOf(err), text)
		assert.ErrorContains(t, err, want, text)
		assert.ErrorContains(t, err, "careen.toml", text)
	}
}

// TestTheDocumentedSharing reads the example of docs/pull.md.
func TestTheDocumentedSharing(t *testing.T) {
	page, err := os.ReadFile("../../../docs/pull.md")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(page), "```toml\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "```")
	s, cfg, warnings, err := sharingOf(t, text)
	require.NoError(t, err)
	assert.Empty(t, append(warnings, cfg.Unclaimed()...))
	assert.Equal(t, 30*time.Second, s.pull.Jitter.Duration)
	assert.Len(t, s.peers.From, 2)
}
