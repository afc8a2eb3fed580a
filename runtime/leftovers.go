package runtime

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/procfs"
	"github.com/careen-project/careen/runtime/container"
)

// maxBefore bounds before.json in bytes.
const maxBefore = 4 << 20

// before is what was on the node before a container was made. It is a file in the run's
// directory, for the agent that removes the container: that may be a later one.
type before struct {
	// Clock is the reading of the boot clock (CLOCK_BOOTTIME).
	Clock     time.Duration    `json:"clock"`
	Inventory rootfs.Inventory `json:"inventory"`
}

// own are the directories whose mounts are careen's.
func (e *Engine) own() []string {
	return append(slices.Clone(e.cfg.Own), e.cfg.Root, e.cfg.State)
}

// recordBefore writes down what is on the node.
func (e *Engine) recordBefore(dir container.Dir) error {
	data, err := json.Marshal(before{Clock: procfs.BootClock(), Inventory: rootfs.TakeInventory(e.own()...)})
	if err != nil {
		return err
	}
	return file.Replace(dir.Before(), data, 0o600, file.Volatile)
}

// leftovers returns what is on the node now and was not there before the container was
// made; nothing where before.json cannot be read.
func (e *Engine) leftovers(dir container.Dir) container.Leftovers {
	data, err := file.ReadLimited(dir.Before(), maxBefore)
	var was before
	if err != nil || json.Unmarshal(data, &was) != nil {
		return container.Leftovers{}
	}
	left := rootfs.TakeInventory(e.own()...).Since(was.Inventory)
	return container.Leftovers{Left: append(left, rootfs.Strays(was.Clock)...)}
}
