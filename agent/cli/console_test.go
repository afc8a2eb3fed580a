package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
)

func TestTextOfOthersIsHarmless(t *testing.T) {
	assert.Equal(t, "a\\x1b[31mb", Clean("a\x1b[31mb"))
	assert.Equal(t, "ü\tx\n", Clean("ü\tx\n"))
	assert.NotContains(t, Clean("gnp.\u202exe"), "\u202e")
	assert.Equal(t, `a\xffb`, Clean("a\xffb"))
	assert.Equal(t, `a\x9bb\u202ec`, Clean("a\u009bb\u202ec"))
}

func TestProgressFitsTheTerminal(t *testing.T) {
	for _, columns := range []int{20, 40, 79, 200} {
		for _, done := range []int64{0, 1, 500, 999, 1000} {
			line := bar(&api.PullProgress{
				Status: "downloading", Done: done * 1e6, Total: 1000 * 1e6, Rate: 12_345_678,
				Layers: []api.LayerProgress{{Status: "done"}, {Status: "downloading"}},
			}, columns)
			assert.LessOrEqual(t, utf8.RuneCountInString(line), columns)
			assert.True(t, strings.HasPrefix(line, "pulling"))
		}
	}
	assert.Equal(t, "pulling: resolving", bar(&api.PullProgress{Status: "resolving"}, 79))
}

func TestTablesFitEightyColumns(t *testing.T) {
	var out bytes.Buffer
	table(&out, 80, []string{"RUN", "IMAGE"}, [][]string{{"abc", strings.Repeat("x", 200)}, {"a\x1b[2J", "y"}})
	assert.NotContains(t, out.String(), "\x1b")
	for line := range strings.Lines(out.String()) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80)
	}
}

// TestJSONIsHarmlessOnATerminal: JSON keeps its meaning and sends no control character.
func TestJSONIsHarmlessOnATerminal(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	c := NewConsole()
	c.Out = out
	text := "a\u009b2Jb\u202ec\x7fd\x1be"
	require.NoError(t, c.JSON(map[string]any{"text": text, "spec": json.RawMessage(`{"x": "` + "\u009b\u202e" + `"}`)}))
	require.NoError(t, c.JSONLine(map[string]string{"text": text}))
	require.NoError(t, out.Close())
	data, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	assert.False(t, strings.ContainsFunc(string(data), hostile), "%q", data)
	var back struct{ Text string }
	require.NoError(t, json.NewDecoder(bytes.NewReader(data)).Decode(&back))
	assert.Equal(t, text, back.Text)
}

// TestATableCellStaysOnItsLine: a newline in a name cannot forge a row, a tab cannot move
// a column.
func TestATableCellStaysOnItsLine(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	c := NewConsole()
	c.Out = out
	c.Images([]api.Image{{Name: "a\nsha256:0 b\tc\u2028d"}})
	require.NoError(t, out.Close())
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(string(text), "\n"), "%q", text)
	assert.Contains(t, string(text), `a\x0asha256:0 b\x09c\u2028d`)
}

// TestCompletionOffersNoControlCharacters: the shell inserts what it is offered.
func TestCompletionOffersNoControlCharacters(t *testing.T) {
	assert.Equal(t, []string{"ab", "ac\tx\\x0ay\\x1b"}, Matching("a", []Candidate{
		{Word: "ab"}, {Word: "a\nb"}, {Word: "a\tb"}, {Word: "a\x1b[2J"}, {Word: "b"}, {Word: ""}, {"ac", "x\ny\x1b"},
	}))
}

// TestProgressOfTheAgentIsEscaped: status and message come from the agent's answer, which
// may repeat text of a registry.
func TestProgressOfTheAgentIsEscaped(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	c := NewConsole()
	c.Err = out
	c.Progress(false).Show(&api.PullProgress{Message: "waits\n\x1b[2Jforged"})
	require.NoError(t, out.Close())
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	assert.Equal(t, "pull: waits\\x0a\\x1b[2Jforged\n", string(text))
}
