package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bench holds what all measurements share.
type bench struct {
	images string // OCI layouts, a directory each
	self   string
	binary string // careen's
	rounds int
	runs   int
	short  bool
	svg    string
	addr   string // of the registry that runs
	table  *table
}

// results is what is written to results.json.
type results struct {
	Machine  string    `json:"machine"`
	Versions string    `json:"versions"`
	When     time.Time `json:"when"`
	Took     float64   `json:"took_seconds"`
	Table    *table    `json:"table"`
	Scale    []curve   `json:"scale,omitempty"`
}

func run(args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	b := &bench{table: &table{}}
	flags.IntVar(&b.rounds, "rounds", 5, "rounds of each comparison")
	flags.IntVar(&b.runs, "runs", 200, "runs between two looks at what the idle agent holds")
	flags.BoolVar(&b.short, "short", false, "two rounds, fewer runs, smaller images in the curves")
	flags.StringVar(&b.binary, "careen", "bin/careen", "the binary")
	flags.StringVar(&b.svg, "svg", "integration/bench/scale.svg", "file for the curves")
	work := flags.String("work", "/var/tmp/careen-bench", "where images are kept between runs")
	only := flags.String("only", "", "parts, with commas in between: cold, memory, warm, idle, size, scale; all if empty")
	out := flags.String("out", "integration/bench/results.json", "file for the figures")
	merge := flags.Bool("merge", false, "keep what the file has of parts that do not run now")
	markdown := flags.String("markdown", "", "document whose table is replaced, or that is written, if any")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("needs root: mounts a tmpfs, unpacks images, runs containers")
	}
	if b.short {
		b.rounds, b.runs = min(b.rounds, 2), min(b.runs, 20)
	}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if _, err := os.Stat(b.binary); err != nil {
		return fmt.Errorf("no binary to measure: %w", err)
	}
	b.images = filepath.Join(*work, generation)
	if err := os.MkdirAll(b.images, 0o700); err != nil {
		return err
	}
	r := results{Machine: machine(), Versions: versions(), When: time.Now().UTC().Truncate(time.Second), Table: b.table}
	fmt.Printf("%s\n%s\n", r.Machine, r.Versions)
	if r.Scale, err = b.parts(*only); err != nil {
		return err
	}
	r.Took = time.Since(r.When).Seconds()
	if *merge {
		r.merge(*out)
	}
	return r.write(*out, *markdown)
}

// order is that of the parts in the table.
var order = []string{"cold", "memory", "warm", "idle", "size", "scale"}

// part is one of them.
type part struct {
	name string
	run  func() error
}

// parts runs what was chosen.
func (b *bench) parts(only string) (curves []curve, err error) {
	all := []part{
		{"cold", b.cold}, {"memory", b.memory}, {"warm", b.warm}, {"idle", b.idle}, {"size", b.size},
		{"scale", func() error { curves, err = b.scale(); return err }},
	}
	chosen := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, name := range chosen {
		if !slices.ContainsFunc(all, func(p part) bool { return p.name == name }) {
			return nil, fmt.Errorf("there is no part %q", name)
		}
	}
	for _, p := range all {
		if len(chosen) > 0 && !slices.Contains(chosen, p.name) {
			continue
		}
		began := time.Now()
		b.table.part = p.name
		fmt.Printf("\n%s\n", p.name)
		if err := p.run(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Printf("  (%.0f s)\n", time.Since(began).Seconds())
	}
	return curves, nil
}

// merge adds what an earlier run found of other parts, so that a machine has to
// be quiet for one part at a time only.
func (r *results) merge(file string) {
	var old results
	body, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(body, &old) != nil || old.Table == nil {
		return
	}
	ran := map[string]bool{}
	for _, l := range r.Table.Lines {
		ran[l.Part] = true
	}
	for _, l := range old.Table.Lines {
		if !ran[l.Part] {
			r.Table.Lines = append(r.Table.Lines, l)
		}
	}
	slices.SortStableFunc(r.Table.Lines, func(a, b line) int { return slices.Index(order, a.Part) - slices.Index(order, b.Part) })
	if r.Scale == nil {
		r.Scale = old.Scale
	}
	r.Took += old.Took
}

func (r *results) write(file, markdown string) error {
	fmt.Println()
	r.Table.markdown(os.Stdout)
	if markdown != "" {
		if err := r.document(markdown); err != nil {
			return err
		}
	}
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(body, '\n'), 0o644)
}

// The marks between which a document's table stands.
const tableBegin, tableEnd = "<!-- make bench -->\n", "<!-- end -->\n"

// document writes machine and table between the marks of a file, or as a new file.
func (r *results) document(file string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %s; %s.\n\n", r.Machine, r.Versions, r.When.Format("2006-01-02"))
	r.Table.markdown(&b)
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	head, rest, marked := strings.Cut(string(text), tableBegin)
	_, tail, ended := strings.Cut(rest, tableEnd)
	switch {
	case marked && ended:
		return os.WriteFile(file, []byte(head+tableBegin+b.String()+tableEnd+tail), 0o644)
	case len(text) == 0:
		return os.WriteFile(file, []byte(b.String()), 0o644)
	default:
		return fmt.Errorf("%s has no place for the table: no %q and %q", file, strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
}

// need makes sure that images are there.
func (b *bench) need(shapes ...shape) error {
	for _, s := range shapes {
		dir := filepath.Join(b.images, s.Name)
		if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
			fmt.Printf("  making image %s\n", s.Name)
		}
		if err := generate(dir, s); err != nil {
			return fmt.Errorf("make image %s: %w", s.Name, err)
		}
	}
	return nil
}

// serving calls fn while a registry process answers.
func (b *bench) serving(fn func() error, args ...string) error {
	cmd := exec.Command(b.self, append([]string{"serve", "-root", b.images}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("start the registry: %w", err)
	}
	b.addr = strings.TrimSpace(line)
	return fn()
}
