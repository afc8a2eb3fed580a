package shim

import (
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/careen-project/careen/runtime/filter"
)

// program is the file for the init's seccomp program; nil for a container without.
type program struct{ *filter.Filter }

// passFilter gives the init a file for its seccomp program, as its first beside the
// standard streams.
func (c *task) passFilter(profile *configs.Seccomp) (*program, error) {
	if profile == nil || c.target.Filters == "" {
		return nil, nil //nolint:nilnil // nothing to pass
	}
	f, err := filter.Open(c.target.Filters, profile)
	if err != nil {
		return nil, err
	}
	c.proc.ExtraFiles = []*os.File{f.File}
	return &program{f}, nil
}

// keep keeps what the init made of its profile. That it cannot be kept costs the
// next container time, nothing else.
func (p *program) keep() {
	if p == nil {
		return
	}
	if err := p.Keep(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot keep a seccomp program: %v\n", err)
	}
}

func (p *program) drop() {
	if p != nil {
		_ = p.Close()
	}
}
