package shim

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// errNodes is that the shim could not make a container's device nodes; libcontainer
// has other ways.
var errNodes = errors.New("cannot make device nodes from outside")

// takeNodes takes from a container's configuration the device nodes that the shim
// makes itself, with [makeNodes]. libcontainer's init makes each of them with some
// two hundred system calls, because it does not know what lies where it makes them:
// the hundred nodes of --privileged are more work than the rest of the container.
// From outside, after /dev was mounted and before anything of the image runs, three
// are enough.
//
// Nothing is taken where that is not so: no empty /dev of the container's own, a user
// namespace, in which the kernel forbids device nodes. /dev/null stays libcontainer's, which
// needs it on its way.
func takeNodes(c *configs.Config) []*devices.Device {
	if c.Namespaces.Contains(configs.NEWUSER) || !c.Namespaces.IsPrivate(configs.NEWNS) || !ownDev(c.Mounts) || len(c.Hooks) > 0 {
		return nil
	}
	var taken, left []*devices.Device
	for _, node := range c.Devices {
		switch {
		// libcontainer makes the second a link to that of /dev/pts.
		case node.Path == "/dev/null", node.Path == "/dev/ptmx",
			kind(node.Type) == 0, !strings.HasPrefix(node.Path, "/dev/"), path.Clean(node.Path) != node.Path:
			left = append(left, node)
		default:
			taken = append(taken, node)
		}
	}
	c.Devices = left
	return taken
}

// noNodes leaves all of them to libcontainer.
func noNodes(*configs.Config) []*devices.Device { return nil }

// ownDev reports whether the last mount on /dev is a tmpfs that stays writable.
func ownDev(mounts []*configs.Mount) bool {
	own := false
	for _, m := range mounts {
		if filepath.Clean(m.Destination) == "/dev" {
			own = m.Device == "tmpfs" && m.Flags&unix.MS_RDONLY == 0
		}
	}
	return own
}

// kind is the file type of a device node, 0 for what is none.
func kind(t devices.Type) uint32 {
	switch t {
	case devices.BlockDevice:
		return unix.S_IFBLK
	case devices.CharDevice:
		return unix.S_IFCHR
	case devices.FifoDevice:
		return unix.S_IFIFO
	default:
		return 0
	}
}

// makeNodes makes device nodes in the /dev of a container whose init waits. What is
// there already, such as a file that was bound into /dev, stays. Errors are errNodes.
func makeNodes(pid int, nodes []*devices.Device) error {
	if len(nodes) == 0 {
		return nil
	}
	dev, err := openDev(pid)
	if err != nil {
		return fmt.Errorf("%w: %w", errNodes, err)
	}
	defer unix.Close(dev)
	for _, node := range nodes {
		if err := makeNode(dev, node); err != nil {
			return fmt.Errorf("%w: %s: %w", errNodes, node.Path, err)
		}
	}
	return nil
}

// openDev opens the tmpfs that is mounted on /dev where the process sees it.
func openDev(pid int) (int, error) {
	root, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open the root of process", Path: strconv.Itoa(pid), Err: err}
	}
	defer unix.Close(root)
	dev, err := unix.Openat2(root, "dev", &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev", Err: err}
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(dev, &stat); err != nil || stat.Type != unix.TMPFS_MAGIC {
		unix.Close(dev)
		return -1, errors.Join(errors.New("/dev is no tmpfs"), err)
	}
	return dev, nil
}

func makeNode(dev int, node *devices.Device) error {
	dir, name := path.Split(strings.TrimPrefix(node.Path, "/dev/"))
	at := dev
	if dir != "" {
		below, err := openBelow(dev, path.Clean(dir))
		if err != nil {
			return err
		}
		defer unix.Close(below)
		at = below
	}
	number, err := node.Mkdev()
	if err != nil {
		return err
	}
	mode := kind(node.Type) | uint32(node.FileMode)
	if err := unix.Mknodat(at, name, mode, int(number)); err != nil {
		if err == unix.EEXIST {
			return nil
		}
		return err
	}
	// The shim's umask is none of the device's.
	if err := unix.Fchmodat(at, name, uint32(node.FileMode), 0); err != nil {
		return err
	}
	return unix.Fchownat(at, name, int(node.Uid), int(node.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

// openBelow opens a directory below dev and makes what is missing of it. It does not
// leave the file system: what is mounted there may be the node's.
func openBelow(dev int, dir string) (int, error) {
	for i := 0; i <= len(dir); i++ {
		if i == len(dir) || dir[i] == '/' {
			if err := unix.Mkdirat(dev, dir[:i], 0o755); err != nil && err != unix.EEXIST {
				return -1, err
			}
		}
	}
	return unix.Openat2(dev, dir, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}
