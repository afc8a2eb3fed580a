package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/buildinfo"
	"debug/elf"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// shown is the number of modules with a line of their own in the table.
const shown = 30

func main() {
	limit := flag.Int("limit", 0, "fail if BINARY-AS-SHIPPED has more `BYTES` gzipped (0: no limit)")
	recorded := flag.String("recorded", "", "`FILE` with the sizes of releases; the last line is compared with")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: size [-limit BYTES] [-recorded FILE] BINARY-WITH-SYMBOLS BINARY-AS-SHIPPED")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, flag.Arg(0), flag.Arg(1), *limit, *recorded); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

// cost is the size of one module in the binary, in bytes.
type cost struct {
	name               string
	code, data, tables uint64
}

func (c *cost) size() uint64 { return c.code + c.data + c.tables }

// run writes the table and the summary. It fails if the shipped binary is over the limit.
func run(out io.Writer, withSymbols, shipped string, limit int, recorded string) error {
	main, modules, err := modulesOf(withSymbols)
	if err != nil {
		return err
	}
	costs, err := measure(withSymbols, main, modules)
	if err != nil {
		return err
	}
	zipped, err := gzipped(shipped)
	if err != nil {
		return err
	}
	if err := report(out, costs, zipped); err != nil {
		return err
	}
	return summary(out, shipped, zipped, limit, recorded)
}

// summary writes the size of the shipped binary beside the limit and the last release.
func summary(out io.Writer, shipped string, zipped, limit int, recorded string) error {
	fmt.Fprintf(out, "%s: %d bytes gzipped", shipped, zipped)
	if recorded != "" {
		version, was, err := lastRelease(recorded)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, ", %+d since %s (%d)", zipped-was, version, was)
	}
	if limit > 0 {
		fmt.Fprintf(out, ", limit %d", limit)
	}
	fmt.Fprintln(out)
	if limit > 0 && zipped > limit {
		return fmt.Errorf("%s is %d bytes over its limit of %d bytes gzipped", shipped, zipped-limit, limit)
	}
	return nil
}

// lastRelease reads the last line of a file whose lines are "VERSION BYTES". Lines that start
// with # are comments.
func lastRelease(path string) (version string, size int, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 {
			return "", 0, fmt.Errorf("%s: want VERSION BYTES, found %q", path, strings.TrimSpace(line))
		}
		version = fields[0]
		if size, err = strconv.Atoi(fields[1]); err != nil {
			return "", 0, fmt.Errorf("%s: %w", path, err)
		}
	}
	if version == "" {
		return "", 0, fmt.Errorf("%s has no release", path)
	}
	return version, size, nil
}

// modulesOf returns the path of the binary's main module, and the paths of all modules in it.
// Longer paths come first, so that the first path that matches a symbol is the right one.
func modulesOf(path string) (string, []string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	modules := []string{info.Main.Path}
	for _, dep := range info.Deps {
		modules = append(modules, dep.Path)
	}
	slices.SortFunc(modules, func(a, b string) int { return len(b) - len(a) })
	return info.Main.Path, modules, nil
}

// measure adds up the sizes of the symbols of each module.
func measure(path, main string, modules []string) ([]*cost, error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s has no symbols: %w", path, err)
	}
	sums := costs{}
	inSymbols := map[elf.SectionIndex]uint64{}
	for _, s := range symbols {
		if int(s.Section) >= len(file.Sections) || s.Size == 0 || elf.ST_TYPE(s.Info) == elf.STT_SECTION {
			continue
		}
		section := file.Sections[s.Section]
		if section.Type == elf.SHT_NOBITS {
			continue // memory, not bytes of the file
		}
		inSymbols[s.Section] += s.Size
		sums.add(moduleOf(s.Name, main, modules), section.Flags&elf.SHF_EXECINSTR != 0, s.Size)
	}
	for i, section := range file.Sections {
		if section.Flags&elf.SHF_ALLOC == 0 || section.Type == elf.SHT_NOBITS {
			continue
		}
		// Bytes without a symbol: tables that the linker makes for all packages.
		if rest := section.Size - min(section.Size, inSymbols[elf.SectionIndex(i)]); rest > 0 {
			sums.add(sectionName(section.Name), section.Flags&elf.SHF_EXECINSTR != 0, rest)
		}
	}
	shareOut(sums)
	return slices.Collect(maps.Values(sums)), nil
}

// costs are the costs by module.
type costs map[string]*cost

func (c costs) add(name string, code bool, size uint64) {
	if c[name] == nil {
		c[name] = &cost{name: name}
	}
	if code {
		c[name].code += size
	} else {
		c[name].data += size
	}
}

// shareOut divides the line tables among the modules in proportion to their code.
func shareOut(byName costs) {
	tables := byName[lineTables]
	if tables == nil {
		return
	}
	delete(byName, lineTables)
	var code uint64
	for name, c := range byName {
		if name != cCode {
			code += c.code
		}
	}
	for name, c := range byName {
		if name != cCode && code > 0 {
			c.tables = uint64(float64(tables.code+tables.data) * float64(c.code) / float64(code))
		}
	}
}

// lineTables are the line numbers and stack maps that the linker makes for each Go function.
// C code has none.
const (
	lineTables = "(line tables)"
	cCode      = "(C: libc, libseccomp, nsenter)"
)

// sectionName names the content of a section that has no symbols.
func sectionName(section string) string {
	switch section {
	case ".gopclntab":
		return lineTables
	case ".rodata", ".typelink", ".itablink":
		return "(types and constants without a name)"
	default:
		return "(the rest: alignment, C's tables)"
	}
}

// moduleOf returns the module that a symbol belongs to.
func moduleOf(symbol, main string, modules []string) string {
	name := symbol
	for _, prefix := range []string{"type:.eq.", "type:.hash.", "type:", "go:itab.", "*"} {
		name = strings.TrimPrefix(name, prefix)
	}
	// An instance of a generic function belongs to the module of the function, and an
	// itab to the module of its first type.
	name = strings.TrimLeft(strings.NewReplacer("%2e", ".").Replace(name), "*[]")
	for _, module := range modules {
		if rest, ok := strings.CutPrefix(name, module); ok && (rest == "" || strings.ContainsAny(rest[:1], "./")) {
			return module
		}
	}
	path, _, _ := strings.Cut(name, ".")
	switch {
	case name == "runtime.pclntab":
		return lineTables
	case strings.HasPrefix(name, "main."):
		return main
	case strings.Contains(symbol, ".") && !strings.HasPrefix(symbol, "_cgo"):
		if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, "_") {
			return "(Go's standard library and runtime)"
		}
	}
	return cCode
}

func gzipped(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return 0, err
	}
	if _, err := zip.Write(data); err != nil {
		return 0, err
	}
	return out.Len(), zip.Close()
}

func report(out io.Writer, costs []*cost, zipped int) error {
	slices.SortFunc(costs, func(a, b *cost) int {
		return cmp.Or(cmp.Compare(b.size(), a.size()), strings.Compare(a.name, b.name))
	})
	total, rest := cost{name: "all"}, cost{}
	for i, c := range costs {
		total.add(c)
		if i >= shown {
			rest.add(c)
		}
	}
	if len(costs) > shown {
		rest.name = fmt.Sprintf("(%d more)", len(costs)-shown)
		costs = append(costs[:shown], &rest)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "code KiB\tdata KiB\tline tables KiB\tgzipped kB\tshare\t  module")
	for _, c := range append(costs, &total) {
		share := float64(c.size()) / float64(total.size())
		fmt.Fprintf(table, "%d\t%d\t%d\t%.0f\t%.1f%%\t  %s\n", c.code>>10, c.data>>10, c.tables>>10,
			share*float64(zipped)/1000, 100*share, c.name)
	}
	return table.Flush()
}

func (c *cost) add(other *cost) {
	c.code, c.data, c.tables = c.code+other.code, c.data+other.data, c.tables+other.tables
}
