package shim

import (
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/careen-project/careen/runtime/seccomp"
)

// program is the file for the init's seccomp program; nil for a container without.
type program struct{ *seccomp.Program }

// passProgram gives the init the file for its seccomp program, as the first descriptor
// after the standard streams.
func (c *task) passProgram(profile *configs.Seccomp) (*program, error) {
	if profile == nil || c.target.SeccompDir == "" {
		return nil, nil // nothing to pass
	}
	p, err := seccomp.Open(c.target.SeccompDir, profile)
	if err != nil {
		return nil, err
	}
	c.proc.ExtraFiles = []*os.File{p.File}
	return &program{p}, nil
}

// store puts the program into the cache. A failure costs the next container time and
// has no other effect.
func (p *program) store() {
	if p == nil {
		return
	}
	if err := p.Store(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot store a seccomp program: %v\n", err)
	}
}

// drop closes the file without storing the program.
func (p *program) drop() {
	if p != nil {
		_ = p.Close()
	}
}
