package runtime

import (
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
)

// cgroupRoot is where every init system and every runtime has the control groups.
const cgroupRoot = "/sys/fs/cgroup"

// warmUpCgroups has the kernel get ready for a process to be put into a control
// group, which is about to happen. The lock for that stops every fork and exit of the
// node; the first to take it waits for an RCU grace period, 10 to 20 ms, and those who
// come soon after do not (kernel/rcu/sync.c). So this process is put where it is
// already, while the container is still being prepared.
func warmUpCgroups() {
	go func() {
		if procs := ownProcs(); procs != "" {
			// "0" is the process that writes. Whatever is wrong with it, the container's
			// own migration says so, or does not mind.
			_ = os.WriteFile(procs, []byte("0"), 0)
		}
	}()
}

// ownProcs is the file of this process's control group that takes processes, in any
// hierarchy: the lock is the same for all.
func ownProcs() string {
	groups, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for controller, group := range groups {
		procs := filepath.Join(cgroupRoot, controller, group, cgroups.CgroupProcesses)
		if _, err := os.Stat(procs); err == nil {
			return procs
		}
	}
	return ""
}
