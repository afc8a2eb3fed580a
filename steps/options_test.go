package steps

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOptionShapes: a runbook's options as JSON. Strings are split at white space, and
// what is not text is refused, where IPA would write it as Python does.
func TestOptionShapes(t *testing.T) {
	for text, want := range map[string][]string{
		`null`:                                  {},
		`""`:                                    {},
		`[]`:                                    {},
		`" --rm  -v\t/a:/b\n--memory=1g "`:      {"--rm", "-v", "/a:/b", "--memory=1g"},
		`["--rm", "-v", "/a:/b"]`:               {"--rm", "-v", "/a:/b"},
		`["--rm -v", "/a:/b --memory=1g"]`:      {"--rm", "-v", "/a:/b", "--memory=1g"},
		`["--rm\u00a0-v", "/a:/b\u001f--tty"]`:  {"--rm", "-v", "/a:/b", "--tty"},
		`["-e", "A=1e20", "9007199254740993"]`:  {"-e", "A=1e20", "9007199254740993"},
		`["'a b'"]`:                             {"'a", "b'"},
		`["null", "true", "[]"]`:                {"null", "true", "[]"},
		`true`:                                  nil,
		`5`:                                     nil,
		`1e20`:                                  nil,
		`{}`:                                    nil,
		`[null]`:                                nil,
		`["--rm", true]`:                        nil,
		`["--timeout", 30]`:                     nil,
		`["--memory", 1e20]`:                    nil,
		`["--memory", 9007199254740993]`:        nil,
		`["--memory", 18446744073709551617]`:    nil,
		`["--rm", ["-v", "/a:/b"]]`:             nil,
		`[{"--rm": true}]`:                      nil,
		`"` + strings.Repeat("a ", 5000) + `"`:  nil,
		`"` + strings.Repeat("a", 200000) + `"`: nil,
	} {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var v any
		require.NoError(t, d.Decode(&v))
		words, err := asOptions(v)
		short := text[:min(len(text), 60)]
		if want == nil {
			assert.Error(t, err, short)
			assert.Nil(t, words, short)
			continue
		}
		require.NoError(t, err, short)
		assert.Equal(t, want, words, short)
	}
}
