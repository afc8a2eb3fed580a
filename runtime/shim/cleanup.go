package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/container"
)

// CleanUp removes a container whose shim died, as far as its bundle tells, and puts on
// record that its end is unknown if its shim did not record it. It may be called again,
// and for a container that was never made. Errors have no fault code.
func CleanUp(bundle, id string) (container.Exit, error) {
	bundle = filepath.Clean(bundle)
	lost := container.Exit{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL), ExitedAt: time.Now().UTC()}
	rootfs := filepath.Join(bundle, "rootfs")
	target, err := recallTarget(bundle)
	if err != nil {
		// The shim died before it was asked to create anything.
		return lost, unmountAll(rootfs)
	}
	if err := RemoveStray(target.Dir, id); err != nil {
		return lost, err
	}
	if err := removeCgroups(bundle, id); err != nil {
		return lost, err
	}
	if exit, err := target.Dir.ReadExit(id); err == nil || errors.Is(err, container.ErrLost) {
		return exit, unmountAll(rootfs)
	}
	err = target.Dir.WriteExit(id, lost, true)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the run's directory is gone, and no one asks for the exit
	}
	return lost, errors.Join(err, unmountAll(rootfs))
}

// RemoveStray kills what still runs of a container that has no shim any more, and
// removes its cgroups, as libcontainer's state in the run's directory names them. It may
// be called for a container that was removed already, and by several processes at once:
// the state is removed last. Errors have no fault code.
func RemoveStray(runDir container.Dir, id string) error {
	ctr, err := libcontainer.Load(runDir.State(), id)
	if err != nil {
		return nil // no state: removed, or never made
	}
	stray := &task{id: id, ctr: ctr}
	stray.killLeftover()
	if err := ctr.Destroy(); err != nil {
		if _, lerr := libcontainer.Load(runDir.State(), id); lerr != nil {
			return nil // another process was first
		}
		return fmt.Errorf("cannot remove container %s: %w", id, err)
	}
	return nil
}

// removeCgroups kills what runs in the cgroups that a bundle's spec names, and removes
// them. libcontainer writes its state only after it has made the cgroups and put the
// init there: a shim that dies in between leaves them with no other record than the
// spec. Absent cgroups are no error.
func removeCgroups(bundle, id string) error {
	spec, err := readSpec(bundle)
	if err != nil {
		return nil // without a spec nothing was made
	}
	config, err := specconv.CreateCgroupConfig(&specconv.CreateOpts{CgroupName: id, Spec: spec, RootlessEUID: os.Geteuid() != 0}, nil)
	if err != nil {
		return nil // the shim refused the spec too
	}
	groups, err := manager.New(config)
	if err != nil {
		return fmt.Errorf("cannot find the cgroups of container %s: %w", id, err)
	}
	deadline := time.Now().Add(leftoverPatience)
	for killIn(groups) && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond) // the processes are no children: no event comes
	}
	if err := groups.Destroy(); err != nil {
		return fmt.Errorf("cannot remove the cgroups of container %s: %w", id, err)
	}
	return nil
}

// killIn kills the processes in the cgroups of every hierarchy, and reports whether
// there were any. An init that was moved only half way is in some of them.
func killIn(groups cgroups.Manager) (some bool) {
	for _, path := range groups.GetPaths() {
		pids, err := cgroups.GetAllPids(path)
		if err != nil {
			continue
		}
		for _, pid := range pids {
			some = true
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return some
}

// rememberTarget keeps the stdout address where a clean-up finds it.
func rememberTarget(bundle, address string) error {
	return os.WriteFile(filepath.Join(bundle, "careen-target"), []byte(address), 0o600)
}

func recallTarget(bundle string) (Target, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "careen-target"))
	if err != nil {
		return Target{}, err
	}
	return ParseTarget(string(data))
}
