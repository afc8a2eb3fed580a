package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/osthread"
)

// Variables that the process sets for its re-execution.
const (
	enteredEnv = "CAREEN_ROOTFS_ENTERED"
	actionsEnv = "CAREEN_ROOTFS_ACTIONS"
)

// EnterOptions are the options of [Enter]. The zero value suits an agent.
type EnterOptions struct {
	// Force makes the namespace even where pivot_root works without it.
	Force bool
	// RunDir, ModulesDir and CgroupParent are as in [PrepareOptions].
	RunDir, ModulesDir, CgroupParent string
}

// carried is the list of actions of [Enter] before the re-execution; [Prepare] reports it.
var carried actions

// Enter moves the process into a mount namespace that containers can be started from. It
// executes the program again in that namespace, with the same arguments, process id and
// working directory. It returns nil when the process is in such a namespace or needs
// none; otherwise it returns only on failure. Call it first in main, before any
// goroutine, file or child exists.
//
// In a ramdisk the root is the kernel's rootfs, and pivot_root(2) cannot leave it. Enter
// binds the whole tree over / in a new mount namespace and makes that bind the root. The
// bind has a parent, so a container can leave it and needs no chroot. Enter first makes
// the node's mounts shared, and those of the namespace their slaves. So steps see what
// the node mounts later, and the node does not see what careen mounts.
//
// The namespace outlives the process: it is bound at RunDir/ns/mnt on the node. An agent
// that starts after another one was killed joins it and finds that agent's containers
// and overlays. File systems that the node lacks, such as /proc, are mounted before, in
// the node's own namespace.
//
// Errors have the code [fault.Node].
func Enter(opts EnterOptions) error {
	node := PrepareOptions{RunDir: opts.RunDir, ModulesDir: opts.ModulesDir, CgroupParent: opts.CgroupParent}.WithDefaults()
	if os.Getenv(enteredEnv) != "" {
		return arrive()
	}
	if !opts.Force && TryPivot() == nil {
		return nil
	}
	var done actions
	if err := prepareNode(context.Background(), node, &done); err != nil {
		return err
	}
	pin := pinAt(node.RunDir)
	if pin.inside() {
		carried = done
		return nil
	}
	if err := pin.enter(&done); err != nil {
		return nodeError("enter a mount namespace", "for containers", err,
			"Run careen as root with CAP_SYS_ADMIN and CAP_SYS_CHROOT, not inside a chroot")
	}
	return nil
}

// arrive is the second half of Enter, in the re-executed process.
func arrive() error {
	text := os.Getenv(actionsEnv)
	for _, name := range []string{enteredEnv, actionsEnv} {
		if err := os.Unsetenv(name); err != nil {
			return nodeError("clean the environment", name, err, "")
		}
	}
	// An unreadable value was not written by Enter; the trial below decides.
	_ = json.Unmarshal([]byte(text), &carried)
	if err := TryPivot(); err != nil {
		return nodeError("leave the ramdisk's root", "with pivot_root", err,
			"Boot a kernel of at least 4.18 with mount namespaces; run careen doctor for what it lacks")
	}
	return nil
}

// pin is the directory on the node where the namespace is kept.
type pin struct{ dir string }

func pinAt(runDir string) pin { return pin{filepath.Join(runDir, "ns")} }

func (p pin) file() string { return filepath.Join(p.dir, "mnt") }

// id is a plain file with the namespace's number. Unlike the bind it is visible in both
// namespaces, so a process can find out that it is inside.
func (p pin) id() string { return filepath.Join(p.dir, "id") }

func (p pin) inside() bool {
	want, err := os.ReadFile(p.id())
	if err != nil {
		return false
	}
	have, err := os.Readlink("/proc/self/ns/mnt")
	return err == nil && strings.TrimSpace(string(want)) == have
}

// enter joins or makes the pinned namespace and executes the program there.
func (p pin) enter(done *actions) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	// exec closes the file, which releases the lock.
	unlock, err := lock(p.dir + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "/"
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p.file(), &fs); err == nil && fs.Type == unix.NSFS_MAGIC {
		return osthread.Run(func() error {
			if err := p.join(); err != nil {
				return err
			}
			return execSelf(cwd, *done)
		})
	}
	if err := p.share(); err != nil {
		return err
	}
	return osthread.Run(func() error {
		if err := p.create(done); err != nil {
			return err
		}
		return execSelf(cwd, *done)
	})
}

// join moves the calling thread into the pinned namespace. The kernel then sets
// the root to the mount on top of /, which is the bind that create made.
func (p pin) join() error {
	fd, err := unix.Open(p.file(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", p.file(), err)
	}
	defer unix.Close(fd)
	// A thread that shares its root with others may not change namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("setns %s: %w", p.file(), err)
	}
	return nil
}

// share makes the node's mounts shared, as systemd does at boot, and gives the pin a
// private file system: the kernel refuses to bind a mount namespace at a place from which
// the bind would propagate into that same namespace.
func (p pin) share() error {
	if shared, err := rootIsShared(); err != nil {
		return err
	} else if !shared {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			return fmt.Errorf("make / shared: %w", err)
		}
	}
	if mounted, err := isMountPoint(p.dir); err != nil {
		return err
	} else if !mounted {
		if err := unix.Mount("careen-ns", p.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,mode=700"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", p.dir, err)
		}
	}
	if err := unix.Mount("", p.dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", p.dir, err)
	}
	f, err := os.OpenFile(p.file(), os.O_CREATE|os.O_RDONLY, 0o400)
	if err != nil {
		return err
	}
	return f.Close()
}

// rootIsShared reports whether mounts below / are seen in namespaces made from it.
func rootIsShared() (bool, error) {
	mounts, err := readMounts()
	if err != nil {
		return false, err
	}
	shared := false
	for _, m := range mounts {
		if m.Mountpoint == "/" {
			// The last one is on top.
			shared = strings.Contains(m.Optional, "shared:")
		}
	}
	return shared, nil
}

// create gives the calling thread a new namespace whose root can be left, and
// pins it.
func (p pin) create(done *actions) (err error) {
	self, err := p.unshare()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The next start must not find an unfinished namespace.
			err = errors.Join(err, osthread.Run(func() error { return unix.Unmount(p.file(), unix.MNT_DETACH) }))
		}
	}()
	if err := bindRoot(); err != nil {
		return err
	}
	name, err := os.Readlink(self)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.id(), []byte(name+"\n"), 0o400); err != nil {
		return err
	}
	return done.add("create", "mount namespace", "root bound over itself, slave of the node's, kept at "+p.file(), nil)
}

// unshare gives the calling thread a namespace and pins it. It returns the path
// of the namespace, for threads that see the node's.
//
// A namespace can only be bound in an older one, because otherwise the two could keep
// each other alive. Since Linux 6.18 the age is a number that each processor takes from
// its own batch, so the new namespace can seem older than the node's. Then unshare tries
// again on another processor.
func (p pin) unshare() (self string, err error) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return "", fmt.Errorf("read the thread's processors: %w", err)
	}
	for cpu := -1; cpu < len(all)*64; cpu++ {
		if cpu >= 0 {
			if !all.IsSet(cpu) {
				continue
			}
			one.Zero()
			one.Set(cpu)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				return "", fmt.Errorf("choose the thread's processor: %w", err)
			}
		}
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return "", fmt.Errorf("unshare: %w", err)
		}
		self = fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid())
		// Another thread makes the bind: it is in the node's namespace.
		err = osthread.Run(func() error { return unix.Mount(self, p.file(), "", unix.MS_BIND, "") })
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("pin the namespace at %s: %w", p.file(), err)
	}
	// The affinity would survive the exec that follows.
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		return "", fmt.Errorf("give the thread its processors back: %w", err)
	}
	return self, nil
}

// bindRoot gives the calling thread, which has a private mount namespace, a
// root that can be left: the whole tree bound over itself.
func bindRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make / a slave: %w", err)
	}
	if err := unix.Mount("/", "/", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind / over itself: %w", err)
	}
	// "/" alone is still the lower root; its parent directory resolves to the upper one.
	if err := unix.Chdir("/.."); err != nil {
		return fmt.Errorf("reach the bind: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot into the bind: %w", err)
	}
	return nil
}

// execSelf replaces the process by itself, on the calling thread's root and
// namespace. It returns only an error.
func execSelf(cwd string, done actions) error {
	text, err := json.Marshal(done)
	if err != nil {
		return err
	}
	if err := unix.Chdir(cwd); err != nil {
		// The namespace may not have the directory.
		if err := unix.Chdir("/"); err != nil {
			return err
		}
	}
	env := append(os.Environ(), enteredEnv+"="+strconv.Itoa(os.Getpid()), actionsEnv+"="+string(text))
	return fmt.Errorf("execute %s again: %w", os.Args[0], syscall.Exec(selfPath(), os.Args, env))
}

// selfPath returns a path of the running binary. The link in /proc always works, but
// the file's name is clearer in a process list.
func selfPath() string {
	const link = "/proc/self/exe"
	path, err := os.Readlink(link)
	if err != nil {
		return link
	}
	var a, b unix.Stat_t
	if unix.Stat(path, &a) != nil || unix.Stat(link, &b) != nil || a.Dev != b.Dev || a.Ino != b.Ino {
		return link
	}
	return path
}

// nodeError makes the error for a failure to prepare the node.
func nodeError(op, subject string, err error, remedy string) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	return &fault.Error{Code: fault.Node, Op: op, Subject: subject, Err: err, Remedy: remedy}
}
