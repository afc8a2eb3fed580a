package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Console is where a command talks to a person or a script.
type Console struct {
	In       *os.File
	Out, Err *os.File
	// color allows styles on Err. live allows to draw a line of Err again.
	color, live bool
	// columns is the width of Err.
	columns int
}

// NewConsole returns the console of this process.
func NewConsole() *Console {
	c := &Console{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, columns: 80}
	dumb := os.Getenv("TERM") == "" || os.Getenv("TERM") == "dumb"
	if size := windowSize(c.Err); size != nil && !dumb {
		c.live = true
		// https://no-color.org: any value switches colour off.
		c.color = os.Getenv("NO_COLOR") == ""
		if size.Columns > 0 {
			c.columns = int(size.Columns)
		}
	}
	return c
}

// Color reports whether messages may have colours.
func (c *Console) Color() bool { return c.color }

// Width is the width of tables in columns: that of the terminal, or 80.
func (c *Console) Width() int {
	if size := c.TerminalSize(); size != nil {
		return int(size.Columns)
	}
	return 80
}

// TerminalSize is the size of the terminal that Out is, or nil.
func (c *Console) TerminalSize() *api.TerminalSize {
	if size := windowSize(c.Out); size != nil && size.Columns > 0 {
		return size
	}
	return nil
}

func windowSize(f *os.File) *api.TerminalSize {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return nil
	}
	return &api.TerminalSize{Columns: size.Col, Rows: size.Row}
}

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// styles of messages.
const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	green  = "\x1b[32m"
	reset  = "\x1b[0m"
)

func (c *Console) style(code, text string) string {
	if !c.color {
		return text
	}
	return code + text + reset
}

// Fail prints what failed and why, then what to do next. An error of several parts has
// a line for each part.
func (c *Console) Fail(err error) {
	parts := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		parts = joined.Unwrap()
	}
	for _, part := range parts {
		c.failure(part.Error(), fault.RemedyOf(part))
	}
}

func (c *Console) failure(message, remedy string) {
	fmt.Fprintf(c.Err, "%s %s\n", c.style(red, "careen:"), Clean(message))
	if remedy != "" {
		fmt.Fprintf(c.Err, "  %s\n", Clean(remedy))
	}
}

// Warn prints a warning.
func (c *Console) Warn(text string) {
	fmt.Fprintf(c.Err, "%s %s\n", c.style(yellow, "warning:"), Clean(text))
}

// JSON prints one JSON document, indented.
func (c *Console) JSON(v any) error { return c.encode(v, "  ") }

// JSONLine prints one JSON document on one line.
func (c *Console) JSONLine(v any) error { return c.encode(v, "") }

// encode prints JSON in which control characters are escaped. The document means the
// same: in JSON such characters stand in strings only.
func (c *Console) encode(v any, indent string) error {
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
	_, err := io.WriteString(c.Out, b.String())
	return err
}

// table prints rows under a header. Columns are as wide as they need to be; the last
// column is cut so that a line has at most width characters.
func table(w io.Writer, width int, header []string, rows [][]string) {
	widths := make([]int, len(header))
	all := append([][]string{header}, rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(Line(cell)))
		}
	}
	for _, row := range all {
		var b strings.Builder
		last := len(row) - 1
		for i, cell := range row[:last] {
			fmt.Fprintf(&b, "%-*s  ", widths[i], Line(cell))
		}
		b.WriteString(cut(row[last], width-utf8.RuneCountInString(b.String())))
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
