package main

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// podmanBytes is what Debian's podman and what it pulls in add to the project's
// reference ramdisk, gzipped. What is installed here may be more, by the network
// plugins that were chosen, so the target is held against this figure.
const podmanBytes = 33.5e6

// size measures what careen adds to a ramdisk, gzipped as a ramdisk is.
func (b *bench) size() error {
	file, err := os.ReadFile(b.binary)
	if err != nil {
		return err
	}
	own, err := gzipped(func(w io.Writer) error { _, err := w.Write(file); return err })
	if err != nil {
		return err
	}
	b.table.add(line{What: "bytes in the ramdisk, gzipped", Unit: "MB", Careen: []float64{own / 1e6}, Other: []float64{podmanBytes / 1e6},
		With: "podman, reference", Limit: 0.30})
	packages, bytes, err := addedBy("podman")
	if err != nil {
		return err
	}
	b.table.add(line{What: "bytes in the ramdisk, gzipped", Unit: "MB", Careen: []float64{own / 1e6}, Other: []float64{bytes / 1e6},
		With: fmt.Sprintf("podman and %d packages here", len(packages)-1)})
	fmt.Printf("  (%s; \"make size\" shows careen's modules)\n", strings.Join(packages, " "))
	return nil
}

func gzipped(write func(io.Writer) error) (float64, error) {
	var n counter
	z, err := gzip.NewWriterLevel(&n, gzip.BestCompression)
	if err == nil {
		err = write(z)
	}
	if err == nil {
		err = z.Close()
	}
	return float64(n), err
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// debian is what dpkg knows of the installed packages.
type debian struct {
	fields   map[string]map[string]string
	provides map[string]string
}

var fieldLine = regexp.MustCompile(`(?m)^([A-Za-z-]+): (.*)$`)

func readDebian() (*debian, error) {
	status, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		return nil, err
	}
	d := &debian{fields: map[string]map[string]string{}, provides: map[string]string{}}
	for _, paragraph := range strings.Split(string(status), "\n\n") {
		f := map[string]string{}
		for _, m := range fieldLine.FindAllStringSubmatch(paragraph, -1) {
			f[m[1]] = m[2]
		}
		if !strings.HasSuffix(f["Status"], " installed") {
			continue
		}
		d.fields[f["Package"]] = f
		for _, p := range strings.Split(f["Provides"], ",") {
			d.provides[bare(p)] = f["Package"]
		}
	}
	return d, nil
}

// bare is a dependency without version and architecture.
func bare(dependency string) string {
	name, _, _ := strings.Cut(strings.TrimSpace(dependency), " ")
	name, _, _ = strings.Cut(name, ":")
	return name
}

// closure adds to all what the packages depend on, as it is installed.
func (d *debian) closure(all map[string]bool, names ...string) {
	for _, name := range names {
		f := d.fields[name]
		if f == nil || all[name] {
			continue
		}
		all[name] = true
		for _, dependency := range strings.Split(f["Depends"]+","+f["Pre-Depends"], ",") {
			for _, alternative := range strings.Split(dependency, "|") {
				alternative = bare(alternative)
				if d.fields[alternative] == nil {
					alternative = d.provides[alternative]
				}
				if alternative != "" {
					d.closure(all, alternative)
					break
				}
			}
		}
	}
}

// addedBy returns the packages that come with one, beyond a minimal system with
// Python (as a ramdisk with IPA is), and the bytes of their files, gzipped.
func addedBy(name string) ([]string, float64, error) {
	d, err := readDebian()
	if err != nil {
		return nil, 0, err
	}
	base, all := map[string]bool{}, map[string]bool{}
	d.closure(base, "python3")
	for n, f := range d.fields {
		if f["Essential"] == "yes" || f["Priority"] == "required" || f["Priority"] == "important" {
			d.closure(base, n)
		}
	}
	d.closure(all, name)
	var names []string
	for n := range all {
		if !base[n] {
			names = append(names, n)
		}
	}
	size, err := gzipped(func(w io.Writer) error {
		t := tar.NewWriter(w)
		for _, n := range names {
			if err := d.files(t, n); err != nil {
				return err
			}
		}
		return t.Close()
	})
	return names, size, err
}

// files writes a package's files but its documentation.
func (d *debian) files(t *tar.Writer, name string) error {
	if d.fields[name]["Multi-Arch"] == "same" {
		name += ":" + d.fields[name]["Architecture"]
	}
	list, err := output(exec.Command("dpkg", "-L", name))
	if err != nil {
		return err
	}
	for _, file := range strings.Split(string(list), "\n") {
		info, err := os.Lstat(file)
		if err != nil || !info.Mode().IsRegular() || strings.HasPrefix(file, "/usr/share/doc") ||
			strings.HasPrefix(file, "/usr/share/man") || strings.HasPrefix(file, "/usr/share/locale") {
			continue
		}
		body, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := writeEntry(t, &tar.Header{Typeflag: tar.TypeReg, Name: file[1:], Mode: 0o644}, body); err != nil {
			return err
		}
	}
	return nil
}
