package logs

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{
		"2026-01-02T15:04:05.000000000Z stdout F text", "2026-01-02T15:04:05Z stderr P ", "x", "", " ",
		"2026-01-02T15:04:05.000000000Z stdout F", "2026-01-02T15:04:05.000000000+01:00 stdout F x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, rec []byte) {
		l, ok := parseRecord(rec)
		if !ok || bytes.IndexByte(rec, '\n') >= 0 || l.Time.Year() > 9999 || l.Time.Year() < 0 {
			return
		}
		again := appendRecord(nil, []byte(l.Time.UTC().Format(stampLayout)), l.Stream, l.Text, l.Partial)
		l2, ok := parseRecord(again[:len(again)-1])
		require.True(t, ok)
		require.True(t, l.Time.Equal(l2.Time))
		require.Equal(t, l.Text, l2.Text)
		require.Equal(t, l.Partial, l2.Partial)
	})
}
