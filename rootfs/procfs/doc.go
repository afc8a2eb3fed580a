// Package procfs reads the few figures of the kernel that careen needs: the node's
// memory, the memory of this process, the clock and the id of the current boot, and the types of file system.
//
// github.com/prometheus/procfs reads the same files and many more. It would add
// 0.13 MB gzipped to the binary and has no answer where /proc is not mounted yet,
// which is the case early in a ramdisk.
//
// The package is a leaf: it imports nothing of careen. Its errors have no fault code.
package procfs
