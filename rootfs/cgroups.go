package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/file"
)

// cgroupRoot is the usual mount point of the control groups.
const cgroupRoot = "/sys/fs/cgroup"

// delegated are the controllers that limits of containers need.
var delegated = []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb", "misc", "rdma"}

// DetectCgroups returns the current layout of the control groups.
func DetectCgroups() CgroupMode {
	if statfsType(cgroupRoot) == unix.CGROUP2_SUPER_MAGIC {
		return CgroupV2
	}
	mounts, err := readMounts()
	if err != nil {
		return CgroupNone
	}
	mode := CgroupNone
	for _, m := range mounts {
		switch {
		case m.FSType == "cgroup" && mode == CgroupNone:
			mode = CgroupV1
		case m.FSType == "cgroup2" && filepath.Dir(m.Mountpoint) == cgroupRoot && mode == CgroupV1:
			mode = CgroupHybrid
		}
	}
	if mode == CgroupV1 && statfsType(filepath.Join(cgroupRoot, "unified")) == unix.CGROUP2_SUPER_MAGIC {
		mode = CgroupHybrid
	}
	return mode
}

// controllers returns the controllers that containers can use, sorted.
func controllers(mode CgroupMode) []string {
	var names []string
	switch mode {
	case CgroupV2:
		names = strings.Fields(file.ReadWord(filepath.Join(cgroupRoot, "cgroup.subtree_control")))
	case CgroupV1, CgroupHybrid:
		mounts, err := readMounts()
		if err != nil {
			return nil
		}
		for _, m := range mounts {
			if m.FSType != "cgroup" {
				continue
			}
			for _, option := range strings.Split(m.VFSOptions, ",") {
				if option != "rw" && option != "ro" && !strings.Contains(option, "=") && option != "xattr" && option != "none" {
					names = append(names, option)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// AvailableControllers returns the controllers that the node has for a layout. Unlike the
// layout's CgroupControllers they need not be delegated yet: [Prepare] does that.
func AvailableControllers(mode CgroupMode) []string {
	if mode == CgroupV2 {
		return strings.Fields(file.ReadWord(cgroupRoot + "/cgroup.controllers"))
	}
	return controllers(mode)
}

// prepareCgroups mounts cgroup2 where there are no control groups, and delegates the
// controllers of v2 to parent. v1 needs neither: a hierarchy has its controllers in every
// cgroup. Failures are in the actions: a container can run without limits, and the
// caller decides about that.
func prepareCgroups(parent string, done *actions) {
	mode := DetectCgroups()
	if mode == CgroupNone {
		if done.add("mount", cgroupRoot, "cgroup2", mountCgroup2()) != nil {
			return
		}
		mode = CgroupV2
	}
	if mode != CgroupV2 {
		return
	}
	if unix.Access(cgroupRoot, unix.W_OK) != nil {
		flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		if done.add("remount", cgroupRoot, "writable", unix.Mount("", cgroupRoot, "", flags, "")) != nil {
			return
		}
	}
	delegate(cgroupRoot, done)
	dir := filepath.Join(cgroupRoot, filepath.Clean("/"+parent))
	if dir == cgroupRoot {
		return
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if done.add("create", dir, "cgroup for containers", os.MkdirAll(dir, 0o755)) != nil {
			return
		}
	}
	// Every level above parent has to delegate the same controllers as the root.
	for at := cgroupRoot; at != dir; {
		rest, err := filepath.Rel(at, dir)
		if err != nil {
			return
		}
		at = filepath.Join(at, strings.SplitN(rest, "/", 2)[0])
		delegate(at, done)
	}
}

func mountCgroup2() error {
	if err := os.MkdirAll(cgroupRoot, 0o755); err != nil {
		return err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", flags, "nsdelegate,memory_recursiveprot")
	if errors.Is(err, unix.EINVAL) {
		// Kernels before 5.7 do not know the second option.
		err = unix.Mount("cgroup2", cgroupRoot, "cgroup2", flags, "nsdelegate")
	}
	return err
}

// delegate enables the controllers of dir for its children. It enables one at a time, so
// that one failure does not affect the others.
func delegate(dir string, done *actions) {
	control := filepath.Join(dir, "cgroup.subtree_control")
	on := strings.Fields(file.ReadWord(control))
	var missing []string
	for _, name := range strings.Fields(file.ReadWord(filepath.Join(dir, "cgroup.controllers"))) {
		if slices.Contains(delegated, name) && !slices.Contains(on, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return
	}
	// Only the kernel's root cgroup has no cgroup.type. Any other cgroup may have
	// processes or delegate controllers, not both; that is so where careen itself runs in
	// a container. With processes in it the kernel accepts the threaded controllers, and
	// then no process can enter the children.
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err == nil && file.ReadWord(filepath.Join(dir, "cgroup.procs")) != "" {
		if evacuate(dir, done) != nil {
			return
		}
	}
	for _, name := range missing {
		_ = done.add("write", control, "+"+name, writeControl(control, "+"+name))
	}
}

// evacuate moves the processes of dir into a child of it. Processes that start or
// end meanwhile are why it goes round more than once.
func evacuate(dir string, done *actions) error {
	leaf := filepath.Join(dir, "init.scope")
	err := os.Mkdir(leaf, 0o755)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return done.add("create", leaf, "", err)
	}
	for range 10 {
		pids := strings.Fields(file.ReadWord(filepath.Join(dir, "cgroup.procs")))
		if len(pids) == 0 {
			return done.add("move", dir, "its processes to "+leaf, nil)
		}
		for _, pid := range pids {
			err = writeControl(filepath.Join(leaf, "cgroup.procs"), pid)
			if errors.Is(err, unix.ESRCH) {
				err = nil
			}
			if err != nil {
				return done.add("move", dir, "process "+pid+" to "+leaf, err)
			}
		}
	}
	return done.add("move", dir, "its processes to "+leaf, unix.EBUSY)
}

// writeControl writes to a control file that has to exist already.
func writeControl(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(value); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
