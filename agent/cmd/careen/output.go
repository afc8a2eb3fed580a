package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
)

// console is where a command talks to a person or a script.
type console struct {
	in       *os.File
	out, err *os.File
	// color and live say that out, or err, is a terminal that may be styled, or
	// whose lines may be drawn again.
	color, live bool
	columns     int
}

func newConsole() *console {
	c := &console{in: os.Stdin, out: os.Stdout, err: os.Stderr, columns: 80}
	dumb := os.Getenv("TERM") == "" || os.Getenv("TERM") == "dumb"
	if size, err := unix.IoctlGetWinsize(int(c.err.Fd()), unix.TIOCGWINSZ); err == nil && !dumb {
		c.live = true
		// https://no-color.org: any value switches colour off.
		c.color = os.Getenv("NO_COLOR") == ""
		if size.Col > 0 {
			c.columns = int(size.Col)
		}
	}
	return c
}

// isTerminal reports whether a file is a terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// styles of messages on standard error.
const (
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	green  = "\x1b[32m"
	reset  = "\x1b[0m"
)

func (c *console) style(code, text string) string {
	if !c.color {
		return text
	}
	return code + text + reset
}

// fail prints a failure as every command does: what failed and why, then what to
// do next. An error of several parts has a line for each.
func (c *console) fail(err error) {
	for _, part := range parts(err) {
		fmt.Fprintf(c.err, "%s %s\n", c.style(red, "careen:"), clean(part.Error()))
		if remedy := fault.RemedyOf(part); remedy != "" {
			fmt.Fprintf(c.err, "  %s\n", clean(remedy))
		}
	}
}

func (c *console) warn(text string) {
	fmt.Fprintf(c.err, "%s %s\n", c.style(yellow, "warning:"), clean(text))
}

// parts returns the errors that were joined into err, or err itself.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// clean escapes control characters, marks that reorder text, and invalid bytes, so that
// text of a container, image or registry cannot control a terminal. Newlines and tabs stay.
func clean(text string) string {
	if !strings.ContainsFunc(text, hostile) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, "\\x%02x", text[i])
		case !hostile(r):
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
func hostile(r rune) bool {
	return r != '\n' && r != '\t' && unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 ||
		r == 0x200e || r == 0x200f || r == 0x061c
}

// json prints one JSON document.
func (c *console) json(v any) error { return c.encode(v, "  ") }

// jsonLine prints one JSON document on one line.
func (c *console) jsonLine(v any) error { return c.encode(v, "") }

// encode prints JSON in which control characters are escaped. The document means the
// same: in JSON such characters stand in strings only.
func (c *console) encode(v any, indent string) error {
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range data.String() {
		if hostile(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	_, err := io.WriteString(c.out, b.String())
	return err
}

// table prints rows under a header, columns as wide as they need to be. The last
// column is cut to fit 80 columns, or what the terminal has.
func table(w io.Writer, columns int, header []string, rows [][]string) {
	widths := make([]int, len(header))
	all := append([][]string{header}, rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(clean(cell)))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			if i == len(row)-1 {
				b.WriteString(cut(cell, columns-utf8.RuneCountInString(b.String())))
				break
			}
			fmt.Fprintf(&b, "%-*s  ", widths[i], clean(cell))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// cut shortens text to at most width characters.
func cut(text string, width int) string {
	runes := []rune(clean(text))
	if width < 8 || len(runes) <= width {
		return string(runes)
	}
	return string(runes[:width-1]) + "…"
}

// bytesText writes a size as podman does, in powers of 1000.
func bytesText(n int64) string {
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

// ago writes a time as a person says it.
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
