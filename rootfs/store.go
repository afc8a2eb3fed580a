package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/procfs"
)

// StoreMode says where the store lies: on a tmpfs that careen mounts, or in its directory.
type StoreMode string

// The modes. StoreAuto mounts a tmpfs where the directory is in memory anyway or where
// overlayfs does not work on its file system. Otherwise it uses the directory.
const (
	StoreAuto      StoreMode = "auto"
	StoreTmpfs     StoreMode = "tmpfs"
	StoreDirectory StoreMode = "directory"
)

// minInodes are enough for an ordinary image, even in a small store.
const minInodes = 65536

// prepareStore makes the store. A store that is a mount already, made by an earlier agent
// or by an operator, is left alone.
func prepareStore(opts PrepareOptions, done *actions) error {
	if err := os.MkdirAll(opts.StoreDir, 0o711); err != nil {
		return nodeError("make the store", opts.StoreDir, err, "Give a directory that careen can write to with --root")
	}
	own, err := wantsTmpfs(opts)
	if err != nil {
		return err
	}
	if !own {
		return nil
	}
	size, err := opts.TmpfsSize()
	if err != nil {
		return err
	}
	inodes := opts.StoreInodes
	if inodes == 0 {
		inodes = max(minInodes, size/8192)
	}
	data := fmt.Sprintf("size=%d,nr_inodes=%d,mode=0711", size, inodes)
	err = unix.Mount("careen-store", opts.StoreDir, "tmpfs", unix.MS_NODEV, data)
	if done.add("mount", opts.StoreDir, "tmpfs "+data, err) != nil {
		return nodeError("mount the store", opts.StoreDir, err, "Run careen as root, or mount a file system there before")
	}
	return nil
}

func wantsTmpfs(opts PrepareOptions) (bool, error) {
	switch opts.Store {
	case StoreAuto, StoreTmpfs, StoreDirectory:
	default:
		return false, &fault.Error{
			Code: fault.BadConfig, Op: "prepare the store", Subject: string(opts.Store),
			Reason: "not a kind of store", Remedy: "Use auto, tmpfs or directory",
		}
	}
	mounted, err := isMountPoint(opts.StoreDir)
	if err != nil {
		return false, nodeError("examine the store", opts.StoreDir, err, "")
	}
	if mounted || opts.Store == StoreDirectory {
		return false, nil
	}
	if opts.Store == StoreTmpfs || inMemory(statfsType(opts.StoreDir)) {
		return true, nil
	}
	// For a store on a disk, tmpfs is better only if overlays work there.
	return procfs.HasFilesystem("overlay") && TryOverlay(opts.StoreDir) != nil, nil
}

// TmpfsSize returns the limit of the store's tmpfs in bytes. Errors have the code
// [fault.Memory] when the node has too little, and [fault.Node] when its memory cannot be
// read.
func (o PrepareOptions) TmpfsSize() (int64, error) {
	m, err := procfs.MemInfo()
	if err != nil {
		return 0, nodeError("read", procfs.MemInfoPath, err, "Mount /proc")
	}
	total := m.Total + m.SwapTotal
	if o.StoreSize > 0 {
		if o.StoreSize > total {
			return 0, &fault.Error{
				Code: fault.Memory, Op: "give the store", Subject: fmt.Sprintf("%d bytes", o.StoreSize),
				Reason: fmt.Sprintf("the node has %d bytes of memory in all", total),
				Remedy: "Ask for less, or leave the size to careen",
				Attrs:  map[string]any{"needed_bytes": o.StoreSize, "available_bytes": total},
			}
		}
		return o.StoreSize, nil
	}
	size := m.Available / 4 * 3
	const least = 16 << 20
	if size < least {
		return 0, &fault.Error{
			Code: fault.Memory, Op: "make the store", Subject: o.StoreDir,
			Reason: fmt.Sprintf("only %d MiB of memory are available", m.Available>>20),
			Remedy: "Give the node more memory, or a disk for the store with --root",
			Attrs:  map[string]any{"needed_bytes": int64(least), "available_bytes": size},
		}
	}
	return size &^ 4095, nil
}

// InspectStore returns a layout with the figures of a store in dir, which need not exist
// yet. Nothing else in the layout is filled in. Errors are the kernel's, without a fault
// code.
func InspectStore(dir string) (*Layout, error) {
	l := &Layout{StoreDir: dir}
	return l, l.inspectStore()
}

// inspectStore fills in the layout's figures of the store.
func (l *Layout) inspectStore() error {
	// Before Prepare the directory may be missing: its first existing parent is on the
	// same file system.
	dir := l.StoreDir
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	for errors.Is(err, unix.ENOENT) && dir != "/" {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &s)
	}
	if err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	l.StoreFS = fsName(s.Type)
	l.StoreTmpfs = s.Type == unix.TMPFS_MAGIC && dir == l.StoreDir && IsMounted(dir)
	l.StoreSize = int64(s.Blocks) * s.Bsize
	l.StoreFree = int64(s.Bavail) * s.Bsize
	l.StoreInodes, l.StoreInodesFree = int64(s.Files), int64(s.Ffree)
	if err := TryOverlay(dir); err != nil {
		l.OverlayError = err.Error()
	} else {
		l.Overlay = true
	}
	return nil
}

// fsName returns the name of a file system that a root or store is likely to be on.
func fsName(magic int64) string {
	names := map[int64]string{
		unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.SQUASHFS_MAGIC: "squashfs", unix.NFS_SUPER_MAGIC: "nfs", unix.F2FS_SUPER_MAGIC: "f2fs",
	}
	if name, ok := names[magic]; ok {
		return name
	}
	return fmt.Sprintf("0x%x", magic)
}
