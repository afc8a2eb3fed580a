package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// shown is how many modules get a line of their own.
const shown = 30

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: size BINARY-WITH-SYMBOLS BINARY-AS-SHIPPED")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

// cost is what one module has in the binary, in bytes.
type cost struct {
	name               string
	code, data, tables uint64
}

func (c *cost) size() uint64 { return c.code + c.data + c.tables }

func run(out io.Writer, withSymbols, shipped string) error {
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
	return report(out, costs, zipped)
}

// modulesOf returns the path of a binary's own module, and those of all that it is
// built of, the longest first, so that the first that fits is the right one.
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

// measure adds up the sizes of the symbols, module by module.
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
	byName := map[string]*cost{}
	add := func(name string, code bool, size uint64) {
		c := byName[name]
		if c == nil {
			c = &cost{name: name}
			byName[name] = c
		}
		if code {
			c.code += size
		} else {
			c.data += size
		}
	}
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
		add(moduleOf(s.Name, main, modules), section.Flags&elf.SHF_EXECINSTR != 0, s.Size)
	}
	for i, section := range file.Sections {
		if section.Flags&elf.SHF_ALLOC == 0 || section.Type == elf.SHT_NOBITS {
			continue
		}
		// What no symbol claims: tables that the linker makes of all packages.
		if rest := section.Size - min(section.Size, inSymbols[elf.SectionIndex(i)]); rest > 0 {
			add(sectionName(section.Name), section.Flags&elf.SHF_EXECINSTR != 0, rest)
		}
	}
	shareOut(byName)
	var costs []*cost
	for _, c := range byName {
		costs = append(costs, c)
	}
	return costs, nil
}

// shareOut gives each module its part of the line tables, in proportion to its code.
func shareOut(byName map[string]*cost) {
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

// lineTables are line numbers and stack maps, which the linker makes for each Go
// function; cCode is what has none.
const (
	lineTables = "(line tables)"
	cCode      = "(C: libc, libseccomp, nsenter)"
)

// sectionName says what a section without symbols holds.
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
	// An instance of a generic function belongs to where the function is, and an
	// itab to its first type.
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
