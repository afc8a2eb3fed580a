package fault_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
)

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "",
		"  two\n\twords \r\n":         "two words",
		"bad \xff one":                "bad ? one",
		"\x1b[31mred\x07\u009b":       "[31mred",
		"a\u2028b\u2029c\u0085d":      "a b c d",
		"right\u202eleft":             "right lef...",
		"123456789":                   "123456789",
		"1234567890":                  "123456789...",
		"12345678 \u00e9":             "12345678...",
		"Prüfsumme":                   "Prüfsumm...", // 10 bytes
		strings.Repeat(" ", 50) + "x": "x",
	} {
		require.Equal(t, want, fault.OneLine(text, 9), "%q", text)
	}
}
