package runtime

import (
	"slices"

	"github.com/careen-project/careen/rootfs/leaks"
	"github.com/careen-project/careen/runtime/container"
)

// own are the directories whose mounts are careen's.
func (e *Engine) own() []string {
	return append(slices.Clone(e.cfg.Own), e.cfg.Root, e.cfg.State)
}

// leftovers returns what is on the node now and was not there before the container was
// made; nothing where the record cannot be read.
func (e *Engine) leftovers(dir container.Dir) container.Leftovers {
	return container.Leftovers{Left: leaks.Since(dir.Before(), e.own()...)}
}
