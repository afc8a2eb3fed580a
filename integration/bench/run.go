package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench holds what all measurements share.
type bench struct {
	work   string // images and the tmpfs live here
	self   string
	rounds int
	out    string
	addr   string
	stop   func()
}

func run(args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "rounds of each comparison")
	work := flags.String("work", "/var/tmp/careen-bench", "where images are kept between runs")
	only := flags.String("only", "", "cold or scale; all if empty")
	out := flags.String("out", "integration/bench/results.json", "file for the figures")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("needs root: mounts a tmpfs and unpacks images")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{work: *work, self: self, rounds: *rounds, out: *out}
	results := map[string]any{"machine": machine(), "when": time.Now().UTC().Format(time.RFC3339)}
	if err := os.MkdirAll(b.work, 0o700); err != nil {
		return err
	}
	if *only == "" || *only == "cold" {
		if results["cold_pull"], err = b.cold(); err != nil {
			return err
		}
	}
	if *only == "" || *only == "scale" {
		if results["scale"], err = b.scale(); err != nil {
			return err
		}
	}
	body, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*out, append(body, '\n'), 0o644)
}

// serveImages starts a registry process for what is in the work directory.
func (b *bench) serveImages(args ...string) error {
	cmd := exec.Command(b.self, append([]string{"serve", "-root", b.work}, args...)...)
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
	b.stop = func() { _ = in.Close(); _ = cmd.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	b.addr = strings.TrimSpace(line)
	return err
}

// onTmpfs calls fn with an empty directory on a new tmpfs.
func (b *bench) onTmpfs(fn func(dir string) error) error {
	dir, err := os.MkdirTemp(b.work, "store-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8g"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	return fn(dir)
}

// candidate is one way to get an image onto a tmpfs.
type candidate struct {
	name string
	run  func(image, dir string) (result, error)
}

func (b *bench) candidates() []candidate {
	return []candidate{
		{"careen", b.careen},
		{"podman", b.podman},
		{"floor", b.floor},
	}
}

func (b *bench) careen(image, dir string) (result, error) {
	return b.careenTimes(image, dir, 1)
}

// careenTimes pulls an image n times at once.
func (b *bench) careenTimes(image, dir string, n int) (result, error) {
	var r result
	out, err := output(exec.Command(b.self, "pull", "-root", dir, "-times", strconv.Itoa(n), b.addr+"/"+image+":latest"))
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	return r, err
}

func (b *bench) podman(image, dir string) (result, error) {
	cmd := exec.Command("podman", "--root", dir+"/root", "--runroot", dir+"/run", "--storage-driver", "overlay",
		"pull", "--quiet", "--tls-verify=false", b.addr+"/"+image+":latest")
	start := time.Now()
	_, err := output(cmd)
	r := result{Seconds: time.Since(start).Seconds()}
	if usage, ok := cmd.ProcessState.SysUsage().(*unixRusage); ok && usage != nil {
		r.PeakRSS = usage.Maxrss << 10
	}
	return r, err
}

func (b *bench) floor(image, dir string) (result, error) {
	layers, err := layersOf(filepath.Join(b.work, image))
	if err != nil {
		return result{}, err
	}
	var script strings.Builder
	for i, l := range layers {
		fmt.Fprintf(&script, "mkdir %s/%d; igzip -dc <%s | tar -x -C %s/%d &\n", dir, i, l, dir, i)
	}
	script.WriteString("wait\n")
	start := time.Now()
	_, err = output(exec.Command("/bin/sh", "-c", script.String()))
	return result{Seconds: time.Since(start).Seconds()}, err
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// row is one line of the table.
type row struct {
	Name    string
	Seconds []float64
	Median  float64
	PeakRSS int64
}

// cold compares cold pulls: one of each candidate per round, in turns.
func (b *bench) cold() ([]row, error) {
	fmt.Printf("image %q: %d layers, %d files, %d MB unpacked\n", tool.Name, tool.Layers, tool.Files, tool.Bytes>>20)
	if err := generate(filepath.Join(b.work, tool.Name), tool); err != nil {
		return nil, err
	}
	if err := b.serveImages(); err != nil {
		return nil, err
	}
	defer b.stop()
	all := b.candidates()
	rows := make([]row, len(all))
	for round := range b.rounds {
		for i := range all {
			// The order turns with the rounds, so that none always comes after the
			// same other one.
			n := (i + round) % len(all)
			err := b.onTmpfs(func(dir string) error {
				r, err := all[n].run(tool.Name, dir)
				rows[n].Seconds = append(rows[n].Seconds, r.Seconds)
				rows[n].PeakRSS = max(rows[n].PeakRSS, r.PeakRSS)
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", all[n].name, err)
			}
		}
	}
	for i := range rows {
		rows[i].Name, rows[i].Median = all[i].name, median(rows[i].Seconds)
	}
	printRows(os.Stdout, rows)
	return rows, nil
}

func printRows(w io.Writer, rows []row) {
	base := map[string]float64{}
	for _, r := range rows {
		base[r.Name] = r.Median
	}
	fmt.Fprintf(w, "\n%-8s %8s %8s %8s %10s %10s %10s\n", "", "median", "best", "worst", "x podman", "x floor", "peak MB")
	for _, r := range rows {
		fmt.Fprintf(w, "%-8s %7.2fs %7.2fs %7.2fs %10.2f %10.2f %10d\n", r.Name, r.Median, slices.Min(r.Seconds), slices.Max(r.Seconds),
			r.Median/base["podman"], r.Median/base["floor"], r.PeakRSS>>20)
	}
	fmt.Fprintln(w)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
