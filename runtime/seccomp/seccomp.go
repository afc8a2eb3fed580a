package seccomp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/file"
)

// FD is the descriptor on which the init has the file, Link its name in /proc/self/fd.
const (
	FD   = 3
	name = "careen-seccomp"
	Link = "/memfd:" + name + " (deleted)"
)

const (
	// instruction is the size of one instruction in bytes, maxInstructions the kernel's
	// limit (BPF_MAXINSNS).
	instruction     = 8
	maxInstructions = 4096
	// maxStored bounds the number of programs in the cache. Few nodes see more than a
	// handful of profiles.
	maxStored = 64
)

// Program is the file of a profile's program, shared by shim and init.
type Program struct {
	// File is passed to the init.
	File *os.File

	path   string
	cached bool
}

// Open returns the file for a profile. The profile's JSON is the key of the cache in
// dir. Errors have no fault code: they come from the kernel.
func Open(dir string, profile any) (_ *Program, err error) {
	key, err := json.Marshal(profile)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(key, runtime.GOARCH...))
	p := &Program{path: filepath.Join(dir, hex.EncodeToString(sum[:]))}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	p.File = os.NewFile(uintptr(fd), name)
	program, err := os.ReadFile(p.path)
	if err != nil || !plausible(program) {
		return p, nil
	}
	if _, err := p.File.Write(program); err != nil {
		return nil, errors.Join(err, p.File.Close())
	}
	p.cached = true
	return p, nil
}

// plausible refuses what the kernel would refuse as a program.
func plausible(program []byte) bool {
	return len(program) > 0 && len(program)%instruction == 0 && len(program) <= instruction*maxInstructions
}

// Store puts the program that the init wrote into the cache, and closes the file.
// Another shim may do so at the same time. Errors have no fault code.
func (p *Program) Store() error {
	defer p.File.Close()
	if p.cached {
		return nil
	}
	program, err := io.ReadAll(io.NewSectionReader(p.File, 0, instruction*maxInstructions+1))
	if err != nil || !plausible(program) {
		return err
	}
	dir := filepath.Dir(p.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if stored, err := os.ReadDir(dir); err != nil || len(stored) >= maxStored {
		return err
	}
	return file.Replace(p.path, program, 0o600, file.Volatile)
}

// Close closes the file without storing a program.
func (p *Program) Close() error { return p.File.Close() }
