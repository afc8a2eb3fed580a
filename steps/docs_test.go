package steps_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/steps"
)

// TestDocumentedExamples reads every example of the documentation.
func TestDocumentedExamples(t *testing.T) {
	fence := regexp.MustCompile("(?s)```(yaml|toml|ini)\n(.*?)```")
	count := map[string]int{}
	for _, page := range []string{"../docs/steps.md", "../docs/configuration.md"} {
		data, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range fence.FindAllStringSubmatch(string(data), -1) {
			count[m[1]]++
			var warnings []steps.Warning
			switch m[1] {
			case "yaml":
				cat, err := steps.LoadSteps(write(t, "mysteps.yaml", m[2]), nil)
				require.NoError(t, err)
				warnings = cat.Warnings
			case "ini":
				_, warnings, err = load(t, m[2], "")
			default:
				var cfg *steps.Config
				cfg, warnings, err = load(t, "", m[2])
				if err == nil {
					warnings = append(warnings, cfg.Unclaimed()...)
				}
			}
			require.NoError(t, err, m[2])
			assert.Empty(t, warnings, m[2])
		}
	}
	assert.Equal(t, map[string]int{"yaml": 1, "ini": 1, "toml": 2}, count)
}
