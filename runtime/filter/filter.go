package filter

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

// FD is the descriptor on which the init has the file, Link what /proc calls it.
const (
	FD   = 3
	name = "careen-seccomp"
	Link = "/memfd:" + name + " (deleted)"
)

const (
	// instruction is the size of one instruction, and maxInstructions what the
	// kernel takes (BPF_MAXINSNS).
	instruction     = 8
	maxInstructions = 4096
	// maxKept bounds how many programs are kept: a profile per step is unusual.
	maxKept = 64
)

// Filter is a profile's program on its way to an init and back.
type Filter struct {
	// File is for the init.
	File *os.File

	path string
	full bool
}

// Open returns the file for a profile, which is anything that JSON tells from
// others. Programs are kept in dir.
func Open(dir string, profile any) (_ *Filter, err error) {
	key, err := json.Marshal(profile)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(key, runtime.GOARCH...))
	f := &Filter{path: filepath.Join(dir, hex.EncodeToString(sum[:]))}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	f.File = os.NewFile(uintptr(fd), name)
	program, err := os.ReadFile(f.path)
	if err != nil || !plausible(program) {
		return f, nil
	}
	if _, err := f.File.Write(program); err != nil {
		return nil, errors.Join(err, f.File.Close())
	}
	f.full = true
	return f, nil
}

func plausible(program []byte) bool {
	return len(program) > 0 && len(program)%instruction == 0 && len(program) <= instruction*maxInstructions
}

// Keep stores what the init has filled in, for the next container with the same
// profile, and closes the file. Another shim may do so at the same time.
func (f *Filter) Keep() error {
	defer f.File.Close()
	if f.full {
		return nil
	}
	program, err := io.ReadAll(io.NewSectionReader(f.File, 0, instruction*maxInstructions+1))
	if err != nil || !plausible(program) {
		return err
	}
	dir := filepath.Dir(f.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if kept, err := os.ReadDir(dir); err != nil || len(kept) >= maxKept {
		return err
	}
	return file.Replace(f.path, program, 0o600, file.Volatile)
}

// Close gives the file up where no container was made.
func (f *Filter) Close() error { return f.File.Close() }
