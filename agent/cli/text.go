package cli

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Clean escapes control characters, marks that reorder text, and invalid bytes, so that
// text of a container, image or registry cannot control a terminal. Newlines and tabs stay.
func Clean(text string) string { return escape(text, hostile) }

// Line is [Clean] for text that must stay on its line: newlines and tabs are escaped too.
func Line(text string) string { return escape(text, breaks) }

func escape(text string, bad func(rune) bool) string {
	if !strings.ContainsFunc(text, bad) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, "\\x%02x", text[i])
		case !bad(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// hostile reports whether r is a control character (C0, DEL, C1) or a mark that reorders
// text.
func hostile(r rune) bool { return r != '\n' && r != '\t' && breaks(r) }

// breaks reports whether r is hostile, a newline, a tab, or a separator of lines.
func breaks(r rune) bool {
	return unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 ||
		r == 0x200e || r == 0x200f || r == 0x061c || r == 0x2028 || r == 0x2029
}

// cut escapes text and shortens it to at most width characters.
func cut(text string, width int) string {
	runes := []rune(Line(text))
	if width < 8 || len(runes) <= width {
		return string(runes)
	}
	return string(runes[:width-1]) + "…"
}

// Wrap fills text into lines of at most width characters behind indent.
func Wrap(text, indent string, width int) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line) > len(indent) && len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	b.WriteString(line)
	return b.String()
}

// Size writes a number of bytes as podman does, in powers of 1000.
func Size(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, exp := float64(n)/unit, 0
	for value >= unit && exp < 5 {
		value /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTPE"[exp])
}

// ago writes how long ago t was, in its largest unit.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd ago", int(d.Hours()/24))
	}
}

// short is the part of a digest or id that people compare.
func short(digest string) string {
	_, hex, ok := strings.Cut(digest, ":")
	if !ok {
		hex = digest
	}
	return hex[:min(12, len(hex))]
}
