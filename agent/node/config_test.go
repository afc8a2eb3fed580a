package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

func pullTableOf(t *testing.T, text string) (pullTable, *steps.Config, []steps.Warning, error) {
	file := filepath.Join(t.TempDir(), "careen.toml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	cfg, _, err := steps.Load(steps.LoadOptions{IPA: []string{}, File: file})
	require.NoError(t, err)
	table, warnings, err := readPullTable(cfg)
	return table, cfg, warnings, err
}

func TestPullTable(t *testing.T) {
	table, cfg, warnings, err := pullTableOf(t, "")
	require.NoError(t, err)
	assert.Empty(t, warnings)
	assert.Zero(t, table)
	shown := func() (value, from string) {
		for _, s := range cfg.InForce() {
			if s.Key == "pull.jitter" {
				return s.Value, s.From
			}
		}
		return "", ""
	}
	value, from := shown()
	assert.Equal(t, "0s", value)
	assert.Equal(t, "default", from)

	table, cfg, warnings, err = pullTableOf(t, "[pull]\njitter = \"30s\"\njiter = \"1s\"\n")
	require.NoError(t, err)
	assert.Equal(t, 30*time.Second, table.Jitter.Duration)
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0].String(), "jiter")
	value, from = shown()
	assert.Equal(t, "30s", value)
	assert.True(t, strings.HasSuffix(from, "careen.toml:1"), from)

	for text, want := range map[string]string{
		"[pull]\njitter = \"1h\"":   "longer than",
		"[pull]\njitter = 30":       "not a time",
		"[pull]\njitter = \"soon\"": "not a time",
		"[pull]\njitter = \"-1s\"":  "is negative",
	} {
		_, _, _, err := pullTableOf(t, text)
		assert.Equal(t, fault.BadConfig, fault.CodeOf(err), text)
		assert.ErrorContains(t, err, want, text)
		assert.ErrorContains(t, err, "careen.toml", text)
	}
}

// TestDocumentedPullTable reads the example of docs/pull.md.
func TestDocumentedPullTable(t *testing.T) {
	page, err := os.ReadFile("../../docs/pull.md")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(page), "```toml\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "```")
	table, cfg, warnings, err := pullTableOf(t, text)
	require.NoError(t, err)
	assert.Empty(t, append(warnings, cfg.Unclaimed()...))
	assert.Equal(t, 30*time.Second, table.Jitter.Duration)
}
