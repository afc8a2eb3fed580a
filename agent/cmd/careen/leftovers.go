package main

import (
	"encoding/json"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/runtime/container"
)

// maxBefore bounds before.json in bytes.
const maxBefore = 4 << 20

// before is the state of the node that leftovers are told by.
type before struct {
	// Clock is the reading of the boot clock.
	Clock     time.Duration    `json:"clock"`
	Inventory rootfs.Inventory `json:"inventory"`
}

// takeBefore writes down what is on the node. own are directories whose mounts are
// careen's.
func takeBefore(dir string, own []string) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return err
	}
	data, err := json.Marshal(before{Clock: time.Duration(now.Nano()), Inventory: rootfs.TakeInventory(own...)})
	if err != nil {
		return err
	}
	return file.Replace(container.Dir(dir).Before(), data, 0o600, file.Volatile)
}

// leftSince returns what is on the node now and was not when the container was made;
// nothing where nobody knows what was.
func leftSince(dir string, own []string) agent.Leftovers {
	file, err := os.Open(container.Dir(dir).Before())
	if err != nil {
		return agent.Leftovers{}
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxBefore))
	if err != nil {
		return agent.Leftovers{}
	}
	var was before
	if json.Unmarshal(data, &was) != nil {
		return agent.Leftovers{}
	}
	left := rootfs.TakeInventory(own...).Since(was.Inventory)
	return agent.Leftovers{Left: append(left, rootfs.Strays(was.Clock)...)}
}
