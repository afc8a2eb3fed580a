package ramdisk

import (
	"debug/elf"
	"fmt"
	"syscall"
)

var errNoSpace error = syscall.ENOSPC

// isStatic reports whether a program runs without an interpreter, that is
// without shared libraries.
func isStatic(path string) (bool, error) {
	f, err := elf.Open(path)
	if err != nil {
		return false, fmt.Errorf("not a program for Linux: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}
