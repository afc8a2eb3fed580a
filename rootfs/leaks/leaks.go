package leaks

import (
	"encoding/json"
	"time"

	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/procfs"
)

// maxRecord limits the record's size in bytes.
const maxRecord = 4 << 20

// record is the state of the node before a container, as it is stored. Agents of other
// versions read it.
type record struct {
	// Clock is the time since the kernel started, in nanoseconds.
	Clock     time.Duration `json:"clock"`
	Inventory inventory     `json:"inventory"`
}

// Record writes the present state of the node to the file path. own are directories of
// careen: mounts below them come and go with containers and are left out. The error is
// one of package os, without a fault code.
func Record(path string, own ...string) error {
	data, err := json.Marshal(record{Clock: procfs.BootClock(), Inventory: takeInventory(own)})
	if err != nil {
		return err
	}
	return file.Replace(path, data, 0o600, file.Volatile)
}

// Since returns what is on the node now and is not in the record at path, one line each
// such as "mount /mnt (ext4 from /dev/sda1)". Without a readable record it returns
// nothing.
func Since(path string, own ...string) []string {
	data, err := file.ReadLimited(path, maxRecord)
	if err != nil {
		return nil
	}
	var before record
	if json.Unmarshal(data, &before) != nil {
		return nil
	}
	return append(takeInventory(own).since(before.Inventory), processes(before.Clock)...)
}
