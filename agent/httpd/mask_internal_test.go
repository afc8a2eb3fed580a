package httpd

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMaskSeesWhatThePatternsSee: to look at suspect lines only gives what the patterns give
// on the whole text.
func TestMaskSeesWhatThePatternsSee(t *testing.T) {
	var text bytes.Buffer
	for i := range 400 {
		fmt.Fprintf(&text, "line %d of output\n", i)
		switch i % 40 {
		case 3:
			text.WriteString("ipa-agent-token=abcdef123 quiet\n")
		case 9:
			text.WriteString("{\"password\":\n  \"hunter2\", \"plain\": 1}\n")
		case 15:
			text.WriteString("--creds\nme:hunter3\n")
		case 21:
			text.WriteString("GET https://me:hunter4@registry.example/v2/\n")
		case 27:
			text.WriteString("-----BEGIN PRIVATE KEY-----\nAAAA\nBBBB\nCCCC\nDDDD\nEEEE\n-----END PRIVATE KEY-----\n")
		case 33:
			text.WriteString("Authorization: Bearer abcdefghijkl\n")
		}
	}
	m := &masker{}
	got := m.mask(text.Bytes())
	require.Equal(t, string(maskForms(text.Bytes())), string(got))
	require.NotContains(t, string(got), "hunter")
	require.NotContains(t, string(got), "EEEE")
}

// A log without a word for a secret is not looked at by the patterns: they are slow, and a
// bundle may have 64 MiB of it.
func TestMaskLeavesPlainOutput(t *testing.T) {
	plain := bytes.Repeat([]byte("0123456789012345678901234567890123456789\n"), 50_000)
	require.Empty(t, suspects(plain))
	m := &masker{}
	require.Equal(t, &plain[0], &m.mask(plain)[0], "not copied")
}
