package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// line is one row of the table.
type line struct {
	Part   string // of the bench that measured it
	What   string // what was measured
	Unit   string // s, ms, MB or nothing
	Careen []float64
	// Other is what it is held against, paired round by round where there are as
	// many; With names it. Without it the target is about careen's own figure.
	Other []float64 `json:",omitempty"`
	With  string    `json:",omitempty"`
	// Limit is the target: of the ratio where there is an Other, else of the
	// figure. 0 is no target.
	Limit float64 `json:",omitempty"`
	// Filled in by table.add.
	Median, OtherMedian, Ratio float64
	Met                        *bool `json:",omitempty"`
}

// table collects all lines.
type table struct {
	Lines []line
	part  string // that runs
}

func (t *table) add(l line) {
	l.Part, l.Median = t.part, median(l.Careen)
	value := l.Median
	if len(l.Other) > 0 {
		l.OtherMedian = median(l.Other)
		l.Ratio = ratio(l.Careen, l.Other)
		value = l.Ratio
	}
	if l.Limit > 0 {
		met := value <= l.Limit
		l.Met = &met
	}
	t.Lines = append(t.Lines, l)
	printLine(l)
}

// ratio is the median of the rounds' ratios, or where rounds were not paired the
// ratio of medians.
func ratio(a, b []float64) float64 {
	if len(a) != len(b) {
		return median(a) / median(b)
	}
	var all []float64
	for i := range a {
		all = append(all, a[i]/b[i])
	}
	return median(all)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// cells are a line's columns as text.
func (l line) cells() []string {
	unit := ""
	if l.Unit != "" {
		unit = " " + l.Unit
	}
	c := []string{l.What, figure(l.Median) + unit, "", "", "", ""}
	if len(l.Careen) > 1 {
		c[1] += fmt.Sprintf(" (%s-%s)", figure(slices.Min(l.Careen)), figure(slices.Max(l.Careen)))
	}
	if l.With != "" {
		c[2] = l.With
		if len(l.Other) > 0 {
			c[2] += " " + figure(l.OtherMedian) + unit
			c[3] = fmt.Sprintf("%.2f", l.Ratio)
		}
	}
	if l.Limit > 0 {
		c[4] = "≤ " + figure(l.Limit)
		if len(l.Other) == 0 {
			c[4] += unit
		}
		c[5] = map[bool]string{true: "yes", false: "no"}[*l.Met]
	}
	return c
}

// figure writes three digits that count.
func figure(v float64) string {
	switch {
	case v == 0 || v >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func printLine(l line) {
	fmt.Println("  " + strings.TrimRight(strings.Join(l.cells(), "  "), " "))
}

// markdown writes the table, for a terminal and for the documents alike.
func (t *table) markdown(w io.Writer) {
	rows := [][]string{{"measured", "careen: median (range)", "against", "ratio", "target", "met"}}
	for _, l := range t.Lines {
		rows = append(rows, l.cells())
	}
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for i, r := range rows {
		for n, c := range r {
			fmt.Fprintf(w, "| %s%s ", c, strings.Repeat(" ", width[n]-len([]rune(c))))
		}
		fmt.Fprintln(w, "|")
		if i == 0 {
			for _, n := range width {
				fmt.Fprint(w, "|", strings.Repeat("-", n+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}
